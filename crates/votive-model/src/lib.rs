//! Networks that can be trained: a Llama family, Stable Diffusion's U-Net, and the VAE and CLIP text tower around it.
//!
//! One file per architecture, named as in the checkpoints of transformers and diffusers. Parameters are named,
//! ordered and loaded strictly; LoRA comes in and goes out in PEFT's format.
//!
//! Invariant: no data set, no objective, no optimizer.

pub mod config;
mod error;
pub mod files;
mod lora;
mod nn;
mod params;

pub use error::{ModelError, Result};
pub use lora::{Lora, LoraConfig, LoraFormat};
pub use params::{Init, Params, Scope};
