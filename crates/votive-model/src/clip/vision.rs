//! CLIP's image encoder, a vision transformer, `CLIPVisionModel` in transformers.
//!
//! Source: Radford et al., "Learning transferable visual models from natural language supervision", arXiv:2103.00020,
//! Sec. 2.4; Dosovitskiy et al., "An image is worth 16x16 words", arXiv:2010.11929, Sec. 3.1.

use super::vision_config::ClipVisionConfig;
use crate::error::Result;
use crate::nn::LayerNorm;
use crate::params::Scope;
use crate::vision_transformer::VisionLayers;
use candle_core::Tensor;

/// Encodes an image.
#[derive(Clone, Debug)]
pub struct ClipVisionModel {
    config: ClipVisionConfig,
    layers: VisionLayers,
    norm_after: LayerNorm,
}

impl ClipVisionModel {
    /// The network on the parameters of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub fn new(scope: &Scope, config: &ClipVisionConfig) -> Result<Self> {
        let norm_after = scope.sub("post_layernorm");
        Ok(Self {
            config: config.clone(),
            layers: VisionLayers::new(scope, config.into(), config.num_hidden_layers)?,
            norm_after: LayerNorm::new(&norm_after, config.hidden_size, config.layer_norm_eps)?,
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// The normalised state of the class token, with a gradient by the pixels.
    ///
    /// # Shapes
    /// `pixels (B, 3, image_size, image_size)`, as [`super::ClipImageProcessor`] makes them → `(B, hidden_size)`
    /// # Errors
    /// If the image has another size.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let last = [self.config.num_hidden_layers];
        let state = self.layers.states(pixels, &last, None)?.remove(0);
        self.norm_after.forward(&state.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
    }
}
