//! Writers: JSON lines under their final name only when they are complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::convert::{pair_columns, with_images, with_numbers};
use crate::error::{DataError, Result};
use crate::record::{ImagePair, ImageSource, PreferencePair};

/// Writes one row a line. The rows go to a file beside `file`, which takes its name once it is on disk.
///
/// A device or a pipe is written to as it is, and a link leads to what is written: neither is replaced.
///
/// # Errors
/// If writing fails; an earlier file of that name is then unchanged.
pub fn write_jsonl<T: Serialize>(file: &Path, rows: impl IntoIterator<Item = T>) -> Result<()> {
    let written = match replaceable(file) {
        Some(target) => replace(&target, rows),
        None => File::create(file).and_then(|found| write_rows(found, rows)).map(drop),
    };
    written.map_err(|source| DataError::Write { file: file.to_owned(), source })
}

/// What a new file may take the place of: nothing yet, or a regular file, at the end of a link if `path` is one.
fn replaceable(path: &Path) -> Option<PathBuf> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => fs::canonicalize(path).ok().filter(|target| target.is_file()),
        _ => Some(path.to_owned()),
    }
}

fn replace<T: Serialize>(file: &Path, rows: impl IntoIterator<Item = T>) -> io::Result<()> {
    let partial = partial_name(file);
    let write = || {
        write_rows(File::create(&partial)?, rows)?.sync_all()?;
        fs::rename(&partial, file)
    };
    write().inspect_err(|_| {
        // The rows are lost either way; what is left of them would only be in the way.
        let _ = fs::remove_file(&partial);
    })
}

fn partial_name(file: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    file.with_file_name(name)
}

fn write_rows<T: Serialize>(file: File, rows: impl IntoIterator<Item = T>) -> io::Result<File> {
    let mut writer = BufWriter::new(file);
    for row in rows {
        serde_json::to_writer(&mut writer, &row)?;
        writer.write_all(b"\n")?;
    }
    writer.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Writes preference pairs in the columns that [`read_pairs`](crate::read_pairs) reads.
///
/// # Errors
/// As [`write_jsonl`]; if a pair shows an image that has no file of its own.
pub fn write_text_pairs(file: &Path, pairs: &[PreferencePair]) -> Result<()> {
    let row = |pair: &PreferencePair| {
        let row = with_numbers(pair_columns(&pair.text), pair.numbers, true);
        with_images(row, &pair.images).map_err(|(found, advice)| {
            let (file, row, layout) = (file.to_owned(), pair.row, "trl");
            DataError::NotWritable { file, row, found, layout, advice }
        })
    };
    write_jsonl(file, pairs.iter().map(row).collect::<Result<Vec<_>>>()?)
}

/// Writes image pairs in the layout `image-pairs` of [`IMAGE_FORMATS`](crate::IMAGE_FORMATS); images below the file's
/// folder are named relative to it.
///
/// # Errors
/// As [`write_jsonl`]; if an image has no file of its own.
pub fn write_image_pairs(file: &Path, pairs: &[ImagePair]) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let rows: Vec<_> = pairs.iter().map(|pair| image_columns(file, folder, pair)).collect::<Result<_>>()?;
    write_jsonl(file, rows)
}

fn image_columns(file: &Path, folder: &Path, pair: &ImagePair) -> Result<Value> {
    let mut row = Map::new();
    row.insert("prompt".to_owned(), pair.prompt.as_str().into());
    for (side, image) in pair.sides() {
        let ImageSource::File(path) = image else {
            let (file, found, layout) = (file.to_owned(), "an embedded image", "image-pairs");
            let advice = "write the image to a file first";
            return Err(DataError::NotWritable { file, row: pair.row, found, layout, advice });
        };
        let path = path.strip_prefix(folder).unwrap_or(path);
        row.insert(side.to_owned(), path.to_string_lossy().into());
    }
    for (column, model) in ["chosen_model", "rejected_model"].into_iter().zip(&pair.origin.models) {
        if let Some(model) = model {
            row.insert(column.to_owned(), (**model).into());
        }
    }
    Ok(with_numbers(row.into(), pair.numbers, true))
}
