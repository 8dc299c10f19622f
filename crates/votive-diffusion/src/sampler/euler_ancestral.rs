//! Euler's method with noise: a step goes further down than it should and is noised up again.
//!
//! Source: Katherine Crowson's k-diffusion, `sample_euler_ancestral`. With σ' the next level, the noise that comes back
//! is `σ_up = σ' √(σ² − σ'²)/σ`, and the step of `euler.rs` goes to `σ_down = √(σ'² − σ_up²) = σ'²/σ`.
//! Checked against: diffusers 0.42.1, `EulerAncestralDiscreteScheduler`.

use candle_core::Tensor;

use super::euler::{Levels, stepped};
use super::{Sampler, SamplerKind, StepNoise, at_step, check_prediction};
use crate::config::SchedulerConfig;
use crate::error::Result;
use crate::linear::weighted_sum;

/// Euler's method with ancestral noise.
#[derive(Clone, Debug)]
pub struct EulerAncestral {
    levels: Levels,
}

impl EulerAncestral {
    /// Ancestral Euler with `steps` network calls. The last step ends without noise.
    ///
    /// # Errors
    /// As [`SamplerKind::build`].
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        Ok(Self { levels: Levels::new(SamplerKind::EulerA, config, steps, |_| Ok(0.0))? })
    }
}

impl Sampler for EulerAncestral {
    fn timesteps(&self) -> &[f64] {
        &self.levels.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.levels.init_noise_sigma
    }

    fn scale_input(&self, latents: &Tensor, step_idx: usize) -> Result<Tensor> {
        self.levels.scale_input(latents, step_idx)
    }

    fn skip(&mut self, steps: usize) {
        self.levels.skip(steps);
    }

    fn noised(&self, latents: &Tensor, noise: &Tensor) -> Result<Tensor> {
        self.levels.noised(latents, noise)
    }

    fn step(
        &mut self,
        model_pred: &Tensor,
        step_idx: usize,
        latents: &Tensor,
        noise: &StepNoise,
    ) -> Result<Tensor> {
        check_prediction(model_pred, latents)?;
        let &(sigma, next) = at_step(&self.levels.sigmas, step_idx)?;
        let mean = stepped(self.levels.prediction_type, (sigma, next * next / sigma), latents, model_pred)?;
        if next == 0.0 {
            return Ok(mean);
        }
        let noise = noise.at_step(step_idx, latents)?;
        super::same_dims("the given noise, shaped like the latents", latents, &noise)?;
        weighted_sum(&[(1.0, &mean), (next * (sigma * sigma - next * next).max(0.0).sqrt() / sigma, &noise)])
    }
}
