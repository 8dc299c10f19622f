//! What can go wrong with an objective.

/// Result of this crate.
pub type Result<T, E = ObjectiveError> = std::result::Result<T, E>;

/// An error about an objective's options or inputs.
#[derive(Debug, thiserror::Error)]
pub enum ObjectiveError {
    /// No method has this id.
    #[error("unknown objective `{id}`; known: {known}")]
    Unknown {
        /// What was asked for.
        id: String,
        /// All ids.
        known: String,
    },
    /// An option has a wrong type, is unknown, or is missing.
    #[error("objective `{id}`: {reason}")]
    Options {
        /// The method.
        id: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An option is out of range.
    #[error("objective `{id}`: option `{option}` = {value} must be {range}")]
    Range {
        /// The method.
        id: &'static str,
        /// The option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// A wrapper makes no sense around an objective.
    #[error("the wrapper `{wrapper}` makes no sense around this objective: {reason}")]
    Refused {
        /// The wrapper.
        wrapper: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// An input has a value that cannot be.
    #[error("input `{name}`: found {found}, but it must be {what}")]
    Input {
        /// The input.
        name: &'static str,
        /// The value.
        found: f64,
        /// What it must be.
        what: &'static str,
    },
    /// An input that the method declared was not given.
    #[error("missing input `{0}`")]
    Missing(&'static str),
    /// Inputs differ in shape.
    #[error("input `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The input.
        name: &'static str,
        /// Shape of the policy's log-probabilities.
        expected: Vec<usize>,
        /// Shape of this input.
        found: Vec<usize>,
    },
    /// A tensor operation failed.
    #[error("objective: {0}")]
    Tensor(#[from] candle_core::Error),
}
