//! Whole runs through the public interface: the numbers of torch, and runs that must be equal.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod alarms;
mod diffusion_limits;
mod diffusion_parity;
mod drive;
mod ema;
mod equality;
mod failures;
mod heads;
mod held_out;
mod image_rows;
mod lists;
mod noising;
mod objectives;
mod references;
mod resume;
mod reward_models;
mod rewards;
mod rollouts;
mod sdxl;
mod shown_images;
mod text_parity;
mod torch;
mod workshop;

use std::path::{Path, PathBuf};

/// The files that `tools/parity` writes with the Python libraries.
fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}
