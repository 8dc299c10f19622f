//! Losses on pairs of completions, one file per method.

pub mod dpo;
pub mod ipo;
pub mod ld_dpo;
pub mod simpo;
pub mod tdpo;
