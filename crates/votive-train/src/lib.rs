//! Training: likelihood front ends, references, the optimizer, the loop, checkpoints and run directories.
//!
//! ```text
//! recipe ─ Plan ─ prepare ─▶ front end + policy ─ Run ─▶ steps ─ RunDirectory ─▶ metrics, checkpoints, final model
//! ```
//!
//! The loop asks an objective what it needs and never which it is; it asks a front end for log-probabilities and
//! never whether they came from tokens or from denoising errors.
//!
//! Invariant: no method's id, no terminal, no environment.

pub mod checkpoint;
mod error;
pub mod front_end;
pub mod gradients;
pub mod model_card;
pub mod optimizer;
pub mod plan;
pub mod pretrain;
pub mod recipe;
pub mod reference;
pub mod run;
pub mod run_directory;
pub mod session;

pub use error::{Result, TrainError};
pub use plan::{Modality, Plan};
pub use run::{Inspection, Resumed, Run, StepMetrics};
pub use run_directory::RunDirectory;
pub use session::{Prepared, prepare};
