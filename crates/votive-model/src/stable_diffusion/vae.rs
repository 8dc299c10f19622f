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
    slice: usize,
}

/// Pixels of images that go through at a time: one image of 512×512, the memory of which nothing can save.
const SLICE: usize = 512 * 512;

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
            slice: SLICE,
        })
    }

    /// The same with another number of pixels that go through at a time; an image always goes through as a whole.
    #[must_use]
    pub fn with_slice(self, pixels: usize) -> Self {
        Self { slice: pixels, ..self }
    }

    /// Pixels of images that go through at a time, if all have `pixels` and there is no graph of gradients to keep.
    #[must_use]
    pub fn pixels_at_once(pixels: usize) -> usize {
        SLICE.max(pixels)
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
        let (_, _, height, width) = images.dims4()?;
        let moments = self.in_slices(images, height * width, |images| {
            let moments = self.encoder.forward(images)?;
            self.quant_conv.as_ref().map_or(Ok(moments.clone()), |conv| conv.forward(&moments))
        })?;
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
        let (_, _, height, width) = latents.dims4()?;
        let pixels = height * width * self.config.downscale().pow(2);
        self.in_slices(latents, pixels, |latents| match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(latents)?),
            None => self.decoder.forward(latents),
        })
    }

    /// Puts rows through a network, as many at a time as the slice holds, so that the memory of a batch is that of a
    /// slice. (In training every activation is kept for the backward, whatever the slices.)
    fn in_slices(
        &self,
        rows: &Tensor,
        pixels: usize,
        network: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (all, at_once) = (rows.dim(0)?, (self.slice / pixels.max(1)).max(1));
        if all <= at_once {
            return network(rows);
        }
        let slice = |start| network(&rows.narrow(0, start, at_once.min(all - start))?.contiguous()?);
        Ok(Tensor::cat(&(0..all).step_by(at_once).map(slice).collect::<Result<Vec<_>>>()?, 0)?)
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
