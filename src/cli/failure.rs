//! How a command fails: a message, what to do about it, and an exit code by the kind of trouble.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use votive_critic::CriticError;
use votive_data::DataError;
use votive_diffusion::DiffusionError;
use votive_gallery::GalleryError;
use votive_model::ModelError;
use votive_objective::ObjectiveError;
use votive_playground::PlaygroundError;
use votive_train::TrainError;

/// Result of a command or of a step of one.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// The kinds of trouble, by exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Whoever read the results has left: nothing to report.
    ReaderLeft = 0,
    /// The command line or the recipe.
    Usage = 2,
    /// Data or model files.
    Data = 3,
    /// Memory, disk, or a device.
    Resources = 4,
    /// A number that is not finite, or a gradient that is zero.
    Numbers = 5,
    /// Stopped from outside, everything saved.
    Interrupted = 6,
    /// A defect of the program; what Rust itself exits with after a panic.
    Defect = 101,
}

/// Why a command stops.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure of the given kind.
    pub(crate) fn new(code: Code, message: impl Display) -> Self {
        Self { code, message: message.to_string(), hint: None }
    }

    /// The command line or the recipe is wrong.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Data or model files are wrong.
    pub(crate) fn data(message: impl Display) -> Self {
        Self::new(Code::Data, message)
    }

    /// The machine lacks something.
    pub(crate) fn resources(message: impl Display) -> Self {
        Self::new(Code::Resources, message)
    }

    /// Stopped from outside, with everything saved.
    pub(crate) fn interrupted(message: impl Display) -> Self {
        Self::new(Code::Interrupted, message)
    }

    /// A file cannot be read or written.
    pub(crate) fn file(path: &Path, error: io::Error) -> Self {
        Self::new(code_of_io(&error), format!("{}: {error}", path.display()))
    }

    /// A panic, which was reported already.
    pub(super) fn defect() -> Self {
        Self::new(Code::Defect, "this is a defect of votive; please report it with the lines above")
    }

    /// The kind of trouble.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// What went wrong.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether another command line or other data would have helped.
    pub(crate) fn is_about_input(&self) -> bool {
        matches!(self.code, Code::Usage | Code::Data)
    }

    /// Says where it happened.
    #[must_use]
    pub(crate) fn at(mut self, place: impl Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Adds what the user can do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Writes the message to stderr and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        if self.code != Code::ReaderLeft {
            let mut stderr = io::stderr().lock();
            // If stderr is closed, the exit code still says what happened.
            let _ = writeln!(stderr, "error: {}", self.message);
            if let Some(hint) = self.hint {
                let _ = writeln!(stderr, "  hint: {hint}");
            }
        }
        ExitCode::from(self.code as u8)
    }
}

fn code_of_io(error: &io::Error) -> Code {
    use io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge | ReadOnlyFilesystem | OutOfMemory => Code::Resources,
        _ => Code::Data,
    }
}

fn code_of_tensor(error: &candle_core::Error) -> Code {
    use candle_core::Error::{Context, Cuda, Metal, WithBacktrace, WithPath};
    match error {
        Cuda(_) | Metal(_) => Code::Resources,
        Context { inner, .. } | WithPath { inner, .. } | WithBacktrace { inner, .. } => code_of_tensor(inner),
        // Shapes that don't fit: the model's files and the data disagree.
        _ => Code::Data,
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Self::new(code_of_tensor(&error), error)
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        if let ModelError::Diffusion(error) = error {
            return error.into();
        }
        let code = match &error {
            ModelError::File { source, .. } => code_of_io(source),
            ModelError::Tensor { source, .. } => code_of_tensor(source),
            ModelError::NotANumber { .. } => Code::Numbers,
            _ => Code::Data,
        };
        Self::new(code, error)
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        let code = match &error {
            DataError::Read { source, .. } | DataError::Write { source, .. } => code_of_io(source),
            _ => Code::Data,
        };
        Self::new(code, error)
    }
}

impl From<CriticError> for Failure {
    fn from(error: CriticError) -> Self {
        let code = match &error {
            CriticError::Io { source, .. } => code_of_io(source),
            CriticError::Template { .. } | CriticError::Form { .. } | CriticError::Setting(_) => Code::Usage,
            CriticError::Judge { .. } => Code::Resources,
            CriticError::Image { .. } | CriticError::Store { .. } => Code::Data,
        };
        Self::new(code, error)
    }
}

impl From<DiffusionError> for Failure {
    fn from(error: DiffusionError) -> Self {
        let code = match &error {
            DiffusionError::UnknownSampler { .. }
            | DiffusionError::Steps { .. }
            | DiffusionError::Setting { .. } => Code::Usage,
            DiffusionError::Read { source, .. } => code_of_io(source),
            DiffusionError::Tensor(source) => code_of_tensor(source),
            _ => Code::Data,
        };
        Self::new(code, error)
    }
}

impl From<ObjectiveError> for Failure {
    fn from(error: ObjectiveError) -> Self {
        let code = match &error {
            ObjectiveError::Unknown { .. }
            | ObjectiveError::Options { .. }
            | ObjectiveError::Range { .. } => Code::Usage,
            ObjectiveError::Tensor(source) => code_of_tensor(source),
            _ => Code::Data,
        };
        Self::new(code, error)
    }
}

impl From<GalleryError> for Failure {
    fn from(error: GalleryError) -> Self {
        let code = match &error {
            GalleryError::Io { source, .. } => code_of_io(source),
            GalleryError::NotFinite { .. } => Code::Numbers,
            _ => Code::Data,
        };
        Self::new(code, error)
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        let code = match error {
            // The parts keep their own kinds.
            TrainError::Data(error) => return error.into(),
            TrainError::Model(error) => return error.into(),
            TrainError::Objective(error) => return error.into(),
            TrainError::Diffusion(error) => return error.into(),
            TrainError::Tensor(error) => return error.into(),
            TrainError::Recipe { .. } | TrainError::Plan(_) | TrainError::RunDirectory { .. } => Code::Usage,
            TrainError::ReferenceFile { .. } | TrainError::Encoded { .. } | TrainError::Checkpoint { .. } => {
                Code::Data
            }
            TrainError::File { ref source, .. } => code_of_io(source),
            TrainError::NotFinite { .. }
            | TrainError::NoGradient { .. }
            | TrainError::Undecided { .. }
            | TrainError::StartMargin { .. } => Code::Numbers,
            TrainError::Interrupted { .. } => Code::Interrupted,
        };
        Self::new(code, error)
    }
}

impl From<PlaygroundError> for Failure {
    fn from(error: PlaygroundError) -> Self {
        Self::data(error)
    }
}
