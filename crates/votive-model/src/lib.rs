//! Networks that can be trained: language models, Stable Diffusion's U-Net, and the VAE and CLIP text tower around it;
//! and CLIP with both towers, which scores images.
//!
//! One file per architecture, named as in the checkpoints of transformers and diffusers. Parameters are named,
//! ordered and loaded strictly; LoRA comes in and goes out in the formats of PEFT, diffusers and
//! kohya.
//!
//! Invariant: no data set, no objective, no optimizer.

mod arithmetic;
mod causal_lm;
pub mod clip;
pub mod config;
mod denoiser;
mod error;
pub mod files;
mod generate;
mod generation_config;
pub mod gguf;
pub mod hub_folder;
mod image_processor;
mod image_tokens;
pub mod language;
mod lora;
mod nn;
mod params;
mod prefix_tree;
mod sampling;
pub mod stable_diffusion;
mod vision_transformer;
mod weights;

pub use causal_lm::{CausalLm, Head, TokenBatch};
pub use denoiser::{Denoiser, predict_in_parts};
pub use error::{ModelError, Result};
pub use generate::{
    GenerateOptions, Generated, Request, Watcher, generate, generate_watched, next_token_logits,
};
pub use generation_config::GenerationConfig;
pub use image_processor::ImageProcessor;
pub use image_tokens::{ImageInput, ImageTokens, ImageVectors, Seen, SeenImages};
pub use language::llama::{self, LlamaConfig};
pub use language::{CausalLmConfig, Decoder, KvCache, load_causal_lm, load_causal_lm_stored, save_causal_lm};
pub use language::{RewardModel, RewardModelConfig, SCORE};
pub use language::{load_reward_model, new_reward_model, save_reward_model};
pub use lora::{Adaptable, Lora, LoraConfig, LoraFormat, PipelineLora, Targets};
pub use params::{Init, Params, Scope};
pub use sampling::SamplingPolicy;
