//! Image pairs: a table with the columns `prompt`, `chosen`, `rejected` (paths relative to the table), or a folder
//! with `chosen/` and `rejected/` whose images have equal names and whose captions are `.txt` files beside the chosen.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::records::Records;
use super::row::Row;
use super::{extension, table};
use crate::error::{DataError, Place, Result};
use crate::record::ImagePair;
use crate::report::{DataReport, FaultyRows, RowProblem};

const WHAT: &str = "image pairs";
const COLUMNS: &str = "an image pair has the columns `prompt`, `chosen` and `rejected`; the last two are paths \
                       relative to the file";
const FOLDERS: &str = "a .jsonl file, or a folder that holds the folders `chosen` and `rejected`";
const IMAGE_EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Reads image pairs from a table or from two folders. The images themselves are not opened.
///
/// # Errors
/// If the path cannot be read or is neither; if a row lacks a column; if an image of one folder has no partner in the
/// other, or no caption.
pub fn read_image_pairs(path: &Path) -> Result<Records<ImagePair>> {
    if !path.is_dir() {
        let folder = path.parent().unwrap_or(Path::new(""));
        return table_of_pairs(path, folder);
    }
    if !path.join("chosen").is_dir() || !path.join("rejected").is_dir() {
        let found = "a folder without `chosen` and `rejected`".to_owned();
        return Err(DataError::UnsupportedFormat {
            path: path.to_owned(),
            what: WHAT,
            found,
            supported: FOLDERS,
        });
    }
    let names = image_names(&path.join("chosen"))?;
    let rejected = image_names(&path.join("rejected"))?;
    if let Some(name) = names.symmetric_difference(&rejected).next() {
        let (with, without) =
            if names.contains(name) { ("chosen", "rejected") } else { ("rejected", "chosen") };
        let message =
            format!("`{with}/{name}` has no partner `{without}/{name}`; images of a pair have the same name");
        return Err(DataError::Settings { file: path.to_owned(), message });
    }
    let pairs = names.iter().enumerate().map(|(idx, name)| folder_pair(path, idx + 1, name));
    Ok(Records::new(path, pairs.collect::<Result<_>>()?))
}

fn table_of_pairs(path: &Path, folder: &Path) -> Result<Records<ImagePair>> {
    let mut records = Records::new(path, Vec::new());
    table::visit_rows(path, WHAT, 0, &mut |mut row| {
        records.rows.push(pair(folder, &mut row)?);
        for name in row.unread_columns() {
            *records.ignored_columns.entry(name).or_default() += 1;
        }
        Ok(())
    })?;
    records.rows_read = records.rows.len();
    Ok(records)
}

fn pair(folder: &Path, row: &mut Row) -> Result<ImagePair> {
    Ok(ImagePair {
        row: row.number,
        prompt: row.string("prompt", COLUMNS)?,
        chosen: folder.join(row.string("chosen", COLUMNS)?),
        rejected: folder.join(row.string("rejected", COLUMNS)?),
    })
}

/// Names of the images in a folder, sorted.
fn image_names(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(DataError::read(folder))? {
        let path = entry.map_err(DataError::read(folder))?.path();
        let is_image = extension(&path).is_some_and(|found| IMAGE_EXTENSIONS.contains(&found.as_str()));
        if let (true, Some(name)) = (is_image, path.file_name().and_then(|name| name.to_str())) {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

fn folder_pair(folder: &Path, row: usize, name: &str) -> Result<ImagePair> {
    let chosen = folder.join("chosen").join(name);
    let caption = chosen.with_extension("txt");
    let prompt = fs::read_to_string(&caption).map_err(DataError::read(&caption))?.trim().to_owned();
    Ok(ImagePair { row, prompt, chosen, rejected: folder.join("rejected").join(name) })
}

/// Keeps the pairs whose two files exist and differ.
///
/// # Errors
/// If an image file cannot be opened, naming the row and field; if the images of a pair are the same and the policy is
/// to stop; if no pair is left.
pub fn screen_image_pairs(
    records: Records<ImagePair>,
    faulty_rows: FaultyRows,
) -> Result<(Vec<ImagePair>, DataReport)> {
    let mut report = DataReport::of(&records);
    let Records { file, rows, .. } = records;
    let mut kept = Vec::with_capacity(rows.len());
    for pair in rows {
        if !same_bytes(&file, &pair)? {
            kept.push(pair);
        } else if faulty_rows == FaultyRows::Drop {
            report.drop_row(RowProblem::ChosenEqualsRejected, pair.row);
        } else {
            let detail = format!(" ({} and {})", pair.chosen.display(), pair.rejected.display());
            return Err(DataError::Row {
                file,
                row: pair.row,
                problem: RowProblem::ChosenEqualsRejected,
                detail,
            });
        }
    }
    report.rows_kept = kept.len();
    report.require_rows()?;
    Ok((kept, report))
}

fn same_bytes(file: &Path, pair: &ImagePair) -> Result<bool> {
    let unreadable = |field: &str, image: &PathBuf, source: std::io::Error| DataError::Image {
        place: Place::new(file, pair.row, field),
        image: image.clone(),
        message: source.to_string(),
    };
    let size = |field: &str, image: &PathBuf| {
        fs::metadata(image).map(|found| found.len()).map_err(|source| unreadable(field, image, source))
    };
    if size("chosen", &pair.chosen)? != size("rejected", &pair.rejected)? {
        return Ok(false);
    }
    let bytes =
        |field: &str, image: &PathBuf| fs::read(image).map_err(|source| unreadable(field, image, source));
    Ok(pair.chosen == pair.rejected || bytes("chosen", &pair.chosen)? == bytes("rejected", &pair.rejected)?)
}
