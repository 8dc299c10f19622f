//! Readers: one file per format yields rows, one file per kind of record gives them their meaning.

mod image;
mod jsonl;
mod row;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use image::{read_image_pairs, screen_image_pairs};
pub use text::{TextRecords, read_pairs, read_text, read_unpaired};

use crate::error::{DataError, Result};
use row::Row;

/// The records of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Records<T> {
    /// Where they were read.
    pub file: PathBuf,
    /// The records, in the order of the file.
    pub rows: Vec<T>,
    /// Columns that no reader uses, with the number of rows that have them.
    pub ignored_columns: BTreeMap<String, usize>,
}

impl<T> Records<T> {
    /// Records made in this process; `file` stands for their origin in messages.
    pub fn new(file: impl Into<PathBuf>, rows: Vec<T>) -> Self {
        Self { file: file.into(), rows, ignored_columns: BTreeMap::new() }
    }
}

/// The rows of a table, whatever its format.
fn read_rows(file: &Path, what: &'static str) -> Result<Vec<Row>> {
    match extension(file).as_deref() {
        Some("jsonl" | "ndjson") => jsonl::read(file),
        other => Err(DataError::UnsupportedFormat {
            path: file.to_owned(),
            what,
            found: match other {
                _ if file.is_dir() => "a folder".to_owned(),
                Some(extension) => format!("`.{extension}`"),
                None => "a file without an extension".to_owned(),
            },
            supported: ".jsonl, .ndjson (one JSON object a line)",
        }),
    }
}

fn extension(file: &Path) -> Option<String> {
    Some(file.extension()?.to_str()?.to_ascii_lowercase())
}

/// Gives every row its meaning and counts the columns that are left over.
fn interpret<T>(
    file: &Path,
    rows: Vec<Row>,
    mut meaning: impl FnMut(&mut Row) -> Result<T>,
) -> Result<Records<T>> {
    let mut records = Records::new(file, Vec::with_capacity(rows.len()));
    for mut row in rows {
        records.rows.push(meaning(&mut row)?);
        for name in row.unread_columns() {
            *records.ignored_columns.entry(name).or_default() += 1;
        }
    }
    Ok(records)
}
