//! Samplers: numerical ways from noise back to latents, one file each.
//!
//! All are built from the `scheduler_config.json` of the model with the defaults of the diffusers class that does the
//! same, and compute what that class computes (0.42.1) to the rounding of f32: their scalars are f64, made from
//! diffusers' f32 table of ᾱ.

mod ddim;
mod ddim_inverse;
mod ddpm;
mod dpmpp;
mod euler;
mod euler_ancestral;
mod pndm;
mod step_noise;

use std::fmt;
use std::str::FromStr;

use candle_core::Tensor;

use crate::config::SchedulerConfig;
use crate::error::{DiffusionError, Result};
use crate::linear::same_dims;
use crate::schedule::NoiseSchedule;

pub use ddim::Ddim;
pub use ddim_inverse::DdimInverse;
pub use ddpm::Ddpm;
pub use dpmpp::DpmSolverPp;
pub use euler::Euler;
pub use euler_ancestral::EulerAncestral;
pub use pndm::Pndm;
pub use step_noise::{StepNoise, initial_latents};

/// A way from noise to latents in a fixed number of network calls.
///
/// The caller starts with unit-variance noise times [`Sampler::init_noise_sigma`] and, for each step in order, hands
/// the network [`Sampler::scale_input`] of the latents and the timestep, and its prediction to [`Sampler::step`].
pub trait Sampler: fmt::Debug + Send {
    /// The timestep of each network call, falling (PNDM's second is there twice); Euler's may lie between two training
    /// timesteps.
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

    /// Leaves out the first steps: for latents that are not all noise.
    fn skip(&mut self, steps: usize);

    /// Clean latents with noise of unit variance on top, as the first step that is left expects them.
    ///
    /// # Shapes
    /// `latents`, `noise` `(B,C,H,W)` → `(B,C,H,W)`
    /// # Errors
    /// [`DiffusionError::Setting`] if no step is left.
    fn noised(&self, latents: &Tensor, noise: &Tensor) -> Result<Tensor>;

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
    /// Euler's method with ancestral noise.
    EulerA,
    /// Pseudo linear multistep, as Stable Diffusion 1.x is published.
    Pndm,
}

/// What a sampler is asked for beside its steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerOptions {
    /// DDIM's noise: 0 for none, 1 for as much as DDPM's.
    pub eta: f64,
    /// The share of the steps that is left to be done, from the noisy end: above 0, and 1 for all. Less is for
    /// starting from an image (SDEdit, Meng et al. 2022, arXiv:2108.01073).
    pub strength: f64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self { eta: 0.0, strength: 1.0 }
    }
}

impl SamplerKind {
    /// Every sampler, sorted by name.
    pub const ALL: &[SamplerKind] =
        &[Self::Ddim, Self::Ddpm, Self::Dpmpp, Self::Euler, Self::EulerA, Self::Pndm];

    /// The name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Ddpm => "ddpm",
            Self::Dpmpp => "dpmpp",
            Self::Euler => "euler",
            Self::EulerA => "euler_a",
            Self::Pndm => "pndm",
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
            Self::EulerA => Box::new(EulerAncestral::new(config, steps)?),
            Self::Pndm => Box::new(Pndm::new(config, steps)?),
        })
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`SamplerKind::build`]; [`DiffusionError::Setting`] for an option out of range, one that leaves no step, and
    /// an `eta` for a sampler that has none.
    pub fn build_with(
        self,
        config: &SchedulerConfig,
        steps: usize,
        options: SamplerOptions,
    ) -> Result<Box<dyn Sampler>> {
        let SamplerOptions { eta, strength } = options;
        let mut sampler: Box<dyn Sampler> = match self {
            Self::Ddim => Box::new(Ddim::new(config, steps, eta)?),
            _ if eta != 0.0 => {
                let reason = format!("{eta} has no effect on {self}; only ddim has it");
                return Err(DiffusionError::Setting { setting: "eta", reason });
            }
            _ => self.build(config, steps)?,
        };
        sampler.skip(steps - steps_left(steps, strength)?);
        Ok(sampler)
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

/// How many of `steps` steps a strength leaves, rounded down as in diffusers.
fn steps_left(steps: usize, strength: f64) -> Result<usize> {
    let refuse = |reason| Err(DiffusionError::Setting { setting: "strength", reason });
    if !(strength > 0.0 && strength <= 1.0) {
        return refuse(format!("{strength}, expected more than 0 and at most 1"));
    }
    match (steps as f64 * strength) as usize {
        0 => refuse(format!("{strength} of {steps} steps is not one step; use more steps or more strength")),
        left => Ok(left),
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

/// Takes the first entries out of a per-step table.
fn drop_first<T>(table: &mut Vec<T>, n: usize) {
    table.drain(..n.min(table.len()));
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
