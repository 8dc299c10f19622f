//! The loop from noise to latents.

use candle_core::Tensor;
use votive_tensor::keeping_weights;

use crate::error::{DiffusionError, Result};
use crate::guidance::Guidance;
use crate::linear::{same_dims, weighted_sum};
use crate::sampler::{Sampler, StepNoise};

/// Samples latents; decoding them is the VAE's work.
///
/// `progress` is called after each network call with the calls made and their total.
///
/// # Shapes
/// `latents (B,C,H,W)`: noise of unit variance, which the sampler scales → `(B,C,H,W)`
/// # Errors
/// [`DiffusionError::Network`] if the network fails; [`DiffusionError::Shape`] if latents, prompts and predictions do
/// not fit together.
pub fn sample(
    sampler: &mut dyn Sampler,
    guidance: &Guidance,
    latents: &Tensor,
    noise: &StepNoise,
    progress: impl FnMut(usize, usize),
) -> Result<Tensor> {
    latents.dims4().map_err(|_| DiffusionError::shape("initial latents", "(B,C,H,W)", latents.dims()))?;
    let latents = weighted_sum(&[(sampler.init_noise_sigma(), latents)])?;
    run(sampler, guidance, latents, noise, progress)
}

/// Samples latents from those of an image (SDEdit): noise goes on the image for the sampler's first step, of which
/// [`SamplerOptions::strength`](crate::SamplerOptions) says which it is.
///
/// # Shapes
/// `image`, clean latents, and `start`, noise of unit variance, `(B,C,H,W)` → `(B,C,H,W)`
/// # Errors
/// As [`sample`].
pub fn sample_from_image(
    sampler: &mut dyn Sampler,
    guidance: &Guidance,
    (image, start): (&Tensor, &Tensor),
    noise: &StepNoise,
    progress: impl FnMut(usize, usize),
) -> Result<Tensor> {
    image.dims4().map_err(|_| DiffusionError::shape("the image's latents", "(B,C,H,W)", image.dims()))?;
    same_dims("noise on the image's latents", image, start)?;
    let latents = sampler.noised(image, start)?;
    run(sampler, guidance, latents, noise, progress)
}

fn run(
    sampler: &mut dyn Sampler,
    guidance: &Guidance,
    mut latents: Tensor,
    noise: &StepNoise,
    mut progress: impl FnMut(usize, usize),
) -> Result<Tensor> {
    let timesteps = sampler.timesteps().to_vec();
    keeping_weights(|| {
        for (step_idx, timestep) in timesteps.iter().enumerate() {
            let model_pred = guidance.predict(&sampler.scale_input(&latents, step_idx)?, *timestep)?;
            latents = sampler.step(&model_pred, step_idx, &latents, noise)?;
            progress(step_idx + 1, timesteps.len());
        }
        Ok(latents)
    })
}
