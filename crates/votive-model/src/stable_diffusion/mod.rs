//! Stable Diffusion 1 and 2: U-Net, image autoencoder, CLIP text encoder, and the folder that holds them.
//!
//! Names, configuration fields and arithmetic are those of diffusers 0.42.1 and transformers 5, so that checkpoints
//! go both ways.

mod adapted;
mod clip;
mod clip_config;
mod pipeline;
mod resnet;
mod spatial;
mod timestep;
mod transformer;
mod unet;
mod unet_blocks;
mod unet_config;
mod vae;
mod vae_blocks;
mod vae_config;

pub use clip::ClipTextModel;
pub use clip_config::ClipTextConfig;
pub use pipeline::{Component, StableDiffusionFolder, save_index};
pub use unet::UNet2DConditionModel;
pub use unet_config::{UNetConfig, UNetLevel};
pub use vae::{AutoencoderKl, Posterior};
pub use vae_config::VaeConfig;

/// The version whose configuration fields are written.
const DIFFUSERS_VERSION: &str = "0.42.1";
