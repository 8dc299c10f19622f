//! Losses on pairs of completions, one file per method.

pub mod cardinal;
pub mod d3po;
pub mod discopop_aqfl;
pub mod discopop_aql;
pub mod discopop_cell;
pub mod discopop_dbaql;
pub mod discopop_padll;
pub mod discopop_pfl;
pub mod dpo;
pub mod dspo;
pub mod ilr_dpo;
pub mod ipo;
pub mod ld_dpo;
pub mod mapo;
pub mod mixdpo_gamma;
pub mod mixdpo_lognormal;
pub mod rwr;
pub mod simpo;
pub mod smpo;
pub mod sparsepo;
pub mod spo_sequential;
mod spread;
pub mod svpo;
mod tangent_exp;
pub mod tdpo;
pub mod upo;
pub mod vpo;
