//! Qwen3-VL (dense), `Qwen3VLForConditionalGeneration` in transformers: an image encoder for images of any size, and a Qwen3 in
//! which cells of images stand in rows and columns, and whose first layers are also given what the encoder's middle blocks saw.
//!
//! Source: Bai et al., "Qwen3-VL Technical Report", arXiv:2511.21631; Wang et al., arXiv:2409.12191 (M-RoPE, images of any size);
//! Meng et al., arXiv:2406.04334 (DeepStack). Films are not read.

mod config;
mod processor;
mod tower;

use super::decoder::{Decoder, Roots};
use super::sizes::Sizes;
use super::{Architecture, Network};
use crate::error::Result;
use crate::image_processor::ImageProcessor;
use crate::image_tokens::ImageTokens;
use config::{Qwen3VlConfig, VisionConfig};
use processor::Qwen3VlProcessor;
use std::path::Path;
use std::sync::Arc;
use tower::VisionTower;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "qwen3_vl",
    class: "Qwen3VLForConditionalGeneration",
    reward_class: None,
    pad_token_id: None,
    own_code: None,
    sees_images: true,
    read: |file| Ok(Arc::new(Qwen3VlConfig::read(file)?)),
};

impl Network for Qwen3VlConfig {
    fn sizes(&self) -> &Sizes {
        &self.text.sizes
    }

    fn decoder(&self, roots: &Roots) -> Result<Decoder> {
        let model = &roots.model;
        let language = Roots { model: model.sub("language_model"), lm_head: roots.lm_head.clone() };
        let decoder = self.text.decoder(&language)?.with_axes(&self.axes);
        Ok(decoder.with_vision(VisionTower::new(&model.sub("visual"), self)?))
    }

    fn image_tokens(&self) -> Option<ImageTokens> {
        Some(self.tokens())
    }

    fn image_processor(&self, folder: &Path) -> Result<Option<Arc<dyn ImageProcessor>>> {
        Ok(Some(Arc::new(Qwen3VlProcessor::read(folder, self.tokens(), &self.vision)?)))
    }

    fn image_activations(&self, vectors: usize) -> (usize, usize, usize) {
        let VisionConfig { width, inner, layers, patch, merge, out, ref deepstack, .. } = self.vision;
        let square = merge * merge;
        // Two norms, what queries, keys and values are and their parts, two rotations, the mix, the way out, the net and two
        // sums; the inner width before and after its activation.
        let layer = 14 * width + 2 * inner;
        // Pixels; a patch before and after its position, and what that is made of; then a norm, both sides of an activation and
        // the result of each merger, and what they add to the language model.
        let embedded = 3 * patch * patch + 7 * width;
        let merged = (1 + deepstack.len()) * (3 * square * width + 3 * out);
        (vectors * square * layer, layers, vectors * (square * embedded + merged))
    }
}
