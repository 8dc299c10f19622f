//! Denoising diffusion implicit models (DDIM).
//!
//! Source: Song et al. 2021, arXiv:2010.02502, Eq. 12 and 16:
//! `z_p = √ᾱ_p ẑ₀ + √(1−ᾱ_p−s²) ε̂ + s·noise` with `s = η √((1−ᾱ_p)/(1−ᾱ_t)) √(1−ᾱ_t/ᾱ_p)`.
//! Checked against: diffusers 0.42.1, `DDIMScheduler`.

use candle_core::Tensor;

use super::{
    Sampler, SamplerKind, StepNoise, at_step, check_prediction, checked_timesteps, clip_range, clipped,
    drop_first,
};
use crate::config::SchedulerConfig;
use crate::error::{DiffusionError, Result};
use crate::linear::weighted_sum;
use crate::prediction::PredictionType;
use crate::spacing::TimestepSpacing;
use crate::trajectory::StepDistribution;

/// DDIM: deterministic for η = 0, as noisy as DDPM for η = 1.
#[derive(Clone, Debug)]
pub struct Ddim {
    timesteps: Vec<f64>,
    /// (ᾱ_t, ᾱ_p) of each step, p being the timestep after it.
    alpha_bars: Vec<(f64, f64)>,
    prediction_type: PredictionType,
    clip: Option<f64>,
    eta: f64,
}

impl Ddim {
    /// DDIM with `steps` network calls and noise of strength `eta`, 0 to 1.
    ///
    /// # Errors
    /// As [`SamplerKind::build`]; [`DiffusionError::Setting`] for an `eta` outside 0 to 1.
    pub fn new(config: &SchedulerConfig, steps: usize, eta: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&eta) {
            return Err(DiffusionError::Setting {
                setting: "eta",
                reason: format!("{eta} is not between 0 and 1"),
            });
        }
        let schedule = super::schedule_to_sample(SamplerKind::Ddim, config, steps)?;
        let count = schedule.num_train_timesteps();
        let spacing = config.choice("timestep_spacing", TimestepSpacing::NAMES, TimestepSpacing::Leading)?;
        let timesteps = spacing.timesteps(count, steps, config.count("steps_offset", 0)?);
        let timesteps = checked_timesteps(SamplerKind::Ddim, timesteps, count, steps)?;
        let final_alpha_bar =
            if config.flag("set_alpha_to_one", true)? { 1.0 } else { schedule.alpha_bar(0)? };
        let levels = |timestep: &f64| {
            let timestep = *timestep as usize;
            schedule.check_signal(timestep)?;
            // T/N below, whatever the spacing: not the next timestep of the list.
            let previous =
                timestep.checked_sub(count / steps).map_or(Ok(final_alpha_bar), |p| schedule.alpha_bar(p));
            Ok((schedule.alpha_bar(timestep)?, previous?))
        };
        let alpha_bars = timesteps.iter().map(levels).collect::<Result<_>>()?;
        let prediction_type = schedule.prediction_type();
        Ok(Self { timesteps, alpha_bars, prediction_type, clip: clip_range(config)?, eta })
    }

    /// Where step `step_idx` may lead.
    ///
    /// # Shapes
    /// `model_pred`, `latents` `(B,C,H,W)`
    /// # Gradient
    /// Flows from the mean and the clean latents to both tensors.
    /// # Errors
    /// [`DiffusionError::Shape`]; [`DiffusionError::Setting`] if there is no such step.
    pub fn distribution(
        &self,
        model_pred: &Tensor,
        step_idx: usize,
        latents: &Tensor,
    ) -> Result<StepDistribution> {
        check_prediction(model_pred, latents)?;
        let &(alpha_bar, previous) = at_step(&self.alpha_bars, step_idx)?;
        let (alpha, sigma) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        let (of_latents, of_pred) = self.prediction_type.clean_weights(alpha, sigma);
        let clean = clipped(weighted_sum(&[(of_latents, latents), (of_pred, model_pred)])?, self.clip)?;
        // Like diffusers, the noise is the network's own, not the one that the clipped latents would imply.
        let (of_latents, of_pred) = self.prediction_type.noise_weights(alpha, sigma);
        let predicted_noise = weighted_sum(&[(of_latents, latents), (of_pred, model_pred)])?;

        let variance = (1.0 - previous) / (1.0 - alpha_bar) * (1.0 - alpha_bar / previous);
        let std = self.eta * variance.max(0.0).sqrt();
        let direction = (1.0 - previous - std * std).max(0.0).sqrt();
        let mean = weighted_sum(&[(previous.sqrt(), &clean), (direction, &predicted_noise)])?;
        Ok(StepDistribution { mean, std, clean, step_idx })
    }
}

impl Sampler for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn skip(&mut self, steps: usize) {
        drop_first(&mut self.timesteps, steps);
        drop_first(&mut self.alpha_bars, steps);
    }

    fn noised(&self, latents: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let (alpha_bar, _) = at_step(&self.alpha_bars, 0)?;
        weighted_sum(&[(alpha_bar.sqrt(), latents), ((1.0 - alpha_bar).sqrt(), noise)])
    }

    fn step(
        &mut self,
        model_pred: &Tensor,
        step_idx: usize,
        latents: &Tensor,
        noise: &StepNoise,
    ) -> Result<Tensor> {
        let step = self.distribution(model_pred, step_idx, latents)?;
        if step.std == 0.0 {
            return Ok(step.mean);
        }
        step.at(&noise.at_step(step_idx, latents)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// One step from t = 501 to 451 of Stable Diffusion's schedule with z = 1 and ε = 0.5, in f64.
    #[track_caller]
    fn check(eta: f64, noise: f64, expected: f64) {
        let scalar = |value: f64| Tensor::full(value, (1, 1, 1, 1), &Device::Cpu).unwrap();
        let mut ddim = Ddim::new(&SchedulerConfig::stable_diffusion(), 20, eta).unwrap();
        let step_idx = ddim.timesteps().iter().position(|t| *t == 501.0).unwrap();
        let noise = StepNoise::Given(vec![scalar(noise); 20]);
        let next = ddim.step(&scalar(0.5), step_idx, &scalar(1.0), &noise).unwrap();
        let found = next.flatten_all().unwrap().to_vec1::<f64>().unwrap()[0];
        assert!((found - expected).abs() < 1e-6, "{found} against {expected}");
    }

    #[test]
    fn one_step_by_hand() {
        check(0.0, 9.0, 1.0482232927);
        check(1.0, 0.0, 0.9865637705);
        check(1.0, 2.0, 0.9865637705 + 2.0 * 0.1843166493f64.sqrt());
    }
}
