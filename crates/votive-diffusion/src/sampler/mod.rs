//! Samplers: numerical ways from noise back to latents, one file each.
//!
//! All are built from the `scheduler_config.json` of the model with the defaults of the diffusers class that does the
//! same, and compute what that class computes (0.42.1) to the rounding of f32: their scalars are f64, made from
//! diffusers' f32 table of ᾱ.

mod ddim;
mod ddpm;
mod dpmpp;
mod euler;
mod step_noise;

use std::fmt;
use std::str::FromStr;

use candle_core::Tensor;

use crate::config::SchedulerConfig;
use crate::error::{DiffusionError, Result};
use crate::linear::same_dims;
use crate::schedule::NoiseSchedule;

pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use dpmpp::DpmSolverPp;
pub use euler::Euler;
pub use step_noise::{StepNoise, initial_latents};

/// A way from noise to latents in a fixed number of network calls.
///
/// The caller starts with unit-variance noise times [`Sampler::init_noise_sigma`] and, for each step in order, hands
/// the network [`Sampler::scale_input`] of the latents and the timestep, and its prediction to [`Sampler::step`].
pub trait Sampler: fmt::Debug + Send {
    /// The timestep of each network call, falling; Euler's may lie between two training timesteps.
    fn timesteps(&self) -> &[f64];

    /// Standard deviation of the latents that the first step expects.
    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    /// The latents as the network wants to see them at step `step_idx`.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`] if there is no such step.
    fn scale_input(&self, latents: &Tensor, _step_idx: usize) -> Result<Tensor> {
        Ok(latents.clone())
    }

    /// The latents after step `step_idx`.
    ///
    /// # Shapes
    /// `model_pred`, `latents` `(B,C,H,W)` → `(B,C,H,W)`
    /// # Errors
    /// [`DiffusionError::Shape`]; [`DiffusionError::Setting`] if there is no such step.
    fn step(
        &mut self,
        model_pred: &Tensor,
        step_idx: usize,
        latents: &Tensor,
        noise: &StepNoise,
    ) -> Result<Tensor>;
}

/// The samplers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplerKind {
    /// Denoising diffusion implicit models without noise (η = 0).
    Ddim,
    /// Ancestral sampling with the posterior variance.
    Ddpm,
    /// DPM-Solver++ 2M.
    Dpmpp,
    /// Euler's method.
    Euler,
}

impl SamplerKind {
    /// Every sampler, sorted by name.
    pub const ALL: &[SamplerKind] = &[Self::Ddim, Self::Ddpm, Self::Dpmpp, Self::Euler];

    /// The name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Ddpm => "ddpm",
            Self::Dpmpp => "dpmpp",
            Self::Euler => "euler",
        }
    }

    /// The sampler with `steps` network calls for a model with this configuration.
    ///
    /// # Errors
    /// [`DiffusionError::Field`] for a variant that is not implemented; [`DiffusionError::Steps`];
    /// [`DiffusionError::NoSignal`].
    pub fn build(self, config: &SchedulerConfig, steps: usize) -> Result<Box<dyn Sampler>> {
        Ok(match self {
            Self::Ddim => Box::new(Ddim::new(config, steps, 0.0)?),
            Self::Ddpm => Box::new(Ddpm::new(config, steps)?),
            Self::Dpmpp => Box::new(DpmSolverPp::new(config, steps)?),
            Self::Euler => Box::new(Euler::new(config, steps)?),
        })
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SamplerKind {
    type Err = DiffusionError;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|kind| kind.name() == name).copied();
        found.ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            DiffusionError::UnknownSampler { found: name.to_owned(), known: known.join(", ") }
        })
    }
}

/// The schedule behind a sampler, after the checks that all samplers share.
fn schedule_to_sample(kind: SamplerKind, config: &SchedulerConfig, steps: usize) -> Result<NoiseSchedule> {
    config.must_be_off(&["thresholding"])?;
    let schedule = NoiseSchedule::new(config)?;
    let most = schedule.num_train_timesteps();
    if steps == 0 || steps > most {
        let reason = format!("the model was trained with {most} timesteps; use 1 to {most}");
        return Err(DiffusionError::Steps { sampler: kind.name(), found: steps, reason });
    }
    Ok(schedule)
}

/// Timesteps that fall strictly and lie inside the schedule.
fn checked_timesteps(kind: SamplerKind, timesteps: Vec<f64>, count: usize, steps: usize) -> Result<Vec<f64>> {
    let refuse = |reason: &str| DiffusionError::Steps {
        sampler: kind.name(),
        found: steps,
        reason: format!("{reason}; use fewer steps"),
    };
    match timesteps.first() {
        None => Err(refuse("no timestep is left")),
        Some(first) if *first >= count as f64 => {
            Err(refuse("`steps_offset` moves the first timestep past the last"))
        }
        Some(_) if timesteps.windows(2).any(|pair| pair[0] <= pair[1]) => {
            Err(refuse("two steps fall together"))
        }
        Some(_) => Ok(timesteps),
    }
}

/// The entry of a per-step table.
fn at_step<T>(table: &[T], step_idx: usize) -> Result<&T> {
    table.get(step_idx).ok_or_else(|| DiffusionError::Setting {
        setting: "step_idx",
        reason: format!("step {step_idx} of a sampler with {} steps", table.len()),
    })
}

/// The bound on predicted latents (`clip_sample`), which classes for pixels switch on by default.
fn clip_range(config: &SchedulerConfig) -> Result<Option<f64>> {
    let range = config.number("clip_sample_range", 1.0)?;
    if range.is_nan() || range <= 0.0 {
        return Err(config.refuse("clip_sample_range", "a number above 0"));
    }
    Ok(config.flag("clip_sample", true)?.then_some(range))
}

fn clipped(latents: Tensor, range: Option<f64>) -> Result<Tensor> {
    match range {
        Some(range) => Ok(latents.clamp(-range, range)?),
        None => Ok(latents),
    }
}

fn check_prediction(model_pred: &Tensor, latents: &Tensor) -> Result<()> {
    same_dims("the network's prediction, shaped like the latents", latents, model_pred)
}
