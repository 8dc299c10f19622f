//! Losses on single completions with a label, one file per method.

pub mod apo_action;
pub mod apo_zero_unpaired;
pub mod bco;
pub mod kto;
pub mod pmpo;
pub mod sft;
