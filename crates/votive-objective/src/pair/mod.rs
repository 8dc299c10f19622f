//! Losses on pairs of completions, one file per method.

pub mod dpo;
pub mod ipo;
pub mod simpo;
