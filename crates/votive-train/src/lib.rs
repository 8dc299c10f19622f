//! Training: likelihood front ends, references, the optimizer, the loop, checkpoints and run directories.
//!
//! The loop asks an objective what it needs and never which it is; it asks a front end for log-probabilities and
//! never whether they came from tokens or from denoising errors.
//!
//! Invariant: no method's id, no terminal, no environment.

pub mod checkpoint;
mod error;
pub mod gradients;
pub mod optimizer;
pub mod pretrain;
pub mod recipe;

pub use error::{Result, TrainError};
