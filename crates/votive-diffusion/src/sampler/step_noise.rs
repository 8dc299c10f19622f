//! The noise that stochastic samplers add, as a function of the image's seed and the step.

use candle_core::{Device, Tensor};
use votive_tensor::random::{Draws, Stream};

use crate::error::{DiffusionError, Result};

/// Where a sampler's noise comes from.
#[derive(Clone, Debug)]
pub enum StepNoise {
    /// One seed per image of the batch: an image is the same alone and in any batch.
    Seeded(Vec<u64>),
    /// One tensor `(B,C,H,W)` per step, for a comparison with another program.
    Given(Vec<Tensor>),
}

impl StepNoise {
    /// Standard normal noise for step `step_idx`, shaped like `latents`.
    pub(super) fn at_step(&self, step_idx: usize, latents: &Tensor) -> Result<Tensor> {
        match self {
            // Step 0 of the stream made the initial latents.
            Self::Seeded(seeds) => normal(seeds, step_idx as u64 + 1, latents.dims(), latents.device())?
                .to_dtype(latents.dtype())
                .map_err(Into::into),
            Self::Given(tensors) => super::at_step(tensors, step_idx).cloned(),
        }
    }
}

/// Starting noise of unit variance, one image per seed, before any scaling by a sampler.
///
/// # Shapes
/// `shape` is (C, H, W) → f32 `(B,C,H,W)` with B the number of seeds
/// # Errors
/// [`DiffusionError::Tensor`] if the device has no room.
pub fn initial_latents(seeds: &[u64], (c, h, w): (usize, usize, usize), device: &Device) -> Result<Tensor> {
    normal(seeds, 0, &[seeds.len(), c, h, w], device)
}

fn normal(seeds: &[u64], step: u64, dims: &[usize], device: &Device) -> Result<Tensor> {
    let images = dims.first().copied().unwrap_or(0);
    if images != seeds.len() {
        return Err(DiffusionError::shape("seeds, one per image", images, seeds.len()));
    }
    let per_image = dims.iter().skip(1).product();
    let values: Vec<f32> = seeds
        .iter()
        .flat_map(|seed| Draws::new(*seed, Stream::Sampling, step, 0).normals(per_image))
        .collect();
    Ok(Tensor::from_vec(values, dims, device)?)
}
