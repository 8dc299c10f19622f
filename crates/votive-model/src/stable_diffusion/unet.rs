//! The denoiser of Stable Diffusion 1, 2 and XL, `UNet2DConditionModel` in diffusers, with one timestep per sample.
//!
//! Source: Rombach et al., "High-resolution image synthesis with latent diffusion models", arXiv:2112.10752; Podell et
//! al., "SDXL: improving latent diffusion models for high-resolution image synthesis", arXiv:2307.01952.

use super::timestep::{AddedEmbedding, TimestepEmbedding};
use super::unet_blocks::{Condition, DownBlock, MidBlock, UpBlock};
use super::unet_config::UNetConfig;
use super::vae::check_channels;
use crate::denoiser::Denoiser;
use crate::error::{ModelError, Result};
use crate::nn::{Conv2d, GroupNorm};
use crate::params::Scope;
use candle_core::Tensor;
use votive_diffusion::Conditioning;
use votive_tensor::{Activation, activate};

/// Predicts the noise (or velocity) in latents, given the time and the prompt.
#[derive(Clone, Debug)]
pub struct UNet2DConditionModel {
    config: UNetConfig,
    conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    add_embedding: Option<AddedEmbedding>,
    down: Vec<DownBlock>,
    mid: MidBlock,
    up: Vec<UpBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet2DConditionModel {
    /// The network on the parameters of this place.
    ///
    /// # Errors
    /// If there are no levels; those of [`Scope::get`].
    pub fn new(scope: &Scope, config: &UNetConfig) -> Result<Self> {
        let (Some(first), Some(last)) = (config.levels.first(), config.levels.last()) else {
            return Err(ModelError::Shape {
                what: "levels of the U-Net".to_owned(),
                expected: "at least one".to_owned(),
                found: "none".to_owned(),
            });
        };
        let time_width = config.time_embedding_dim.unwrap_or(4 * first.channels);
        let added = |addition| AddedEmbedding::new(&scope.sub("add_embedding"), addition, time_width, config);
        let (groups, n) = (config.norm_num_groups, config.levels.len());
        let down = |i: usize| DownBlock::new(&scope.sub("down_blocks").sub(i), i, config, time_width);
        let up = |i: usize| UpBlock::new(&scope.sub("up_blocks").sub(i), n - 1 - i, config, time_width);
        Ok(Self {
            conv_in: Conv2d::new(&scope.sub("conv_in"), config.in_channels, first.channels, 3, (1, 1))?,
            time_embedding: TimestepEmbedding::new(
                &scope.sub("time_embedding"),
                first.channels,
                time_width,
                config,
            )?,
            add_embedding: config.addition.map(added).transpose()?,
            down: (0..n).map(down).collect::<Result<_>>()?,
            mid: MidBlock::new(&scope.sub("mid_block"), config, last, time_width)?,
            up: (0..n).map(up).collect::<Result<_>>()?,
            norm_out: GroupNorm::new(&scope.sub("conv_norm_out"), first.channels, groups, config.norm_eps)?,
            conv_out: Conv2d::new(&scope.sub("conv_out"), first.channels, config.out_channels, 3, (1, 1))?,
            config: config.clone(),
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    fn check(&self, latents: &Tensor, timesteps: &[f64], prompt: &Tensor) -> Result<()> {
        check_channels("noisy latents", latents, self.config.in_channels)?;
        let wrong = |what: &str, expected: String, found: String| {
            Err(ModelError::Shape { what: what.to_owned(), expected, found })
        };
        let (batch, context) = (latents.dim(0)?, self.config.cross_attention_dim);
        if timesteps.len() != batch {
            return wrong("timesteps", format!("{batch}, one per sample"), timesteps.len().to_string());
        }
        match prompt.dims() {
            [rows, tokens, width] if *rows == batch && *tokens > 0 && *width == context => Ok(()),
            found => wrong("prompt embeddings", format!("({batch}, S, {context})"), format!("{found:?}")),
        }
    }
}

impl UNet2DConditionModel {
    /// What is added to the embedded time, `(B, width)`, if the network takes something.
    fn added(&self, conditioning: &Conditioning) -> Result<Option<Tensor>> {
        let wrong = |expected: &str| ModelError::Shape {
            what: "what the U-Net is told beside the prompt".to_owned(),
            expected: expected.to_owned(),
            found: match (conditioning.pooled(), conditioning.time_ids()) {
                (None, None) => "nothing",
                (Some(_), None) => "a pooled prompt alone",
                (None, Some(_)) => "sizes alone",
                (Some(_), Some(_)) => "a pooled prompt and sizes",
            }
            .to_owned(),
        };
        match (&self.add_embedding, conditioning.pooled(), conditioning.time_ids()) {
            (None, None, None) => Ok(None),
            (None, ..) => Err(wrong("nothing")),
            (Some(embedding), Some(pooled), Some(sizes)) => embedding.forward(pooled, sizes).map(Some),
            (Some(_), ..) => Err(wrong("a pooled prompt and sizes")),
        }
    }
}

impl Denoiser for UNet2DConditionModel {
    fn predict(
        &self,
        noisy_latents: &Tensor,
        timesteps: &[f64],
        conditioning: &Conditioning,
    ) -> Result<Tensor> {
        let prompt_embeds = conditioning.prompt_embeds();
        self.check(noisy_latents, timesteps, prompt_embeds)?;
        let (dtype, device) = (noisy_latents.dtype(), noisy_latents.device());
        let mut time = self.time_embedding.forward(timesteps, dtype, device)?;
        if let Some(added) = self.added(conditioning)? {
            time = (time + added)?;
        }
        // The activation that every residual block applies first.
        let time = activate(&time, Activation::Silu)?;
        let condition = Condition { time: &time, prompt: prompt_embeds };
        let mut h = if self.config.center_input_sample {
            self.conv_in.forward(&noisy_latents.affine(2.0, -1.0)?)?
        } else {
            self.conv_in.forward(noisy_latents)?
        };
        let mut skips = vec![h.clone()];
        for block in &self.down {
            h = block.forward(&h, condition, &mut skips)?;
        }
        h = self.mid.forward(&h, condition)?;
        for block in &self.up {
            h = block.forward(&h, condition, &mut skips)?;
        }
        self.conv_out.forward(&self.norm_out.activated(&h, Activation::Silu)?)
    }
}
