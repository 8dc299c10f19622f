//! Text records: where they stand, and the files of rows that they are read from.

use std::path::{Path, PathBuf};

use super::dataset_info::{self, Entry, Tags};
use super::format::{Format, PAIR_COLUMNS, UNPAIRED_COLUMNS};
use super::gather::{Gathered, Lists};
use super::ranking::PairChoice;
use super::records::Records;
use super::shards::files_of;
use super::table::visit_rows_beside_images;
use crate::error::{DataError, Place, Result};
use crate::pixels::ImageLimits;
use crate::record::{PreferencePair, ScoredList, UnpairedExample};
use crate::report::FaultyRows;
use crate::screening::screen_shown_images;

const WHAT: &str = "preference data";

/// Columns that may hold the bytes of images that a text shows.
const SHOWN_IMAGES: [&str; 2] = ["image", "images"];

/// Text records of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum TextRecords {
    /// Two completions a record.
    Pairs(Records<PreferencePair>),
    /// One completion a record, with a label.
    Unpaired(Records<UnpairedExample>),
}

impl TextRecords {
    /// The records whose images can all be decoded; see [`screen_shown_images`].
    ///
    /// # Errors
    /// As [`screen_shown_images`].
    pub fn screened(self, faulty_rows: FaultyRows, limits: &ImageLimits) -> Result<Self> {
        Ok(match self {
            Self::Pairs(records) => {
                let shown = |pair: &PreferencePair| (pair.row, pair.images.clone());
                Self::Pairs(screen_shown_images(records, shown, faulty_rows, limits)?)
            }
            Self::Unpaired(records) => {
                let shown = |one: &UnpairedExample| (one.row, one.images.clone());
                Self::Unpaired(screen_shown_images(records, shown, faulty_rows, limits)?)
            }
        })
    }
}

/// Where text records stand, and how they are read.
#[derive(Clone, Debug, Default)]
pub struct TextSource {
    /// Files and folders of shards, or one `dataset_info.json`.
    pub paths: Vec<PathBuf>,
    /// The data set meant in a `dataset_info.json`.
    pub name: Option<String>,
    /// The split meant in a folder of several.
    pub split: Option<String>,
    /// The layout of the columns; recognized from the first row if not given.
    pub format: Option<&'static Format>,
    /// The pairs to make of ranked lists.
    pub pairs: PairChoice,
}

impl TextSource {
    /// A file or folder, read in the layout that its columns show.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { paths: vec![path.into()], ..Self::default() }
    }

    /// Reads every row.
    ///
    /// # Errors
    /// If a path cannot be read, is of an unknown kind, or is a folder of several splits; if the columns are of no known
    /// layout; if a row lacks a column, holds the wrong kind of value, or is of another kind than the first.
    pub fn read(&self) -> Result<TextRecords> {
        Ok(self.gather(Lists::Pairs(self.pairs))?.finish())
    }

    /// Reads every row as a list of scored completions; a pair is a list of two.
    ///
    /// # Errors
    /// As [`TextSource::read`]; if a row has one completion with a label.
    pub fn read_lists(&self) -> Result<Records<ScoredList>> {
        Ok(self.gather(Lists::Whole)?.finish_lists())
    }

    fn gather(&self, lists: Lists) -> Result<Gathered> {
        let entry = self.entry()?;
        let (mut paths, mut format, mut tags) = (self.paths.clone(), self.format, Tags::default());
        let mut columns = Vec::new();
        if let Some(Entry { path, formatting, tags: named, columns: renamed }) = entry {
            (paths, tags, columns) = (vec![path], named, renamed);
            format = format.or(Format::find(&formatting));
        }
        let mut gathered = Gathered::new(self.origin(), format, lists, tags);
        for file in files_of(&paths, self.split.as_deref(), WHAT)? {
            let before = gathered.start_file(&file);
            let read = visit_rows_beside_images(&file, WHAT, before, &SHOWN_IMAGES, &mut |mut row| {
                columns.iter().for_each(|(in_file, standard)| row.rename(in_file, standard));
                gathered.add(row)
            })?;
            gathered.end_file(read);
        }
        Ok(gathered)
    }

    /// What the records are called in messages.
    fn origin(&self) -> PathBuf {
        let first = self.paths.first().cloned().unwrap_or_default();
        match &self.name {
            Some(name) => PathBuf::from(format!("{} ({name})", first.display())),
            None => first,
        }
    }

    /// The entry of a `dataset_info.json`, if that is what the path leads to.
    fn entry(&self) -> Result<Option<Entry>> {
        let name = self.name.as_deref();
        let [path] = self.paths.as_slice() else {
            return match (name, self.paths.first()) {
                (Some(_), Some(path)) => Err(without_entries(path)),
                _ => Ok(None),
            };
        };
        let within = path.join(dataset_info::FILE_NAME);
        let is_info = path.file_name().is_some_and(|file| file == dataset_info::FILE_NAME);
        match name {
            _ if is_info => dataset_info::read(path, name).map(Some),
            Some(_) if within.is_file() => dataset_info::read(&within, name).map(Some),
            Some(_) if !path.is_dir() && path.extension().is_some_and(|ending| ending == "json") => {
                dataset_info::read(path, name).map(Some)
            }
            Some(_) => Err(without_entries(path)),
            None => Ok(None),
        }
    }
}

fn without_entries(path: &Path) -> DataError {
    let message =
        format!("a `name` is given, but this is no {} and no folder with one", dataset_info::FILE_NAME);
    DataError::Settings { file: path.to_owned(), message }
}

/// Reads text records from a file or folder, in the layout that its columns show.
///
/// # Errors
/// As [`TextSource::read`].
pub fn read_text(path: &Path) -> Result<TextRecords> {
    TextSource::new(path).read()
}

/// Reads preference pairs.
///
/// # Errors
/// As [`read_text`]; if the rows are completions with labels.
pub fn read_pairs(path: &Path) -> Result<Records<PreferencePair>> {
    match read_text(path)? {
        TextRecords::Pairs(records) => Ok(records),
        TextRecords::Unpaired(records) => Err(other_kind(&records, "chosen", PAIR_COLUMNS)),
    }
}

/// Reads completions with a label.
///
/// # Errors
/// As [`read_text`]; if the rows are pairs.
pub fn read_unpaired(path: &Path) -> Result<Records<UnpairedExample>> {
    match read_text(path)? {
        TextRecords::Unpaired(records) => Ok(records),
        TextRecords::Pairs(records) => Err(other_kind(&records, "completion", UNPAIRED_COLUMNS)),
    }
}

fn other_kind<T>(records: &Records<T>, column: &str, expected: &'static str) -> DataError {
    let (file, row) = records.place(1);
    DataError::MissingField { place: Place::new(file, row, column), expected }
}
