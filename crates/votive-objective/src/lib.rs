//! Preference objectives: pure values that declare what they need and map log-ratios to one loss per pair.
//!
//! An objective does not know whether its numbers came from tokens or from denoising errors. It reads `(B,)` tensors,
//! returns `(B,)` tensors, and leaves every reduction to its caller. A method is one file and one row of
//! [`METHODS`]; nothing outside this crate names one.
//!
//! Invariant: no model, no file, no random number, no choice of device.

mod completion;
mod contract;
mod error;
pub mod game;
mod header;
pub mod list;
mod margin;
mod mixture;
mod needs;
mod option;
pub mod pair;
mod positive_part;
mod registry;
pub mod reward;
mod sorting;
mod spec;
#[cfg(test)]
mod tests;
pub mod unpaired;
pub mod wrap;

pub use completion::{Completion, Denoised, TokenWeights, Tokens};
pub use contract::{PairInputs, PairLoss, PairObjective, UnpairedInputs, UnpairedLoss, UnpairedObjective};
pub use error::{ObjectiveError, Result};
pub use header::Header;
pub use list::contract::{ListInputs, ListLoss, ListObjective};
pub use margin::MarginObjective;
pub use mixture::{CompletionFacts, Mixture, Term};
pub use needs::Needs;
pub use option::OptionRange;
pub use registry::{METHODS, find};
pub use spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction};
pub use wrap::{Around, WITH, WRAPPERS, WrapperSpec, build};
