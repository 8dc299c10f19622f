//! Euler's method on the probability-flow equation, in noise per signal.
//!
//! Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1 without its second-order correction: latents are
//! `x = z₀ + σ ε` with `σ = √((1−ᾱ)/ᾱ)`, the network sees `x/√(σ²+1)`, and `x' = x + (σ' − σ) (x − ẑ₀)/σ`.
//! Checked against: diffusers 0.42.1, `EulerDiscreteScheduler`.

use candle_core::Tensor;

use super::{Sampler, SamplerKind, StepNoise, at_step, check_prediction, checked_timesteps, drop_first};
use crate::config::SchedulerConfig;
use crate::error::Result;
use crate::linear::weighted_sum;
use crate::prediction::PredictionType;
use crate::schedule::NoiseSchedule;
use crate::spacing::{TimestepSpacing, linspace};

/// Timesteps in noise per signal, as both of Euler's samplers take them.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    pub(super) timesteps: Vec<f64>,
    /// (σ, σ') of each step.
    pub(super) sigmas: Vec<(f64, f64)>,
    pub(super) init_noise_sigma: f64,
    pub(super) prediction_type: PredictionType,
}

impl Levels {
    /// `steps` levels of a schedule, and where the last step ends.
    pub(super) fn new(
        kind: SamplerKind,
        config: &SchedulerConfig,
        steps: usize,
        end: impl Fn(&NoiseSchedule) -> Result<f64>,
    ) -> Result<Self> {
        let schedule = super::schedule_to_sample(kind, config, steps)?;
        let spacing = config.choice("timestep_spacing", TimestepSpacing::NAMES, TimestepSpacing::Linspace)?;
        let (count, offset) = (schedule.num_train_timesteps(), config.count("steps_offset", 0)?);
        let timesteps = checked_timesteps(kind, timesteps(spacing, count, steps, offset), count, steps)?;
        let table = schedule.sigmas();
        let mut levels: Vec<f64> = timesteps.iter().map(|t| interpolated(&table, *t)).collect();
        levels.push(end(&schedule)?);
        let largest = levels.iter().copied().fold(0.0, f64::max);
        // Under `leading` the first step is not the noisiest there is, so the latents hold some signal.
        let init_noise_sigma =
            if spacing == TimestepSpacing::Leading { (largest * largest + 1.0).sqrt() } else { largest };
        let sigmas = levels.windows(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(Self { timesteps, sigmas, init_noise_sigma, prediction_type: schedule.prediction_type() })
    }

    pub(super) fn scale_input(&self, latents: &Tensor, step_idx: usize) -> Result<Tensor> {
        let (sigma, _) = at_step(&self.sigmas, step_idx)?;
        weighted_sum(&[((sigma * sigma + 1.0).sqrt().recip(), latents)])
    }

    pub(super) fn skip(&mut self, steps: usize) {
        drop_first(&mut self.timesteps, steps);
        drop_first(&mut self.sigmas, steps);
    }

    pub(super) fn noised(&self, latents: &Tensor, noise: &Tensor) -> Result<Tensor> {
        weighted_sum(&[(1.0, latents), (at_step(&self.sigmas, 0)?.0, noise)])
    }
}

/// Euler's method; deterministic.
#[derive(Clone, Debug)]
pub struct Euler {
    levels: Levels,
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
        let end = |schedule: &NoiseSchedule| final_sigma(config, schedule);
        Ok(Self { levels: Levels::new(SamplerKind::Euler, config, steps, end)? })
    }
}

impl Sampler for Euler {
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
        _noise: &StepNoise,
    ) -> Result<Tensor> {
        check_prediction(model_pred, latents)?;
        stepped(self.levels.prediction_type, *at_step(&self.levels.sigmas, step_idx)?, latents, model_pred)
    }
}

/// From the level σ to σ': `x' = (σ'/σ) x + (1 − σ'/σ) ẑ₀` with ẑ₀ from the network's view αx, one weighted sum.
pub(super) fn stepped(
    kind: PredictionType,
    (sigma, next): (f64, f64),
    latents: &Tensor,
    model_pred: &Tensor,
) -> Result<Tensor> {
    let alpha = (sigma * sigma + 1.0).sqrt().recip();
    let (of_scaled, of_pred) = kind.clean_weights(alpha, sigma * alpha);
    let kept = next / sigma;
    let of_latents = kept + (1.0 - kept) * of_scaled * alpha;
    weighted_sum(&[(of_latents, latents), ((1.0 - kept) * of_pred, model_pred)])
}

/// Unlike the other samplers, Euler does not round the timesteps of `linspace`.
fn timesteps(spacing: TimestepSpacing, count: usize, steps: usize, offset: usize) -> Vec<f64> {
    match spacing {
        TimestepSpacing::Linspace => {
            linspace((count - 1) as f64, steps).into_iter().map(|t| f64::from(t as f32)).collect()
        }
        TimestepSpacing::Leading | TimestepSpacing::Trailing => spacing.timesteps(count, steps, offset),
    }
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
