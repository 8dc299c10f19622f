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

pub mod alarms;
pub mod checkpoint;
pub mod ema;
mod error;
pub mod events;
pub mod front_end;
pub mod gradients;
mod heads;
mod history;
mod lock;
pub mod memory;
pub mod model_card;
pub mod optimizer;
pub mod plan;
pub mod pretrain;
pub mod recipe;
pub mod reference;
pub mod reward;
pub mod run;
pub mod run_directory;
mod run_log;
mod schema;
pub mod session;
mod split;
mod watch;

pub use alarms::Alarm;
pub use error::{Result, TrainError};
pub use plan::{Modality, Plan, RewardKind, TokenWeightRule};
pub use run::{HeldOut, Inspection, LogRatios, Resumed, Run, StepMetrics};
pub use run_directory::RunDirectory;
pub use schema::recipe_schema;
pub use session::{Prepared, Rewards, prepare};
pub use split::RowReport;
pub use watch::Watch;
