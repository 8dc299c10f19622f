//! An image autoencoder from nothing: weighted L1 and squared error and a little divergence, then whitened latents.

use super::Examples;
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;
use votive_model::stable_diffusion::AutoencoderKl;
use votive_tensor::random::{Draws, Stream};

/// The loss of an autoencoder on images `(3, side, side)`.
pub struct VaePretraining<'a> {
    /// The model that is trained.
    pub vae: &'a AutoencoderKl,
    /// The images by index.
    pub examples: &'a Examples<Vec<f32>>,
    /// Pixels along a side.
    pub side: usize,
    /// Seed of the posterior's draws.
    pub seed: u64,
    /// Weight of pixels that differ from the image's corner; the rest has weight 1.
    pub object_weight: f32,
    /// Weight of the divergence from a standard normal, per latent number.
    pub divergence_weight: f64,
}

impl VaePretraining<'_> {
    /// The loss on some of the images.
    ///
    /// # Errors
    /// Those of the network.
    pub fn loss(&self, examples: Range<u64>) -> Result<Tensor> {
        let first = examples.start;
        let (images, weights) = self.batch(examples)?;
        let posterior = self.vae.encode(&images)?;
        let shape = posterior.mean.dims().to_vec();
        let noise = Draws::new(self.seed, Stream::Posterior, first, 0).normals(posterior.mean.elem_count());
        let noise = Tensor::from_vec(noise, shape, &Device::Cpu)?;
        let difference = (self.vae.decode(&posterior.sample(&noise)?)? - &images)?;
        // L1 as √(d² + ε): candle's `abs` has slope 1 at 0.
        let l1 = (difference.sqr()? + 1e-6)?.sqrt()?;
        let pixels = (l1 + (difference.sqr()? * 2.0)?)?.mul(&weights)?.mean_all()?;
        let latents = posterior.mean.elem_count() as f64;
        Ok((pixels + (posterior.divergence()?.sum_all()? * (self.divergence_weight / latents))?)?)
    }

    fn batch(&self, examples: Range<u64>) -> Result<(Tensor, Tensor)> {
        let (mut images, mut weights) = (Vec::new(), Vec::new());
        let plane = self.side * self.side;
        let n = (examples.end - examples.start) as usize;
        for index in examples {
            let (_, pixels) = (self.examples)(index);
            let is_object =
                |at: usize| (0..3).any(|c| (pixels[c * plane + at] - pixels[c * plane]).abs() > 0.1);
            let weight: Vec<f32> =
                (0..plane).map(|at| if is_object(at) { self.object_weight } else { 1.0 }).collect();
            (0..3).for_each(|_| weights.extend_from_slice(&weight));
            images.extend(pixels);
        }
        let shape = (n, 3, self.side, self.side);
        Ok((Tensor::from_vec(images, shape, &Device::Cpu)?, Tensor::from_vec(weights, shape, &Device::Cpu)?))
    }
}

/// Centres and scales every latent channel to mean 0 and deviation 1, by changing the two 1×1 convolutions around
/// the latents. Decoded images stay what they were; no format changes.
///
/// `latents (N, C, h, w)` are means that the autoencoder gave before.
///
/// # Errors
/// If the tensors don't have the convolutions' names and shapes.
pub fn whiten(tensors: &mut BTreeMap<String, Tensor>, latents: &Tensor) -> Result<()> {
    let channels = latents.dim(1)?;
    let flat = latents.transpose(0, 1)?.contiguous()?.flatten_from(1)?;
    let mean = flat.mean(1)?;
    let deviation = flat.broadcast_sub(&mean.unsqueeze(1)?)?.sqr()?.mean(1)?.sqrt()?;
    let get = |name: &str| {
        let found = tensors.get(name).cloned();
        found.ok_or_else(|| {
            crate::TrainError::Plan(format!("the autoencoder has no {name} to whiten its latents with"))
        })
    };
    let column = |x: &Tensor| x.reshape((channels, 1, 1, 1));
    let (weight, bias) = (get("quant_conv.weight")?, get("quant_conv.bias")?);
    let halves = |x: &Tensor| -> Result<(Tensor, Tensor)> {
        Ok((x.narrow(0, 0, channels)?, x.narrow(0, channels, channels)?))
    };
    let ((mean_weight, spread_weight), (mean_bias, spread_bias)) = (halves(&weight)?, halves(&bias)?);
    let weight = Tensor::cat(&[mean_weight.broadcast_div(&column(&deviation)?)?, spread_weight], 0)?;
    // The log-variance shrinks with the scale: log(σ²/d²) = log σ² − 2 log d.
    let spread_bias = (spread_bias - (deviation.log()? * 2.0)?)?;
    let bias = Tensor::cat(&[((mean_bias - &mean)? / &deviation)?, spread_bias], 0)?;
    let (post_weight, post_bias) = (get("post_quant_conv.weight")?, get("post_quant_conv.bias")?);
    let moved = post_weight.flatten_from(1)?.matmul(&mean.unsqueeze(1)?)?.squeeze(1)?;
    let scaled = post_weight.broadcast_mul(&deviation.reshape((1, channels, 1, 1))?)?;
    tensors.insert("quant_conv.weight".to_owned(), weight);
    tensors.insert("quant_conv.bias".to_owned(), bias);
    tensors.insert("post_quant_conv.weight".to_owned(), scaled);
    tensors.insert("post_quant_conv.bias".to_owned(), (post_bias + moved)?);
    Ok(())
}
