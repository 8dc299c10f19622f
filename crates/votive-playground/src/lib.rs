//! Two procedural worlds with exact checkers: small scenes with captions, and short instructions with answers.
//!
//! A world is drawn from a seed, so there is no data set to ship, and every prompt can be checked exactly from its
//! own text: nothing but the prompt and the picture or answer is needed to say what is right and what is wrong.
//! Training examples carry planted flaws at known rates. A model that learns them well reproduces the flaws, which
//! is what preference alignment then has to undo.
//!
//! * [`image`]: 32×32 scenes in GenEval's categories (Ghosh et al. 2023, arXiv:2310.11513): one object, counting, and
//!   position with attribute binding.
//! * [`text`]: instructions whose constraints can be verified, after IFEval (Zhou et al. 2023, arXiv:2311.07911).
//!
//! Invariant: no model, no file, no clock. Every output is a function of the arguments, equal on every machine.

mod error;
pub mod image;
mod split;
pub mod text;

pub use error::PlaygroundError;
pub use split::Split;
