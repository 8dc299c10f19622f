//! Stable Diffusion 1, 2 and XL: U-Net, image autoencoder, CLIP text encoders, and the folder that holds them.
//!
//! Names, configuration fields and arithmetic are those of diffusers 0.42.1 and transformers 5, so that checkpoints
//! go both ways.

mod adapted;
mod component;
mod model_index;
mod pipeline;
mod resnet;
mod spatial;
mod text_encoders;
mod timestep;
mod transformer;
mod transformer_layers;
mod unet;
mod unet_blocks;
mod unet_config;
mod vae;
mod vae_blocks;
mod vae_config;

pub use crate::clip::{
    ClipTextConfig, ClipTextModel, ClipTextModelWithProjection, HiddenStates, PooledStates,
};
pub use component::Component;
pub use model_index::{PipelineClass, save_index};
pub use pipeline::StableDiffusionFolder;
pub use text_encoders::TextEncoders;
pub use transformer_layers::TransformerLayers;
pub use unet::UNet2DConditionModel;
pub use unet_config::{AdditionConfig, UNetConfig, UNetLevel};
pub use vae::{AutoencoderKl, Posterior};
pub use vae_config::VaeConfig;

/// The version whose configuration fields are written.
const DIFFUSERS_VERSION: &str = "0.42.1";
