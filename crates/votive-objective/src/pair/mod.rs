//! Losses on pairs of completions, one file per method.

pub mod d3po;
pub mod dpo;
pub mod dspo;
pub mod ipo;
pub mod ld_dpo;
pub mod mapo;
pub mod rwr;
pub mod simpo;
pub mod smpo;
pub mod tdpo;
