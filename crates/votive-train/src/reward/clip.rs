//! How well a picture fits its prompt, by any CLIP model: the score that CLIPScore, PickScore and HPSv2 are made of.
//!
//! Sources: Hessel et al., "CLIPScore", arXiv:2104.08718, Sec. 3 (the cosine of both embeddings); Kirstain et al., "Pick-a-Pic",
//! arXiv:2305.01569, Sec. 4, and Wu et al., "Human Preference Score v2", arXiv:2306.09341 (CLIP models that were trained on
//! preferences, whose log-odds are differences of cosines times `exp(logit_scale)`).

use super::picture_encoder::PictureEncoder;
use super::{Pictures, numbers};
use crate::error::{Result, TrainError};
use candle_core::{Device, Tensor};
use std::path::Path;
use votive_data::ClipTokenizer;
use votive_model::clip::cosines;

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
    pub(super) encoder: PictureEncoder,
    tokenizer: ClipTokenizer,
    scale: f64,
}

impl ClipScorer {
    /// Reads a folder.
    ///
    /// # Errors
    /// If a file is missing, malformed or not supported, or the parts do not fit together.
    pub fn open(folder: &Path, device: &Device) -> Result<Self> {
        let encoder = PictureEncoder::open(folder, device)?;
        let tokenizer = ClipTokenizer::load(folder)?;
        let config = encoder.model.text_config();
        tokenizer.check_model_vocabulary(config.vocab_size)?;
        let (found, most) = (tokenizer.positions(), config.max_position_embeddings);
        if found > most {
            let folder = folder.display();
            let message =
                format!("{folder}: the tokenizer gives {found} tokens, the encoder reads at most {most}");
            return Err(TrainError::Plan(message));
        }
        Ok(Self { scale: encoder.model.scale()?, encoder, tokenizer })
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
        let ids = Tensor::from_vec(ids, (texts.len(), self.tokenizer.positions()), &self.encoder.device)?;
        Ok(EncodedTexts { embeds: self.encoder.model.text_embeds(&ids)?.detach(), truncated_tokens })
    }

    /// The cosine of each picture's embedding with that of its text. Every picture is scaled and cut as its file would be.
    ///
    /// # Shapes
    /// `texts (B, projection_dim)`
    /// # Errors
    /// If a picture has no pixels, or the encoder fails.
    pub fn cosines_of_files(&self, pictures: Pictures, texts: &Tensor) -> Result<Vec<f64>> {
        numbers(&cosines(&self.encoder.of_files(pictures)?, texts)?)
    }

    /// The same of pictures that a network has drawn, `(B,)`, with a gradient by their pixels.
    ///
    /// # Shapes
    /// `pictures (B, 3, H, W)` from 0 to 1; `texts (B, projection_dim)`
    /// # Errors
    /// If the encoder fails.
    pub fn cosines_of_drawn(&self, pictures: &Tensor, texts: &Tensor) -> Result<Tensor> {
        Ok(cosines(&self.encoder.of_drawn(pictures)?, texts)?)
    }

    /// What cosines are multiplied by to be the model's logits, `exp(logit_scale)`.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale
    }
}
