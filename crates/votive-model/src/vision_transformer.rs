//! The vision transformer that image encoders are made of: patches, positions, and layers whose results can be read.
//!
//! Source: Dosovitskiy et al., "An image is worth 16x16 words", arXiv:2010.11929, Sec. 3.1.

use crate::clip::{ClipVisionConfig, EncoderLayer, LayerConfig, activation};
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::nn::{Embedding, LayerNorm};
use crate::params::{Init, Scope};
use candle_core::Tensor;
use serde_json::json;
use votive_tensor::Recorder;
use votive_tensor::{AttentionMask, conv2d};

/// Whose image encoder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// CLIP: a class token before the patches, and a normalisation before the layers.
    Clip,
    /// SigLIP (Zhai et al., arXiv:2303.15343): neither, and a bias to the patches.
    Siglip,
}

/// Shape of an image encoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VisionShape {
    pub(crate) family: Family,
    /// Pixels along a side of the image.
    pub(crate) image_size: usize,
    /// Pixels along a side of a patch.
    pub(crate) patch_size: usize,
    /// Its layers, and how many there are.
    pub(crate) layer: LayerConfig,
}

impl From<&ClipVisionConfig> for VisionShape {
    fn from(config: &ClipVisionConfig) -> Self {
        let layer = LayerConfig {
            width: config.hidden_size,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            layers: config.num_hidden_layers,
            activation: config.hidden_act,
            eps: config.layer_norm_eps,
        };
        let (image_size, patch_size) = (config.image_size, config.patch_size);
        Self { family: Family::Clip, image_size, patch_size, layer }
    }
}

impl VisionShape {
    /// Reads the configuration of an image encoder of either family, CLIP's if it does not say. Absent fields have
    /// transformers' defaults.
    ///
    /// # Errors
    /// If a field has the wrong type, or a value that is not supported.
    pub(crate) fn read(file: &ConfigFile) -> Result<Self> {
        match file.maybe_str("model_type")?.as_deref() {
            None | Some("clip_vision_model") => Ok((&ClipVisionConfig::from_file(file)?).into()),
            Some("siglip_vision_model") => Self::of_siglip(file),
            Some(_) => {
                let supported = "supported: clip_vision_model, siglip_vision_model";
                Err(file.unsupported("model_type", supported))
            }
        }
    }

    /// The fields of transformers' `SiglipVisionConfig`.
    fn of_siglip(file: &ConfigFile) -> Result<Self> {
        file.only("num_channels", &[json!(3)])?;
        let or = |field: &str, default: usize| -> Result<usize> {
            Ok(file.maybe_usize(field)?.unwrap_or(default))
        };
        let layer = LayerConfig {
            width: or("hidden_size", 768)?,
            inner: or("intermediate_size", 3072)?,
            heads: or("num_attention_heads", 12)?,
            layers: or("num_hidden_layers", 12)?,
            activation: activation(file, "hidden_act", "gelu_pytorch_tanh")?,
            eps: file.maybe_f64("layer_norm_eps")?.unwrap_or(1e-6),
        };
        let (image_size, patch_size) = (or("image_size", 224)?, or("patch_size", 16)?);
        if layer.width == 0 || !layer.width.is_multiple_of(layer.heads) {
            return Err(file.unsupported("num_attention_heads", "a divisor of hidden_size"));
        }
        if patch_size == 0 || patch_size > image_size {
            return Err(file.unsupported("patch_size", "from 1 to image_size"));
        }
        Ok(Self { family: Family::Siglip, image_size, patch_size, layer })
    }

    /// Patches of an image; what is left at its right and at its bottom belongs to none.
    pub(crate) fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Tokens of an image: its patches, and the class if there is one.
    pub(crate) fn tokens(&self) -> usize {
        self.patches() + usize::from(self.family == Family::Clip)
    }
}

/// Patches and the first layers: what becomes of an image before anything is read off.
#[derive(Clone, Debug)]
pub(crate) struct VisionLayers {
    shape: VisionShape,
    /// What stands before the patches, and the normalisation before the layers.
    class: Option<(Tensor, LayerNorm)>,
    patch: Tensor,
    patch_bias: Tensor,
    positions: Embedding,
    layers: Vec<EncoderLayer>,
}

impl VisionLayers {
    /// The first `depth` layers of the encoder of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new(scope: &Scope, shape: VisionShape, depth: usize) -> Result<Self> {
        let (width, side) = (shape.layer.width, shape.patch_size);
        let embeddings = scope.sub("embeddings");
        embeddings.ignore("position_ids");
        let start = Init::Normal(0.02);
        let place = embeddings.sub("patch_embedding");
        let patch = place.get("weight", &[width, 3, side, side], start)?;
        let (class, patch_bias) = match shape.family {
            Family::Clip => {
                // The checkpoints' spelling.
                let norm = LayerNorm::new(&scope.sub("pre_layrnorm"), width, shape.layer.eps)?;
                let class = embeddings.get("class_embedding", &[width], start)?;
                (Some((class, norm)), Tensor::zeros(width, patch.dtype(), patch.device())?)
            }
            Family::Siglip => (None, place.get("bias", &[width], Init::Zero)?),
        };
        let layer = |i: usize| EncoderLayer::new(&scope.sub("encoder.layers").sub(i), shape.layer);
        let positions = embeddings.sub("position_embedding");
        Ok(Self {
            class,
            patch,
            patch_bias,
            positions: Embedding::new(&positions, shape.tokens(), width, start)?,
            layers: (0..depth).map(layer).collect::<Result<_>>()?,
            shape,
        })
    }

    /// What comes out of some layers, counted from 1; 0 is what goes into the first. With a recorder the layers are
    /// recomputed in the backward.
    ///
    /// # Shapes
    /// `pixels (B, 3, image_size, image_size)` → `(B, tokens, width)` each
    /// # Errors
    /// If the image has another size, or there is no such layer.
    pub(crate) fn states(
        &self,
        pixels: &Tensor,
        wanted: &[usize],
        recorder: Option<&Recorder>,
    ) -> Result<Vec<Tensor>> {
        let mut h = self.embed(pixels)?;
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
                what: "layer of an image encoder".to_owned(),
                expected: format!("0 to {}", self.layers.len()),
                found: index.to_string(),
            })
        };
        wanted.iter().map(state).collect()
    }

    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let (rows, side) = (pixels.dim(0)?, self.shape.image_size);
        if pixels.dims() != [rows, 3, side, side] {
            return Err(ModelError::Shape {
                what: "pixels of an image encoder".to_owned(),
                expected: format!("(B, 3, {side}, {side})"),
                found: format!("{:?}", pixels.dims()),
            });
        }
        let patches = conv2d(pixels, &self.patch, &self.patch_bias, self.shape.patch_size, 0)?;
        let patches = patches.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let Some((class, norm)) = &self.class else {
            return Ok(patches.broadcast_add(self.positions.weight())?);
        };
        let class = class.broadcast_as((rows, 1, self.shape.layer.width))?.contiguous()?;
        norm.forward(&Tensor::cat(&[&class, &patches], 1)?.broadcast_add(self.positions.weight())?)
    }
}
