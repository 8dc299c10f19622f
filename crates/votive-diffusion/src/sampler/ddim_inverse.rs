//! DDIM run backwards on the grid of a whole sampling run: from latents to the noise that they come from.
//!
//! Source: Song et al. 2021, arXiv:2010.02502, section 4.3. A step reads the prediction at the level s of the latents and
//! takes them to the noisier t, though the network was asked at t: `z_t = √ᾱ_t ẑ₀ + √(1−ᾱ_t) ε̂`.
//! Checked against: diffusers 0.42.1, `DDIMInverseScheduler`. To a timestep of one's own choice for each row:
//! [`InversionPlan::invert`](crate::InversionPlan::invert).

use candle_core::Tensor;

use super::{SamplerKind, at_step, check_prediction, checked_timesteps, clip_range, clipped};
use crate::config::SchedulerConfig;
use crate::error::Result;
use crate::linear::weighted_sum;
use crate::prediction::PredictionType;
use crate::spacing::TimestepSpacing;

/// DDIM backwards.
#[derive(Clone, Debug)]
pub struct DdimInverse {
    timesteps: Vec<f64>,
    /// (ᾱ_s, ᾱ_t) of each step.
    alpha_bars: Vec<(f64, f64)>,
    prediction_type: PredictionType,
    clip: Option<f64>,
}

impl DdimInverse {
    /// DDIM backwards with `steps` network calls.
    ///
    /// # Errors
    /// As [`SamplerKind::build`]; diffusers has no inversion on `linspace`, so neither is there one here.
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let schedule = super::schedule_to_sample(SamplerKind::Ddim, config, steps)?;
        let count = schedule.num_train_timesteps();
        let spacings = [("leading", TimestepSpacing::Leading), ("trailing", TimestepSpacing::Trailing)];
        let spacing = config.choice("timestep_spacing", &spacings, TimestepSpacing::Leading)?;
        let falling = spacing.timesteps(count, steps, config.count("steps_offset", 0)?);
        let falling = checked_timesteps(SamplerKind::Ddim, falling, count, steps)?;
        let first = if config.flag("set_alpha_to_one", true)? { 1.0 } else { schedule.alpha_bar(0)? };
        let levels = |timestep: &f64| {
            let t = *timestep as usize;
            let from = t.checked_sub(count / steps).map_or(Ok(first), |s| schedule.alpha_bar(s))?;
            Ok((from, schedule.alpha_bar(t)?))
        };
        let timesteps: Vec<f64> = falling.into_iter().rev().collect();
        let alpha_bars = timesteps.iter().map(levels).collect::<Result<_>>()?;
        let prediction_type = schedule.prediction_type();
        Ok(Self { timesteps, alpha_bars, prediction_type, clip: clip_range(config)? })
    }

    /// The timestep of each network call, rising.
    #[must_use]
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// The latents after step `step_idx`.
    ///
    /// # Shapes
    /// `model_pred`, `latents` `(B,C,H,W)` → `(B,C,H,W)`
    /// # Errors
    /// [`DiffusionError::Shape`](crate::DiffusionError::Shape);
    /// [`DiffusionError::Setting`](crate::DiffusionError::Setting) if there is no such step.
    pub fn step(&self, model_pred: &Tensor, step_idx: usize, latents: &Tensor) -> Result<Tensor> {
        check_prediction(model_pred, latents)?;
        let &(from, to) = at_step(&self.alpha_bars, step_idx)?;
        let (alpha, sigma) = (from.sqrt(), (1.0 - from).sqrt());
        let (of_latents, of_pred) = self.prediction_type.clean_weights(alpha, sigma);
        let clean = clipped(weighted_sum(&[(of_latents, latents), (of_pred, model_pred)])?, self.clip)?;
        let (of_latents, of_pred) = self.prediction_type.noise_weights(alpha, sigma);
        let noise = weighted_sum(&[(of_latents, latents), (of_pred, model_pred)])?;
        weighted_sum(&[(to.sqrt(), &clean), ((1.0 - to).sqrt(), &noise)])
    }
}
