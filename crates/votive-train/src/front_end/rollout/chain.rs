//! Chains of denoising steps from noise to a picture, as the policy draws them, and what the reward says of them.

use super::RolloutFrontEnd;
use crate::error::{Result, TrainError};
use candle_core::Tensor;
use std::ops::Range;
use votive_diffusion::sampler::Ddim;
use votive_diffusion::{BoxError, Guidance, Sampler as _, initial_latents};

/// The time of a step of a sampler.
pub(super) fn time(sampler: &Ddim, step: usize) -> f64 {
    sampler.timesteps()[step]
}

/// Draws chains of the prompts of a batch.
pub(super) struct Chain<'a> {
    pub(super) front: &'a RolloutFrontEnd,
    pub(super) guidance: Guidance<'a>,
    pub(super) captions: &'a [String],
}

impl Chain<'_> {
    /// The noise that chains start from, a seed for each row.
    pub(super) fn first_latents(&self, seeds: &[u64]) -> Result<Tensor> {
        let folder = self.front.pipeline.folder();
        let side = self.front.settings.resolution as usize / folder.vae_config().downscale();
        let shape = (folder.unet_config().in_channels, side, side);
        Ok(initial_latents(seeds, shape, &self.front.device)?)
    }

    /// Latents of a chain from one step to another, without a gradient.
    pub(super) fn walk(&self, mut latents: Tensor, seeds: &[u64], steps: Range<usize>) -> Result<Tensor> {
        let sampler = &self.front.sampler;
        for step in steps {
            let prediction = self.guidance.predict(&latents, time(sampler, step))?;
            let drawn = sampler.distribution(&prediction, step, &latents)?.draw(seeds, 1)?;
            latents = drawn.into_iter().next().unwrap_or(latents);
        }
        Ok(latents)
    }

    /// The clean latents that the network predicts from those before a step, with a gradient by them and by the network;
    /// what a whole chain leads to are clean latents.
    pub(super) fn clean(&self, latents: &Tensor, step: usize) -> Result<Tensor> {
        let sampler = &self.front.sampler;
        if step >= self.front.settings.steps {
            return Ok(latents.clone());
        }
        let prediction = self.guidance.predict_tracked(latents, time(sampler, step))?;
        Ok(sampler.distribution(&prediction, step, latents)?.clean)
    }

    /// Pictures of clean latents, `(B, 3, H, W)` from 0 to 1, with a gradient by them.
    fn pictures(&self, clean: &Tensor) -> Result<Tensor> {
        let vae = &self.front.vae;
        let images = vae.decode(&(clean / vae.config().scaling_factor)?)?;
        Ok(((images / 2.0)? + 0.5)?.clamp(0.0, 1.0)?)
    }

    /// Scores of clean latents.
    pub(super) fn scores(&self, clean: &Tensor) -> Result<Vec<f64>> {
        let scores = self.front.reward.score(self.captions, &self.pictures(&clean.detach())?);
        scores.map_err(|error| unscored(&error))
    }

    /// The same with a gradient by the latents, `(B,)`.
    pub(super) fn tracked_scores(&self, clean: &Tensor) -> Result<Tensor> {
        let scores = self.front.reward.tracked(self.captions, &self.pictures(clean)?);
        let none = || TrainError::Plan("the reward has no gradient by a picture's pixels".to_owned());
        scores.map_err(|error| unscored(&error))?.ok_or_else(none)
    }
}

fn unscored(error: &BoxError) -> TrainError {
    TrainError::Plan(format!("the reward cannot score a picture: {error}"))
}
