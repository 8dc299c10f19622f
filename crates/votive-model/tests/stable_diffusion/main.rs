//! Stable Diffusion's networks: parity with diffusers and transformers, gradients, refusals, folders.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod folders;
mod gradients;
mod networks;
mod parity;

const CPU: candle_core::Device = candle_core::Device::Cpu;
