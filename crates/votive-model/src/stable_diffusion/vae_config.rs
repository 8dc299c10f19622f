//! Configuration of [`super::AutoencoderKl`]: the fields of diffusers' `AutoencoderKL`.

use crate::config::ConfigFile;
use crate::error::Result;
use serde_json::{Value, json};

/// Shape of an image autoencoder.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of the image that is encoded.
    pub in_channels: usize,
    /// Channels of the image that is decoded.
    pub out_channels: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of each level, from full resolution down; each level after the first has half the size.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Groups of every group normalisation.
    pub norm_num_groups: usize,
    /// What a latent is multiplied by before the U-Net sees it.
    pub scaling_factor: f64,
    /// A 1×1 convolution after the encoder.
    pub use_quant_conv: bool,
    /// A 1×1 convolution before the decoder.
    pub use_post_quant_conv: bool,
    /// Attention at the lowest resolution.
    pub mid_block_add_attention: bool,
    /// Side of the training images, in pixels; says nothing about the sizes that are accepted.
    pub sample_size: usize,
}

impl Default for VaeConfig {
    /// The autoencoder of Stable Diffusion 1 and 2.
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            sample_size: 512,
        }
    }
}

impl VaeConfig {
    /// Reads a `config.json`. Absent fields have diffusers' defaults. `force_upcast` changes nothing here, because
    /// everything is computed in f32.
    ///
    /// # Errors
    /// If a field has the wrong type, or a value that is not supported.
    pub fn from_file(file: &ConfigFile) -> Result<Self> {
        file.only("_class_name", &[json!("AutoencoderKL")])?;
        file.only("act_fn", &[json!("silu"), json!("swish")])?;
        for field in ["shift_factor", "latents_mean", "latents_std"] {
            file.only(field, &[])?;
        }
        let levels = |field: &str, only: &str| -> Result<usize> {
            let types = if file.get(field).is_some() { file.strings(field)? } else { vec![only.to_owned()] };
            if types.iter().any(|name| name != only) {
                return Err(file.unsupported(field, &format!("supported: {only} at every level")));
            }
            Ok(types.len())
        };
        let n = levels("down_block_types", "DownEncoderBlock2D")?;
        if levels("up_block_types", "UpDecoderBlock2D")? != n {
            return Err(file.unsupported("up_block_types", &format!("as many as down_block_types, {n}")));
        }
        let or = |field: &str, default: usize| -> Result<usize> {
            Ok(file.maybe_usize(field)?.unwrap_or(default))
        };
        let config = Self {
            in_channels: or("in_channels", 3)?,
            out_channels: or("out_channels", 3)?,
            latent_channels: or("latent_channels", 4)?,
            block_out_channels: file.per_level("block_out_channels", n)?.unwrap_or_else(|| vec![64; n]),
            layers_per_block: or("layers_per_block", 1)?,
            norm_num_groups: or("norm_num_groups", 32)?,
            scaling_factor: file.maybe_f64("scaling_factor")?.unwrap_or(0.18215),
            use_quant_conv: file.bool_or("use_quant_conv", true)?,
            use_post_quant_conv: file.bool_or("use_post_quant_conv", true)?,
            mid_block_add_attention: file.bool_or("mid_block_add_attention", true)?,
            sample_size: or("sample_size", 32)?,
        };
        let groups = config.norm_num_groups;
        if config.block_out_channels.iter().any(|c| *c == 0 || !c.is_multiple_of(groups)) {
            return Err(
                file.unsupported("block_out_channels", &format!("multiples of norm_num_groups, {groups}"))
            );
        }
        if config.scaling_factor <= 0.0 {
            return Err(file.unsupported("scaling_factor", "a number above 0"));
        }
        Ok(config)
    }

    /// The `config.json` of this configuration.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let levels = self.block_out_channels.len();
        json!({
            "_class_name": "AutoencoderKL",
            "_diffusers_version": super::DIFFUSERS_VERSION,
            "act_fn": "silu",
            "block_out_channels": self.block_out_channels,
            "down_block_types": vec!["DownEncoderBlock2D"; levels],
            "in_channels": self.in_channels,
            "latent_channels": self.latent_channels,
            "layers_per_block": self.layers_per_block,
            "mid_block_add_attention": self.mid_block_add_attention,
            "norm_num_groups": self.norm_num_groups,
            "out_channels": self.out_channels,
            "sample_size": self.sample_size,
            "scaling_factor": self.scaling_factor,
            "up_block_types": vec!["UpDecoderBlock2D"; levels],
            "use_post_quant_conv": self.use_post_quant_conv,
            "use_quant_conv": self.use_quant_conv,
        })
    }

    /// Pixels per latent along a side.
    #[must_use]
    pub fn downscale(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }
}
