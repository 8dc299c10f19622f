//! Losses on single completions with a label, one file per method.

pub mod kto;
pub mod sft;
