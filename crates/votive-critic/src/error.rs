//! What ends judging as a whole. What only keeps one question from being answered is an [`Abstention`](crate::Abstention).

use std::path::PathBuf;

/// The result of anything here that can fail.
pub type Result<T, E = CriticError> = std::result::Result<T, E>;

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum CriticError {
    /// A file could not be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb: "read", "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// An image is no image, or larger than is allowed.
    #[error("{name}: {message}")]
    Image {
        /// The file, or what else it is called.
        name: String,
        /// What is wrong, in words.
        message: String,
    },
    /// A template is not what templates are.
    #[error("{name}: {message}")]
    Template {
        /// The file, or the name of a template that comes with the program.
        name: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A store cannot be read or written.
    #[error("{}: {message}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What is wrong, in words.
        message: String,
    },
    /// A judge is asked for what it does not give.
    #[error("{judge} gives {gives}, not {form}")]
    Form {
        /// The judge's name.
        judge: String,
        /// What it gives, in words.
        gives: String,
        /// What was asked.
        form: &'static str,
    },
    /// A judge cannot work at all: refused access, an unknown model, a lost connection that does not come back.
    #[error("{judge}: {message}")]
    Judge {
        /// The judge's name.
        judge: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A setting of a judge or a protocol makes no sense.
    #[error("{0}")]
    Setting(String),
}
