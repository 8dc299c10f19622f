//! What can go wrong between a scheduler's configuration and finished latents.

use std::path::PathBuf;

/// The error of a network that was handed in as a function.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Shorthand for results of this crate.
pub type Result<T, E = DiffusionError> = std::result::Result<T, E>;

/// The one error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum DiffusionError {
    /// `scheduler_config.json` cannot be read.
    #[error("cannot read {}: {source}; a Stable Diffusion folder keeps it under scheduler/", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// `scheduler_config.json` is no JSON object.
    #[error("{origin}: not a JSON object: {source}")]
    Parse {
        /// Where the text came from.
        origin: String,
        /// Line and column.
        source: serde_json::Error,
    },
    /// The class is not one whose configuration describes a variance-preserving schedule.
    #[error("{origin}: unsupported scheduler class `{found}`; supported: {supported}")]
    Class {
        /// Where the configuration came from.
        origin: String,
        /// The `_class_name` in it.
        found: String,
        /// The classes that can be read.
        supported: String,
    },
    /// A field that no supported class has, and that may change the maths.
    #[error("{origin}: unknown field `{field}`, which may change what is computed; remove it if it does not")]
    UnknownField {
        /// Where the configuration came from.
        origin: String,
        /// The field's name.
        field: String,
    },
    /// A field with a value of the wrong type, out of range, or not supported.
    #[error("{origin}: field `{field}` is {found}, expected {expected}")]
    Field {
        /// Where the configuration came from.
        origin: String,
        /// The field's name.
        field: &'static str,
        /// What would be accepted.
        expected: String,
        /// The value, as JSON.
        found: String,
    },
    /// No sampler has this name.
    #[error("unknown sampler `{found}`; samplers: {known}")]
    UnknownSampler {
        /// The name that was given.
        found: String,
        /// The names that exist.
        known: String,
    },
    /// The number of sampling steps does not fit the schedule.
    #[error("{found} steps do not fit the {sampler} sampler: {reason}")]
    Steps {
        /// The sampler's name.
        sampler: &'static str,
        /// The number of steps that was asked for.
        found: usize,
        /// Why it does not fit, and what does.
        reason: String,
    },
    /// A timestep outside the schedule.
    #[error("timestep {found} is outside the schedule's 0..{count}")]
    Timestep {
        /// The timestep.
        found: usize,
        /// `num_train_timesteps`.
        count: usize,
    },
    /// The signal is gone at this timestep, so the noise says nothing about the latents.
    #[error(
        "timestep {timestep} has no signal left (zero terminal SNR), from which `epsilon` cannot recover the latents; \
         use timestep_spacing \"leading\", or a model with prediction_type \"v_prediction\""
    )]
    NoSignal {
        /// The timestep with ᾱ = 0.
        timestep: usize,
    },
    /// Two tensors, or a tensor and a list, that belong together differ in shape.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// What is wrong.
        what: &'static str,
        /// The expected shape or count.
        expected: String,
        /// The shape or count that was given.
        found: String,
    },
    /// A setting that cannot be used as given.
    #[error("{setting}: {reason}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The network failed.
    #[error("the network failed at timestep {timestep}: {source}")]
    Network {
        /// The timestep it was called with.
        timestep: f64,
        /// Its own error.
        source: BoxError,
    },
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl DiffusionError {
    /// A [`DiffusionError::Shape`] from two things that can be printed.
    pub(crate) fn shape(
        what: &'static str,
        expected: impl std::fmt::Debug,
        found: impl std::fmt::Debug,
    ) -> DiffusionError {
        DiffusionError::Shape { what, expected: format!("{expected:?}"), found: format!("{found:?}") }
    }
}
