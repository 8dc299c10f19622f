//! Tables: a file yields rows one after another, whatever its kind, so that no file is held as a whole.

use std::path::Path;

use super::row::Row;
use super::{extension, json, jsonl, parquet};
use crate::error::{DataError, Result};

/// Endings of the files that hold rows.
pub(super) const EXTENSIONS: [&str; 4] = ["jsonl", "ndjson", "json", "parquet"];
pub(super) const SUPPORTED: &str =
    ".jsonl and .ndjson (one JSON object a line), .json (a list of objects), .parquet, or a folder of them";

/// Takes a row, and stops the reading if it fails.
pub(super) type Visit<'a> = dyn FnMut(Row) -> Result<()> + 'a;

/// Visits the rows of a file in order and returns the number that the next file's rows follow; `before` rows stand in
/// the files before this one.
pub(super) fn visit_rows(file: &Path, what: &'static str, before: usize, visit: &mut Visit) -> Result<usize> {
    visit_rows_beside_images(file, what, before, &[], visit)
}

/// The same, but for the bytes of images in columns that are called as one of `images`.
pub(super) fn visit_rows_beside_images(
    file: &Path,
    what: &'static str,
    before: usize,
    images: &[&str],
    visit: &mut Visit,
) -> Result<usize> {
    match extension(file).as_deref() {
        Some("jsonl" | "ndjson") => jsonl::visit(file, before, visit),
        Some("json") => json::visit(file, before, visit),
        Some("parquet") => parquet::visit(file, before, images, visit),
        other => Err(DataError::UnsupportedFormat {
            path: file.to_owned(),
            what,
            found: match other {
                _ if file.is_dir() => "a folder".to_owned(),
                Some(extension) => format!("`.{extension}`"),
                None => "a file without an extension".to_owned(),
            },
            supported: SUPPORTED,
        }),
    }
}
