//! What can stop a run, and which kind of trouble it is.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// An error of training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The recipe has mistakes; all of them are listed.
    #[error("{path}: {count} mistake{s} in the recipe\n{list}", path = .path.display(), count = .mistakes.len(), s = if .mistakes.len() == 1 { "" } else { "s" }, list = .mistakes.join("\n"))]
    Recipe {
        /// The recipe.
        path: PathBuf,
        /// One line for each mistake, with line and column where they are known.
        mistakes: Vec<String>,
    },
    /// The recipe asks for parts that don't go together.
    #[error("{0}")]
    Plan(String),
    /// A run directory cannot be used.
    #[error("{path}: {reason}", path = .path.display())]
    RunDirectory {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A checkpoint cannot be read.
    #[error("{path}: not a whole checkpoint: {reason}", path = .path.display())]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What does not verify.
        reason: String,
    },
    /// A file of reference log-probabilities cannot be used.
    #[error("{path}: {reason}", path = .path.display())]
    ReferenceFile {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A file of encoded images or prompts cannot be used.
    #[error("{path}: {reason}", path = .path.display())]
    Encoded {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A file cannot be written or read.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A number is not finite.
    #[error("step {step}: the {quantity} is not finite for {place}")]
    NotFinite {
        /// The step, counted from 0.
        step: u64,
        /// Loss, log-probability or gradient.
        quantity: &'static str,
        /// The rows or parameters concerned.
        place: String,
    },
    /// Parameters that should be trained get no gradient.
    #[error("step {step}: no gradient reaches {count} of {total} trainable parameters, first {first}")]
    NoGradient {
        /// The step, counted from 0.
        step: u64,
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// The first by name.
        first: String,
    },
    /// What a policy draws is never better or worse than what else it draws.
    #[error(
        "step {step}: no two pictures of a prompt have had scores that differ enough in the last {steps} steps, so nothing \
         has a gradient; lower rollout.min_gap, or raise rollout.candidates or rollout.eta"
    )]
    Undecided {
        /// The step, counted from 0.
        step: u64,
        /// How many steps.
        steps: u64,
    },
    /// The policy differs from the reference before anything was trained.
    #[error(
        "the margin of policy and reference is {margin:e} before the first step, at data row {row}; it must be 0"
    )]
    StartMargin {
        /// The margin.
        margin: f64,
        /// The row of the data.
        row: usize,
    },
    /// The run was stopped from outside and saved.
    #[error("interrupted at step {step}; everything is saved, go on with `votive resume {path}`", path = .path.display())]
    Interrupted {
        /// Steps that are done.
        step: u64,
        /// The run directory.
        path: PathBuf,
    },
    /// The data.
    #[error(transparent)]
    Data(#[from] votive_data::DataError),
    /// The model.
    #[error(transparent)]
    Model(#[from] votive_model::ModelError),
    /// The objective.
    #[error(transparent)]
    Objective(#[from] votive_objective::ObjectiveError),
    /// The noise schedule.
    #[error(transparent)]
    Diffusion(#[from] votive_diffusion::DiffusionError),
    /// A tensor operation.
    #[error("training: {0}")]
    Tensor(#[from] candle_core::Error),
}
