//! Configuration of [`super::ClipVisionModel`]: the fields of transformers' `CLIPVisionConfig`.

use super::layer::activation;
use crate::config::ConfigFile;
use crate::error::Result;
use serde_json::json;
use votive_tensor::Activation;

/// Channels of an image: red, green and blue.
const CHANNELS: usize = 3;

/// Shape of an image encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipVisionConfig {
    /// Width of the tower.
    pub hidden_size: usize,
    /// Width inside the feed-forward nets.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Pixels along a side of the image.
    pub image_size: usize,
    /// Pixels along a side of a patch.
    pub patch_size: usize,
    /// Activation of the feed-forward nets.
    pub hidden_act: Activation,
    /// ε of the layer normalisations.
    pub layer_norm_eps: f64,
}

impl ClipVisionConfig {
    /// Reads the vision tower's part of a `config.json`. Absent fields have transformers' defaults. Dropout and the fields of
    /// the initialisation change nothing here.
    ///
    /// # Errors
    /// If a field has the wrong type, or a value that is not supported.
    pub fn from_file(file: &ConfigFile) -> Result<Self> {
        file.only("model_type", &[json!("clip_vision_model")])?;
        file.only("num_channels", &[json!(CHANNELS)])?;
        let or = |field: &str, default: usize| -> Result<usize> {
            Ok(file.maybe_usize(field)?.unwrap_or(default))
        };
        let config = Self {
            hidden_size: or("hidden_size", 768)?,
            intermediate_size: or("intermediate_size", 3072)?,
            num_hidden_layers: or("num_hidden_layers", 12)?,
            num_attention_heads: or("num_attention_heads", 12)?,
            image_size: or("image_size", 224)?,
            patch_size: or("patch_size", 32)?,
            hidden_act: activation(file, "hidden_act", "quick_gelu")?,
            layer_norm_eps: file.maybe_f64("layer_norm_eps")?.unwrap_or(1e-5),
        };
        if config.hidden_size == 0 || !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            return Err(file.unsupported("num_attention_heads", "a divisor of hidden_size"));
        }
        if config.patch_size == 0 || config.patch_size > config.image_size {
            return Err(file.unsupported("patch_size", "from 1 to image_size"));
        }
        Ok(config)
    }

    /// Patches of an image; what is left at its right and at its bottom belongs to none.
    #[must_use]
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }
}
