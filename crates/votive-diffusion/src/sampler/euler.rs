//! Euler's method on the probability-flow equation, in noise per signal.
//!
//! Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1 without its second-order correction: latents are
//! `x = z₀ + σ ε` with `σ = √((1−ᾱ)/ᾱ)`, the network sees `x/√(σ²+1)`, and `x' = x + (σ' − σ) (x − ẑ₀)/σ`.
//! Checked against: diffusers 0.42.1, `EulerDiscreteScheduler`.

use candle_core::Tensor;

use super::{Sampler, SamplerKind, StepNoise, at_step, check_prediction, checked_timesteps};
use crate::config::SchedulerConfig;
use crate::error::Result;
use crate::linear::weighted_sum;
use crate::prediction::PredictionType;
use crate::schedule::NoiseSchedule;
use crate::spacing::{TimestepSpacing, linspace};

/// Euler's method; deterministic.
#[derive(Clone, Debug)]
pub struct Euler {
    timesteps: Vec<f64>,
    /// (σ, σ') of each step.
    sigmas: Vec<(f64, f64)>,
    init_noise_sigma: f64,
    prediction_type: PredictionType,
}

impl Euler {
    /// Euler's method with `steps` network calls.
    ///
    /// # Errors
    /// As [`SamplerKind::build`].
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        config.must_be_off(&["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])?;
        config.choice("interpolation_type", &[("linear", ())], ())?;
        config.choice("timestep_type", &[("discrete", ())], ())?;
        let schedule = super::schedule_to_sample(SamplerKind::Euler, config, steps)?;
        let spacing = config.choice("timestep_spacing", TimestepSpacing::NAMES, TimestepSpacing::Linspace)?;
        let timesteps =
            timesteps(spacing, schedule.num_train_timesteps(), steps, config.count("steps_offset", 0)?)?;
        let table = schedule.sigmas();
        let mut levels: Vec<f64> = timesteps.iter().map(|t| interpolated(&table, *t)).collect();
        levels.push(final_sigma(config, &schedule)?);
        let largest = levels.iter().copied().fold(0.0, f64::max);
        // Under `leading` the first step is not the noisiest there is, so the latents hold some signal.
        let init_noise_sigma =
            if spacing == TimestepSpacing::Leading { (largest * largest + 1.0).sqrt() } else { largest };
        let sigmas = levels.windows(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(Self { timesteps, sigmas, init_noise_sigma, prediction_type: schedule.prediction_type() })
    }
}

impl Sampler for Euler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    fn scale_input(&self, latents: &Tensor, step_idx: usize) -> Result<Tensor> {
        let (sigma, _) = at_step(&self.sigmas, step_idx)?;
        weighted_sum(&[((sigma * sigma + 1.0).sqrt().recip(), latents)])
    }

    fn step(
        &mut self,
        model_pred: &Tensor,
        step_idx: usize,
        latents: &Tensor,
        _noise: &StepNoise,
    ) -> Result<Tensor> {
        check_prediction(model_pred, latents)?;
        let &(sigma, next) = at_step(&self.sigmas, step_idx)?;
        let alpha = (sigma * sigma + 1.0).sqrt().recip();
        let (of_scaled, of_pred) = self.prediction_type.clean_weights(alpha, sigma * alpha);
        // x' = (σ'/σ) x + (1 − σ'/σ) ẑ₀ with ẑ₀ from the network's view αx: one weighted sum.
        let kept = next / sigma;
        let of_latents = kept + (1.0 - kept) * of_scaled * alpha;
        weighted_sum(&[(of_latents, latents), ((1.0 - kept) * of_pred, model_pred)])
    }
}

/// Unlike the other samplers, Euler does not round the timesteps of `linspace`.
fn timesteps(spacing: TimestepSpacing, count: usize, steps: usize, offset: usize) -> Result<Vec<f64>> {
    let timesteps = match spacing {
        TimestepSpacing::Linspace => {
            linspace((count - 1) as f64, steps).into_iter().map(|t| f64::from(t as f32)).collect()
        }
        TimestepSpacing::Leading | TimestepSpacing::Trailing => spacing.timesteps(count, steps, offset),
    };
    checked_timesteps(SamplerKind::Euler, timesteps, count, steps)
}

/// The table's value at a timestep between two entries, rounded to f32 as diffusers holds it.
fn interpolated(table: &[f32], timestep: f64) -> f64 {
    let value = |index: usize| table.get(index).or(table.last()).copied().map_or(0.0, f64::from);
    let below = timestep.floor();
    let (low, high) = (value(below as usize), value(below as usize + 1));
    f64::from((low + (timestep - below) * (high - low)) as f32)
}

/// Where the last step ends: without noise, or at the first level of training (`final_sigmas_type`).
pub(super) fn final_sigma(config: &SchedulerConfig, schedule: &NoiseSchedule) -> Result<f64> {
    let least = schedule.sigmas().first().copied().map_or(0.0, f64::from);
    config.choice("final_sigmas_type", &[("zero", 0.0), ("sigma_min", least)], 0.0)
}
