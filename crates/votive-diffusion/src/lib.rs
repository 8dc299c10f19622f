//! Noise schedules, samplers, guidance, and the rules by which training picks timesteps and noise.
//!
//! A [`NoiseSchedule`] is the forward process that a model was trained with, a [`Sampler`] is one way back along it;
//! both come from the `scheduler_config.json` of the model's folder and compute what diffusers 0.42.1 computes.
//! A network is a function from noisy latents, timesteps and prompt embeddings to a prediction ([`DenoiseFn`]).
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use votive_diffusion::{Guidance, SamplerKind, SchedulerConfig, StepNoise, initial_latents, sample};
//!
//! let config = SchedulerConfig::stable_diffusion();
//! let mut sampler = SamplerKind::Ddim.build(&config, 20)?;
//! let prompt_embeds = Tensor::zeros((2, 77, 32), candle_core::DType::F32, &Device::Cpu)?;
//! let network = |latents: &Tensor, _timesteps: &[f64], _prompt_embeds: &Tensor| Ok(latents.affine(0.1, 0.0)?);
//! let guidance = Guidance::unguided(&network, &prompt_embeds);
//! let latents = initial_latents(&[7, 8], (4, 8, 8), &Device::Cpu)?;
//! let noise = StepNoise::Seeded(vec![7, 8]);
//! let latents = sample(sampler.as_mut(), &guidance, &latents, &noise, |_done, _of| {})?;
//! assert_eq!(latents.dims(), &[2, 4, 8, 8]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariant: no model, no data set, no objective, and no file but `scheduler_config.json`.

mod config;
mod error;
mod guidance;
mod inversion;
mod linear;
mod noise;
mod prediction;
mod sample;
pub mod sampler;
mod schedule;
mod spacing;
mod timestep;
mod trajectory;
mod weight;

pub use config::SchedulerConfig;
pub use error::{BoxError, DiffusionError, Result};
pub use guidance::{DenoiseFn, Guidance};
pub use inversion::{InversionInputs, Inverted};
pub use noise::{InversionBy, InversionPlan, NoisePolicy, noise_for_samples};
pub use prediction::PredictionType;
pub use sample::{sample, sample_from_image};
pub use sampler::{Sampler, SamplerKind, SamplerOptions, StepNoise, initial_latents};
pub use schedule::NoiseSchedule;
pub use timestep::{TimestepPolicy, TimestepSharing};
pub use trajectory::StepDistribution;
pub use weight::LossWeight;
