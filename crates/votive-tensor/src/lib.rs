//! Operations that can be trained: each has its own backward, checked against finite differences in f64.
//!
//! candle 0.11.1 has fast kernels that drop the gradient without a word, and CPU kernels that are slow or wrong in
//! the backward. Everything that Votive trains goes through this crate instead, which also holds the random
//! numbers, recomputed segments and the gradient check itself.
//!
//! Invariant: no file, no model, no configuration. This is the only crate that may call `candle_nn::ops`.

pub mod gradcheck;
pub mod kernel;
mod ops;
pub mod random;
mod recorder;
mod scope;
mod segment;
mod vector;

pub use ops::{
    Activation, AttentionMask, KeptWeights, Scores, Segment, Storage, StoredMatrix, TokenScores, Weight,
    activate, add_to_channels, attention, conv2d, gated, gated_halves, group_norm, group_norm_activated,
    keeping_weights, layer_norm, linear, log_sigmoid, low_rank_conv2d, low_rank_linear, rms_norm, rope,
    stored_linear, token_divergences, token_scores, transpose, upsample_nearest_2x,
};
pub use recorder::Recorder;
