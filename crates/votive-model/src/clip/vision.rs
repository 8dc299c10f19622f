//! CLIP's image encoder, a vision transformer, `CLIPVisionModel` in transformers.
//!
//! Source: Radford et al., "Learning transferable visual models from natural language supervision", arXiv:2103.00020,
//! Sec. 2.4; Dosovitskiy et al., "An image is worth 16x16 words", arXiv:2010.11929, Sec. 3.1.

use super::layer::{EncoderLayer, LayerConfig};
use super::vision_config::ClipVisionConfig;
use crate::error::{ModelError, Result};
use crate::nn::{Embedding, LayerNorm};
use crate::params::{Init, Scope};
use candle_core::Tensor;
use votive_tensor::segment::Recorder;
use votive_tensor::{AttentionMask, conv2d};

/// Patches and the first layers: what becomes of an image before anything is read off.
#[derive(Clone, Debug)]
pub(crate) struct ClipVisionLayers {
    config: ClipVisionConfig,
    /// What stands before the patches.
    class: Tensor,
    /// Kernel of the patches, without a bias.
    patch: Tensor,
    no_bias: Tensor,
    positions: Embedding,
    norm_before: LayerNorm,
    layers: Vec<EncoderLayer>,
}

impl ClipVisionLayers {
    /// The first `depth` layers of the encoder of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new(scope: &Scope, config: &ClipVisionConfig, depth: usize) -> Result<Self> {
        let (width, side) = (config.hidden_size, config.patch_size);
        let embeddings = scope.sub("embeddings");
        embeddings.ignore("position_ids");
        let start = Init::Normal(0.02);
        let patch = embeddings.sub("patch_embedding").get("weight", &[width, 3, side, side], start)?;
        let shape = LayerConfig {
            width,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            layers: config.num_hidden_layers,
            activation: config.hidden_act,
            eps: config.layer_norm_eps,
        };
        let layer = |i: usize| EncoderLayer::new(&scope.sub("encoder.layers").sub(i), shape);
        let positions = embeddings.sub("position_embedding");
        Ok(Self {
            class: embeddings.get("class_embedding", &[width], start)?,
            no_bias: Tensor::zeros(width, patch.dtype(), patch.device())?,
            patch,
            positions: Embedding::new(&positions, config.patches() + 1, width, start)?,
            // The checkpoints' spelling.
            norm_before: LayerNorm::new(&scope.sub("pre_layrnorm"), width, config.layer_norm_eps)?,
            layers: (0..depth).map(layer).collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// What comes out of some layers, counted from 1; 0 is what goes into the first. With a recorder the layers are
    /// recomputed in the backward.
    ///
    /// # Shapes
    /// `pixels (B, 3, image_size, image_size)` → `(B, 1 + patches, hidden_size)` each, the class first
    /// # Errors
    /// If the image has another size, or there is no such layer.
    pub(crate) fn states(
        &self,
        pixels: &Tensor,
        wanted: &[usize],
        recorder: Option<&Recorder>,
    ) -> Result<Vec<Tensor>> {
        let (rows, side) = (pixels.dim(0)?, self.config.image_size);
        if pixels.dims() != [rows, 3, side, side] {
            return Err(ModelError::Shape {
                what: "pixels of CLIP's image encoder".to_owned(),
                expected: format!("(B, 3, {side}, {side})"),
                found: format!("{:?}", pixels.dims()),
            });
        }
        let patches = conv2d(pixels, &self.patch, &self.no_bias, self.config.patch_size, 0)?;
        let patches = patches.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let class = self.class.broadcast_as((rows, 1, self.config.hidden_size))?.contiguous()?;
        let h = Tensor::cat(&[&class, &patches], 1)?.broadcast_add(self.positions.weight())?;
        let mut h = self.norm_before.forward(&h)?;
        let mut found = vec![(0, h.clone())];
        for (index, layer) in (1..).zip(&self.layers) {
            h = match recorder {
                None => layer.forward(&h, &AttentionMask::full())?,
                Some(recorder) => {
                    let layer = layer.clone();
                    let run = move |h: &Tensor| layer.forward(h, &AttentionMask::full());
                    recorder.segment(&h, move |h| run(h).map_err(candle_core::Error::wrap))?
                }
            };
            found.retain(|(known, _)| wanted.contains(known));
            found.push((index, h.clone()));
        }
        let state = |index: &usize| {
            let state = found.iter().find(|(known, _)| known == index);
            state.map(|(_, state)| state.clone()).ok_or_else(|| ModelError::Shape {
                what: "layer of CLIP's image encoder".to_owned(),
                expected: format!("0 to {}", self.layers.len()),
                found: index.to_string(),
            })
        };
        wanted.iter().map(state).collect()
    }
}

/// Encodes an image.
#[derive(Clone, Debug)]
pub struct ClipVisionModel {
    layers: ClipVisionLayers,
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
            layers: ClipVisionLayers::new(scope, config, config.num_hidden_layers)?,
            norm_after: LayerNorm::new(&norm_after, config.hidden_size, config.layer_norm_eps)?,
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ClipVisionConfig {
        &self.layers.config
    }

    /// The normalised state of the class token, with a gradient by the pixels.
    ///
    /// # Shapes
    /// `pixels (B, 3, image_size, image_size)`, as [`super::ClipImageProcessor`] makes them → `(B, hidden_size)`
    /// # Errors
    /// If the image has another size.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let last = [self.config().num_hidden_layers];
        let state = self.layers.states(pixels, &last, None)?.remove(0);
        self.norm_after.forward(&state.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
    }
}
