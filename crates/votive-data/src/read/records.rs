//! The records of a data set, with where each came from and what was left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::report::RowProblem;

/// The records of one data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Records<T> {
    /// Where they were read: a file, or what stands for several.
    pub file: PathBuf,
    /// The records, in the order of the files.
    pub rows: Vec<T>,
    /// Rows that the files hold; a ranked list makes several records of one row, a tie none.
    pub rows_read: usize,
    /// Rows, or pairs of a row, that give no record.
    pub refused: Vec<Refused>,
    /// Columns that no reader uses, with the number of rows that have them.
    pub ignored_columns: BTreeMap<String, usize>,
    /// Name of the layout that they were read in; none if there was no row.
    pub format: Option<&'static str>,
    /// The files, each with the number of rows before it.
    pub(super) shards: Vec<(PathBuf, usize)>,
}

/// A row, or a pair of a row, that gives no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Number of the row.
    pub row: usize,
    /// What is wrong with it.
    pub problem: RowProblem,
    /// What else is to be said, ready to follow the problem; may be empty.
    pub detail: &'static str,
}

impl<T> Records<T> {
    /// Records made in this process; `file` stands for their origin in messages.
    pub fn new(file: impl Into<PathBuf>, rows: Vec<T>) -> Self {
        Self {
            file: file.into(),
            rows_read: rows.len(),
            rows,
            refused: Vec::new(),
            ignored_columns: BTreeMap::new(),
            format: None,
            shards: Vec::new(),
        }
    }

    /// The file that holds a row, and the row's number there; both are counted from 1.
    #[must_use]
    pub fn place(&self, row: usize) -> (&Path, usize) {
        let shard = self.shards.iter().rev().find(|(_, before)| *before < row);
        shard.map_or((&self.file, row), |(file, before)| (file, row - before))
    }

    /// The same, with other records of the same rows.
    pub(crate) fn with_rows<U>(self, rows: Vec<U>) -> Records<U> {
        let Self { file, rows_read, refused, ignored_columns, format, shards, rows: _ } = self;
        Records { file, rows, rows_read, refused, ignored_columns, format, shards }
    }
}
