//! What can be wrong with data, with the place where it is wrong.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::report::RowProblem;

/// A result whose error is a [`DataError`].
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// A field of a row of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file that holds the row.
    pub file: PathBuf,
    /// Number of the row, counted from 1.
    pub row: usize,
    /// The column, or a path into it such as `chosen[1].role`.
    pub field: String,
}

impl Place {
    /// The place of `field` in `row` of `file`.
    pub fn new(file: &Path, row: usize, field: impl Into<String>) -> Self {
        Self { file: file.to_owned(), row, field: field.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: row {}, field `{}`", self.file.display(), self.row, self.field)
    }
}

/// Why data cannot be used. Every message names the file, and the row and field where there is one.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file could not be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written; nothing was left under its name.
    #[error("{}: cannot be written: {source}; an earlier file of that name is unchanged", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// The kind of file is not one that the reader knows.
    #[error("{}: {found} is not a supported kind of {what}; supported: {supported}", path.display())]
    UnsupportedFormat {
        /// The file or folder.
        path: PathBuf,
        /// What was to be read.
        what: &'static str,
        /// What the path is.
        found: String,
        /// The kinds that can be read.
        supported: &'static str,
    },
    /// A row is not a JSON object.
    #[error("{}: row {row}, column {column}: not a JSON object: {message}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// The row, counted from 1.
        row: usize,
        /// The column in the line, counted from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A settings file of a hub folder is not what it should be.
    #[error("{}: {message}", file.display())]
    Settings {
        /// The file.
        file: PathBuf,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// The columns of the first row are of no known layout.
    #[error(
        "{}: row {row}: the columns are of no known format; found: {columns}; known formats: {known}",
        file.display()
    )]
    UnknownColumns {
        /// The file.
        file: PathBuf,
        /// The row, counted from 1.
        row: usize,
        /// The columns found.
        columns: String,
        /// The formats that there are.
        known: String,
    },
    /// Rows of one data set are of different kinds.
    #[error(
        "{}: row {row}: {found}, but {first}; a data set holds rows of one kind: split it",
        file.display()
    )]
    MixedRows {
        /// The file.
        file: PathBuf,
        /// The row, counted from 1.
        row: usize,
        /// The kind of this row.
        found: String,
        /// The first row and its file, and its kind.
        first: String,
    },
    /// A Parquet file is damaged.
    #[error(
        "{}: after row {rows}: not a whole Parquet file: {message}; it may have been cut short: copy it again",
        file.display()
    )]
    Parquet {
        /// The file.
        file: PathBuf,
        /// Rows that could be read.
        rows: usize,
        /// What the decoder says.
        message: String,
    },
    /// A record cannot be written in a layout.
    #[error("{}: row {row}: {found} cannot be written as {layout}; {advice}", file.display())]
    NotWritable {
        /// The file.
        file: PathBuf,
        /// The row, counted from 1.
        row: usize,
        /// What the record is.
        found: &'static str,
        /// The layout.
        layout: &'static str,
        /// What can be done.
        advice: &'static str,
    },
    /// A row lacks a column.
    #[error("{place} is missing; {expected}")]
    MissingField {
        /// Where the field should be.
        place: Place,
        /// The columns that a row needs.
        expected: &'static str,
    },
    /// A field holds the wrong kind of value.
    #[error("{place}: expected {expected}, found {found}")]
    WrongField {
        /// Where.
        place: Place,
        /// The kind of value that belongs there.
        expected: &'static str,
        /// The kind of value that was found.
        found: String,
    },
    /// A row is well formed but cannot be trained on, and the policy is to stop.
    #[error("{}: row {row}: {problem}{detail}; {}", file.display(), problem.advice())]
    Row {
        /// The file.
        file: PathBuf,
        /// The row, counted from 1.
        row: usize,
        /// What is wrong with it.
        problem: RowProblem,
        /// The numbers behind it, ready to follow the problem; may be empty.
        detail: String,
    },
    /// Something failed while a row was being processed.
    #[error("{}: row {row}: {source}", file.display())]
    InRow {
        /// The file.
        file: PathBuf,
        /// The row, counted from 1.
        row: usize,
        /// The failure.
        #[source]
        source: Box<DataError>,
    },
    /// No row is left.
    #[error("{}: no row to train on: {read} read, {dropped} dropped{reasons}", file.display())]
    NoRows {
        /// The file.
        file: PathBuf,
        /// Rows read.
        read: usize,
        /// Rows dropped.
        dropped: usize,
        /// The reasons with their counts, ready to follow the sentence; may be empty.
        reasons: String,
    },
    /// The folder has no tokenizer that can be loaded.
    #[error("{}: no tokenizer found; looked for {looked_for}", folder.display())]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
        /// The files that would do.
        looked_for: &'static str,
    },
    /// The tokenizer failed.
    #[error("{}: the tokenizer failed: {message}", folder.display())]
    Tokenizer {
        /// The tokenizer's folder.
        folder: PathBuf,
        /// What it says.
        message: String,
    },
    /// llama.cpp cannot make the same tokens.
    #[error("{}: llama.cpp has no tokenizer like this one: {what}", folder.display())]
    NotInLlamaCpp {
        /// The tokenizer's folder.
        folder: PathBuf,
        /// What is different.
        what: String,
    },
    /// The tokenizer has no such special token.
    #[error("{}: the tokenizer has no `{token}`; name it in tokenizer_config.json", folder.display())]
    NoSpecialToken {
        /// The tokenizer's folder.
        folder: PathBuf,
        /// `eos_token`, `pad_token`, ….
        token: &'static str,
    },
    /// The tokenizer can produce ids that the model has no embedding for.
    #[error(
        "{}: the tokenizer has {tokenizer_size} tokens (the last is `{last_token}`), but the model's vocabulary has \
         {model_size}; use the tokenizer that belongs to the model",
        folder.display()
    )]
    Vocabulary {
        /// The tokenizer's folder.
        folder: PathBuf,
        /// Largest id of the tokenizer plus one.
        tokenizer_size: usize,
        /// The token with the largest id.
        last_token: String,
        /// Rows of the model's embedding.
        model_size: usize,
    },
    /// Conversational data, but the tokenizer has no chat template.
    #[error(
        "{}: the data is conversational, but the tokenizer has no chat template; add chat_template.jinja, or use \
         plain strings",
        folder.display()
    )]
    NoChatTemplate {
        /// The tokenizer's folder.
        folder: PathBuf,
    },
    /// A chat template does not compile, or failed on a conversation.
    #[error("{}: line {line}: {message}", origin.display())]
    Template {
        /// The file the template stands in.
        origin: PathBuf,
        /// Line of the template, counted from 1.
        line: usize,
        /// What went wrong.
        message: String,
    },
    /// A prompt has more or fewer places for images than it is to show.
    #[error("the prompt has {places} places for images, and is to show {images}")]
    ImagePlaces {
        /// Image tokens in the prompt.
        places: usize,
        /// Images.
        images: usize,
    },
    /// Images for a model that sees none.
    #[error("{}: a language model that sees no images", folder.display())]
    NoVision {
        /// The model.
        folder: PathBuf,
    },
    /// An image cannot be decoded.
    #[error("{place}: {image} is not an image that can be read: {message}")]
    Image {
        /// The row that names the image.
        place: Place,
        /// Where the image lies.
        image: String,
        /// What the decoder says.
        message: String,
    },
    /// An image is larger than the limits allow.
    #[error(
        "{place}: {image} is {width}x{height} pixels, more than the limit of {max_side} a side; scale it down"
    )]
    ImageTooLarge {
        /// The row that names the image.
        place: Place,
        /// Where the image lies.
        image: String,
        /// Width that the header states.
        width: u32,
        /// Height that the header states.
        height: u32,
        /// The limit.
        max_side: u32,
    },
}

impl DataError {
    /// The same error, said of a row of a file.
    #[must_use]
    pub fn in_row(self, file: &Path, row: usize) -> Self {
        Self::InRow { file: file.to_owned(), row, source: Box::new(self) }
    }

    pub(crate) fn read(file: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::Read { file: file.to_owned(), source }
    }
}
