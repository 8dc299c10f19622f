//! How well a picture fits its prompt, by any CLIP model: the score that CLIPScore and PickScore are made of.
//!
//! Sources: Hessel et al., "CLIPScore", arXiv:2104.08718, Sec. 3 (the cosine of both embeddings); Kirstain et al., "Pick-a-Pic",
//! arXiv:2305.01569, Sec. 4 (a CLIP model that was trained on preferences, its cosine times `exp(logit_scale)`).

use super::{ImageReward, RewardFootprint};
use crate::error::{Result, TrainError};
use crate::memory::folder_bytes;
use candle_core::{DType, Device, Tensor};
use std::path::Path;
use votive_data::ClipTokenizer;
use votive_diffusion::BoxError;
use votive_model::clip::{ClipImageProcessor, ClipModel, cosines};

/// Texts in CLIP's space.
#[derive(Clone, Debug)]
pub struct EncodedTexts {
    /// `(B, projection_dim)`
    pub embeds: Tensor,
    /// For each text the tokens that the encoder did not see, because they did not fit.
    pub truncated_tokens: Vec<usize>,
}

/// A CLIP folder as transformers writes it: both towers, the tokenizer and the image processor.
#[derive(Debug)]
pub struct ClipScorer {
    model: ClipModel,
    processor: ClipImageProcessor,
    tokenizer: ClipTokenizer,
    /// Of its files, bytes.
    weights: u64,
    device: Device,
}

impl ClipScorer {
    /// Reads a folder.
    ///
    /// # Errors
    /// If a file is missing, malformed or not supported, or the parts do not fit together.
    pub fn open(folder: &Path, device: &Device) -> Result<Self> {
        let model = ClipModel::load(folder, device)?;
        let processor = ClipImageProcessor::read(folder)?;
        let tokenizer = ClipTokenizer::load(folder)?;
        tokenizer.check_model_vocabulary(model.text_config().vocab_size)?;
        let wrong = |what: String| TrainError::Plan(format!("{}: {what}", folder.display()));
        let side = model.vision_config().image_size;
        if processor.output_size() != Some((side, side)) {
            let found = processor.output_size().map_or_else(
                || "images of their own shapes".to_owned(),
                |(width, height)| format!("{width}x{height} pixels"),
            );
            return Err(wrong(format!("the image processor gives {found}, the encoder reads {side}x{side}")));
        }
        let most = model.text_config().max_position_embeddings;
        if tokenizer.positions() > most {
            let found = tokenizer.positions();
            return Err(wrong(format!(
                "the tokenizer gives {found} tokens, the encoder reads at most {most}"
            )));
        }
        Ok(Self { model, processor, tokenizer, weights: folder_bytes(folder), device: device.clone() })
    }

    /// Encodes texts, without a gradient.
    ///
    /// # Errors
    /// If the tokenizer or the encoder fails.
    pub fn texts<S: AsRef<str>>(&self, texts: &[S]) -> Result<EncodedTexts> {
        let mut ids = Vec::with_capacity(texts.len() * self.tokenizer.positions());
        let mut truncated_tokens = Vec::with_capacity(texts.len());
        for text in texts {
            let encoded = self.tokenizer.encode(text.as_ref())?;
            truncated_tokens.push(encoded.truncated_tokens);
            ids.extend(encoded.ids);
        }
        let ids = Tensor::from_vec(ids, (texts.len(), self.tokenizer.positions()), &self.device)?;
        Ok(EncodedTexts { embeds: self.model.text_embeds(&ids)?.detach(), truncated_tokens })
    }

    /// The cosine of each image's embedding with that of its text. Every image is scaled and cut as its file would be.
    ///
    /// # Shapes
    /// `images`: bytes (H, W, 3) with width and height, B in all; `texts (B, projection_dim)`
    /// # Errors
    /// If an image has no pixels, or the encoder fails.
    pub fn cosines_of_files(&self, images: &[(&[u8], (usize, usize))], texts: &Tensor) -> Result<Vec<f64>> {
        let side = self.model.vision_config().image_size;
        let mut pixels = Vec::with_capacity(images.len() * 3 * side * side);
        for (bytes, size) in images {
            pixels.extend(self.processor.pixels(bytes, *size)?);
        }
        let pixels = Tensor::from_vec(pixels, (images.len(), 3, side, side), &self.device)?;
        numbers(&cosines(&self.model.image_embeds(&pixels)?, texts)?)
    }

    /// The same of images that a network has drawn, `(B,)`, with a gradient by their pixels.
    ///
    /// # Shapes
    /// `images (B, 3, H, W)` from 0 to 1; `texts (B, projection_dim)`
    /// # Errors
    /// If the encoder fails.
    pub fn cosines_of_drawn(&self, images: &Tensor, texts: &Tensor) -> Result<Tensor> {
        let pixels = self.processor.drawn(images)?;
        Ok(cosines(&self.model.image_embeds(&pixels)?, texts)?)
    }

    /// What cosines are multiplied by to be the model's logits.
    ///
    /// # Errors
    /// Those of candle.
    pub fn scale(&self) -> Result<f64> {
        Ok(self.model.scale()?)
    }
}

/// Numbers a channel that a layer of the image encoder keeps for every patch: two norms, three projections, mix, way out,
/// two sums, the feed-forward's way out.
const LAYER: u64 = 10;

/// Scores as numbers.
fn numbers(scores: &Tensor) -> Result<Vec<f64>> {
    Ok(scores.detach().to_dtype(DType::F64)?.to_vec1()?)
}

/// The logit of a picture and its prompt as a reward, `exp(logit_scale)·cos`: PickScore, if the model is PickScore's.
#[derive(Debug)]
pub struct ClipReward {
    scorer: ClipScorer,
    scale: f64,
}

impl ClipReward {
    /// Reads a CLIP folder.
    ///
    /// # Errors
    /// As [`ClipScorer::open`].
    pub fn open(folder: &Path, device: &Device) -> Result<Self> {
        let scorer = ClipScorer::open(folder, device)?;
        Ok(Self { scale: scorer.scale()?, scorer })
    }

    fn logits(&self, prompts: &[String], images: &Tensor) -> Result<Tensor> {
        let texts = self.scorer.texts(prompts)?.embeds;
        Ok((self.scorer.cosines_of_drawn(images, &texts)? * self.scale)?)
    }
}

impl ImageReward for ClipReward {
    fn score(&self, prompts: &[String], images: &Tensor) -> std::result::Result<Vec<f64>, BoxError> {
        Ok(numbers(&self.logits(prompts, &images.detach())?)?)
    }

    fn tracked(&self, prompts: &[String], images: &Tensor) -> std::result::Result<Option<Tensor>, BoxError> {
        Ok(Some(self.logits(prompts, images)?))
    }

    fn footprint(&self) -> RewardFootprint {
        let config = self.scorer.model.vision_config();
        let (width, inner) = (config.hidden_size as u64, config.intermediate_size as u64);
        let patches = config.patches() as u64 + 1;
        let layer = LAYER * width + 2 * inner;
        RewardFootprint {
            weights: self.scorer.weights,
            kept: patches * (config.num_hidden_layers as u64 * layer + 4 * width),
        }
    }
}
