//! The image autoencoder of Stable Diffusion, `AutoencoderKL` in diffusers.
//!
//! Source: Rombach et al., "High-resolution image synthesis with latent diffusion models", arXiv:2112.10752, Sec. 3.1;
//! Kingma & Welling, "Auto-encoding variational Bayes", arXiv:1312.6114.

use super::vae_blocks::{Decoder, Encoder};
use super::vae_config::VaeConfig;
use crate::error::{ModelError, Result};
use crate::nn::Conv2d;
use crate::params::Scope;
use candle_core::Tensor;

/// Encodes images into latents and decodes them.
#[derive(Clone, Debug)]
pub struct AutoencoderKl {
    config: VaeConfig,
    encoder: Encoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
}

impl AutoencoderKl {
    /// The network on the parameters of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub fn new(scope: &Scope, config: &VaeConfig) -> Result<Self> {
        let pointwise = |name: &str, channels| Conv2d::new(&scope.sub(name), channels, channels, 1, (1, 0));
        let quant_conv = || pointwise("quant_conv", 2 * config.latent_channels);
        let post_quant_conv = || pointwise("post_quant_conv", config.latent_channels);
        Ok(Self {
            encoder: Encoder::new(&scope.sub("encoder"), config)?,
            quant_conv: config.use_quant_conv.then(quant_conv).transpose()?,
            post_quant_conv: config.use_post_quant_conv.then(post_quant_conv).transpose()?,
            decoder: Decoder::new(&scope.sub("decoder"), config)?,
            config: config.clone(),
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The distribution of latents of each image, in the VAE's own scale.
    ///
    /// The U-Net sees `scaling_factor` times a sample (or the mean) of it.
    ///
    /// # Shapes
    /// `images (B, in_channels, H, W)` in [−1, 1] → mean and log-variance `(B, latent_channels, H/f, W/f)` with f of
    /// [`VaeConfig::downscale`].
    /// # Errors
    /// If the number of channels differs.
    pub fn encode(&self, images: &Tensor) -> Result<Posterior> {
        check_channels("images", images, self.config.in_channels)?;
        let mut moments = self.encoder.forward(images)?;
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments)?;
        }
        let channels = self.config.latent_channels;
        let mean = moments.narrow(1, 0, channels)?.contiguous()?;
        let log_variance = moments.narrow(1, channels, channels)?.contiguous()?.clamp(-30.0, 20.0)?;
        Ok(Posterior { mean, log_variance })
    }

    /// Images of latents in the VAE's own scale, that is after division by `scaling_factor`.
    ///
    /// # Shapes
    /// `latents (B, latent_channels, h, w)` → `(B, out_channels, f·h, f·w)`, nominally in [−1, 1], not clamped.
    /// # Errors
    /// If the number of channels differs.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        check_channels("latents", latents, self.config.latent_channels)?;
        match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(latents)?),
            None => self.decoder.forward(latents),
        }
    }
}

/// A diagonal Gaussian for each latent.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// The mean, which is also the mode.
    pub mean: Tensor,
    /// The logarithm of the variance, between −30 and 20.
    pub log_variance: Tensor,
}

impl Posterior {
    /// `mean + σ·noise` for standard normal noise of the shape of the mean.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        Ok((&self.mean + (&self.log_variance * 0.5)?.exp()?.mul(noise)?)?)
    }

    /// Kullback-Leibler divergence from the standard normal distribution.
    ///
    /// # Shapes
    /// `(B,)`.
    /// # Units
    /// Nats, summed over a latent.
    /// # Errors
    /// Those of candle.
    pub fn divergence(&self) -> Result<Tensor> {
        let terms = ((self.mean.sqr()? + self.log_variance.exp()?)? - (&self.log_variance + 1.0)?)?;
        Ok((terms.flatten_from(1)?.sum(1)? * 0.5)?)
    }
}

pub(super) fn check_channels(what: &str, x: &Tensor, channels: usize) -> Result<()> {
    match x.dims() {
        [_, found, _, _] if *found == channels => Ok(()),
        found => Err(ModelError::Shape {
            what: what.to_owned(),
            expected: format!("(B, {channels}, H, W)"),
            found: format!("{found:?}"),
        }),
    }
}
