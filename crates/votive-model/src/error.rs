//! What can be wrong with a model folder.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

/// An error about a model's files, configuration or parameters.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A model folder lacks a file that it needs.
    #[error("{folder}: found none of {expected}", folder = .folder.display())]
    NotFound {
        /// The folder.
        folder: PathBuf,
        /// The names that were looked for.
        expected: String,
    },
    /// A JSON file is not JSON.
    #[error("{path}: not valid JSON: {source}", path = .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A safetensors file is truncated or malformed.
    #[error("{path}: not a whole safetensors file: {reason} (copy or download it again)", path = .path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the format's reader says.
        reason: String,
    },
    /// A field of a configuration is missing or has the wrong type.
    #[error("{path}: field `{field}`: expected {expected}, found {found}", path = .path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What the reader needs.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A configuration asks for something that is not implemented.
    #[error("{path}: `{field}` = {value} is not supported ({supported})", path = .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// What is supported.
        supported: String,
    },
    /// Tensors of a checkpoint do not fit the architecture.
    #[error("{origin} does not fit its configuration:\n{problems}")]
    Mismatch {
        /// Where the tensors come from.
        origin: String,
        /// One line for each missing, unexpected or misshapen tensor.
        problems: String,
    },
    /// An adapter cannot be put on this model.
    #[error("adapter: {0}")]
    Adapter(String),
    /// What a network is given does not have the shape that it needs.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The argument.
        what: String,
        /// What the network needs.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A model is asked for something that it cannot do with these tokens.
    #[error("{0}")]
    Tokens(String),
    /// A network gives something that is not a number.
    #[error("{what}: not a number (NaN); the weights are damaged")]
    NotANumber {
        /// What is not a number, and where.
        what: String,
    },
    /// What a network is conditioned on, or its noise schedule.
    #[error(transparent)]
    Diffusion(#[from] votive_diffusion::DiffusionError),
    /// A tensor operation failed.
    #[error("in {place}: {source}")]
    Tensor {
        /// What was being computed.
        place: String,
        /// candle's error.
        #[source]
        source: candle_core::Error,
    },
}

impl From<candle_core::Error> for ModelError {
    fn from(source: candle_core::Error) -> Self {
        Self::Tensor { place: "model".to_owned(), source }
    }
}
