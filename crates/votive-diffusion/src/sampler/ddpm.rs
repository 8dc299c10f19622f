//! Ancestral sampling of denoising diffusion probabilistic models (DDPM).
//!
//! Source: Ho et al. 2020, arXiv:2006.11239, Eq. 6 and 7: z_p is normal with
//! mean `√ᾱ_p (1−a)/(1−ᾱ_t) ẑ₀ + √a (1−ᾱ_p)/(1−ᾱ_t) z_t` and variance `(1−ᾱ_p)/(1−ᾱ_t) (1−a)`, where `a = ᾱ_t/ᾱ_p`.
//! Checked against: diffusers 0.42.1, `DDPMScheduler`.

use candle_core::Tensor;

use super::{
    Sampler, SamplerKind, StepNoise, at_step, check_prediction, checked_timesteps, clip_range, clipped,
    drop_first,
};
use crate::config::SchedulerConfig;
use crate::error::Result;
use crate::linear::weighted_sum;
use crate::prediction::PredictionType;
use crate::spacing::TimestepSpacing;

/// The two posterior variances between which the truth lies.
#[derive(Clone, Copy, Debug)]
enum Variance {
    /// `(1−ᾱ_p)/(1−ᾱ_t) (1−a)`: right if the latents are one point.
    Small,
    /// `1−a`: right if the latents are standard normal.
    Large,
}

/// `fixed_small_log` takes the logarithm and undoes it.
const VARIANCE_TYPES: &[(&str, Variance)] = &[
    ("fixed_small", Variance::Small),
    ("fixed_small_log", Variance::Small),
    ("fixed_large", Variance::Large),
];

/// DDPM: every step adds noise, but the one from timestep 0.
#[derive(Clone, Debug)]
pub struct Ddpm {
    timesteps: Vec<f64>,
    /// (ᾱ_t, ᾱ_p) of each step, p being the next timestep of the list.
    alpha_bars: Vec<(f64, f64)>,
    prediction_type: PredictionType,
    variance: Variance,
    clip: Option<f64>,
}

impl Ddpm {
    /// DDPM with `steps` network calls.
    ///
    /// # Errors
    /// As [`SamplerKind::build`].
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let schedule = super::schedule_to_sample(SamplerKind::Ddpm, config, steps)?;
        let count = schedule.num_train_timesteps();
        let spacing = config.choice("timestep_spacing", TimestepSpacing::NAMES, TimestepSpacing::Leading)?;
        let timesteps = spacing.timesteps(count, steps, config.count("steps_offset", 0)?);
        let timesteps = checked_timesteps(SamplerKind::Ddpm, timesteps, count, steps)?;
        let mut alpha_bars = Vec::with_capacity(timesteps.len());
        for (i, timestep) in timesteps.iter().enumerate() {
            schedule.check_signal(*timestep as usize)?;
            let previous = timesteps.get(i + 1).map_or(Ok(1.0), |p| schedule.alpha_bar(*p as usize))?;
            alpha_bars.push((schedule.alpha_bar(*timestep as usize)?, previous));
        }
        let variance = config.choice("variance_type", VARIANCE_TYPES, Variance::Small)?;
        let prediction_type = schedule.prediction_type();
        Ok(Self { timesteps, alpha_bars, prediction_type, variance, clip: clip_range(config)? })
    }
}

impl Sampler for Ddpm {
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
        check_prediction(model_pred, latents)?;
        let &(alpha_bar, previous) = at_step(&self.alpha_bars, step_idx)?;
        let (of_latents, of_pred) =
            self.prediction_type.clean_weights(alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        let clean = clipped(weighted_sum(&[(of_latents, latents), (of_pred, model_pred)])?, self.clip)?;

        let kept = alpha_bar / previous;
        let of_clean = previous.sqrt() * (1.0 - kept) / (1.0 - alpha_bar);
        let of_latents = kept.sqrt() * (1.0 - previous) / (1.0 - alpha_bar);
        let mean = weighted_sum(&[(of_clean, &clean), (of_latents, latents)])?;
        if *at_step(&self.timesteps, step_idx)? == 0.0 {
            return Ok(mean);
        }
        let variance = match self.variance {
            Variance::Small => ((1.0 - previous) / (1.0 - alpha_bar) * (1.0 - kept)).max(1e-20),
            Variance::Large => 1.0 - kept,
        };
        let noise = noise.at_step(step_idx, latents)?;
        super::same_dims("the given noise, shaped like the latents", latents, &noise)?;
        weighted_sum(&[(1.0, &mean), (variance.sqrt(), &noise)])
    }
}
