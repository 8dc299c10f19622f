//! LLaVA 1.5, `LlavaForConditionalGeneration` in transformers: CLIP's or SigLIP's image encoder, a projector of two linear
//! maps, and any language model of this folder, which reads an image's vectors among those of its tokens.
//!
//! Source: Liu et al., arXiv:2304.08485, Sec. 4.1, and arXiv:2310.03744, Sec. 3.3 (the projector of two layers).

mod config;
mod features;
mod processor;

use super::decoder::{Decoder, Roots};
use super::sizes::Sizes;
use super::{Architecture, Network};
use crate::error::Result;
use crate::image_processor::ImageProcessor;
use crate::image_tokens::ImageTokens;
use config::LlavaConfig;
use features::ImageFeatures;
use processor::LlavaProcessor;
use std::path::Path;
use std::sync::Arc;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "llava",
    class: "LlavaForConditionalGeneration",
    reward_class: None,
    pad_token_id: None,
    own_code: None,
    sees_images: true,
    read: |file| Ok(Arc::new(LlavaConfig::read(file)?)),
};

/// What names begin with in files, and as paths of modules. Of several spellings of a module in files the first is written:
/// the hub's own, which transformers 4 and 5 read.
const SPELLINGS: &[(&str, &str)] = &[
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_tower.vision_model.", "model.vision_tower."),
    ("vision_tower.", "model.vision_tower."),
    ("model.vision_tower.vision_model.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
];

impl Network for LlavaConfig {
    fn sizes(&self) -> &Sizes {
        self.text.sizes()
    }

    fn decoder(&self, roots: &Roots) -> Result<Decoder> {
        let model = &roots.model;
        let language = Roots { model: model.sub("language_model"), lm_head: roots.lm_head.clone() };
        Ok(self.text.decoder(&language)?.with_vision(ImageFeatures::new(model, self)?))
    }

    fn image_tokens(&self) -> Option<ImageTokens> {
        Some(self.tokens())
    }

    fn image_processor(&self, folder: &Path) -> Result<Option<Arc<dyn ImageProcessor>>> {
        let processor = LlavaProcessor::read(folder, self.tokens(), self.vision.image_size)?;
        Ok(Some(Arc::new(processor)))
    }

    fn image_activations(&self, vectors: usize) -> (usize, usize, usize) {
        let images = vectors.div_ceil(self.per_image().max(1));
        let (vision, language) = (&self.vision, self.text.sizes().hidden_size);
        let (width, inner, tokens) = (vision.layer.width, vision.layer.inner, vision.tokens());
        // Two norms, queries, keys, values, the mix, the way out and two sums; the inner width before and after its activation.
        let layer = tokens * (10 * width + 2 * inner);
        let features = width * self.feature_layers.len();
        let others = 3 * tokens * width + tokens * (2 * features + 3 * language);
        (images * layer, self.depth(), images * others)
    }

    fn spellings(&self) -> &'static [(&'static str, &'static str)] {
        SPELLINGS
    }
}
