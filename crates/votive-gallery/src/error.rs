//! What can go wrong while a gallery is read or written.

use std::path::PathBuf;

/// Every failure of this crate. Each variant carries the file or field that is to be mended.
#[derive(Debug, thiserror::Error)]
pub enum GalleryError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb: "read", "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file is not the JSON that its name promises; the source gives line and column.
    #[error("{} is not valid: {source}; write the file anew with the command that made it", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's answer, with line, column and field.
        source: serde_json::Error,
    },
    /// A line of a run's log is not JSON with a `step`.
    #[error("{}, line {line} is not valid: {source}; remove the line or resume the run", path.display())]
    LogLine {
        /// The log.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The parser's answer.
        source: serde_json::Error,
    },
    /// A report was written by another version of this program.
    #[error(
        "{}: schema_version is {found}, expected {expected}; remake the report or use the program that wrote it",
        path.display()
    )]
    SchemaVersion {
        /// The report.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The version that this crate reads.
        expected: u32,
    },
    /// A number is NaN or infinite, which JSON cannot hold and a chart cannot show.
    #[error("{field} is {found}, expected a finite number; look for the step or prompt that produced it")]
    NotFinite {
        /// Path of the field in the report, such as `image.entries[3].after.score`.
        field: String,
        /// NaN or ±infinity.
        found: f64,
    },
    /// An image path leaves the gallery's folder, which would break when the folder is moved or shared.
    #[error("{field} is `{found}`, expected a relative path below the gallery with `/` between its parts")]
    ImagePath {
        /// Path of the field in the report or manifest.
        field: String,
        /// The offending path.
        found: String,
    },
    /// A folder holds nothing that a gallery could show.
    #[error(
        "{} holds no {}, no {} and no {}/step-*/{}; name the output folder of a run or of a demo",
        dir.display(), crate::REPORT_FILE, crate::METRICS_FILE, crate::SAMPLES_DIR, crate::SAMPLES_FILE
    )]
    NothingToShow {
        /// The folder.
        dir: PathBuf,
    },
}
