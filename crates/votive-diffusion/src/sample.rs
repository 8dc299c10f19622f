//! The loop from noise to latents.

use candle_core::Tensor;

use crate::error::{DiffusionError, Result};
use crate::guidance::Guidance;
use crate::linear::weighted_sum;
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
    mut progress: impl FnMut(usize, usize),
) -> Result<Tensor> {
    latents.dims4().map_err(|_| DiffusionError::shape("initial latents", "(B,C,H,W)", latents.dims()))?;
    let timesteps = sampler.timesteps().to_vec();
    let mut latents = weighted_sum(&[(sampler.init_noise_sigma(), latents)])?;
    for (step_idx, timestep) in timesteps.iter().enumerate() {
        let model_pred = guidance.predict(&sampler.scale_input(&latents, step_idx)?, *timestep)?;
        latents = sampler.step(&model_pred, step_idx, &latents, noise)?;
        progress(step_idx + 1, timesteps.len());
    }
    Ok(latents)
}
