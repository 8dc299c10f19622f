//! Losses on lists of completions of one prompt, one file per method.

pub mod contract;
pub mod mc_po;
pub mod tpo_tree;
