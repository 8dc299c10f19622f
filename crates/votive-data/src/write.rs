//! Writers: JSON lines under their final name only when they are complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{DataError, Result};
use crate::record::{ChatOptions, ImagePair, PairText, PreferencePair};

/// Writes one row a line. The rows go to a file beside `file`, which takes its name once it is on disk.
///
/// # Errors
/// If writing fails; an earlier file of that name is then unchanged.
pub fn write_jsonl<T: Serialize>(file: &Path, rows: impl IntoIterator<Item = T>) -> Result<()> {
    let partial = partial_name(file);
    write_and_sync(&partial, rows).and_then(|()| fs::rename(&partial, file)).map_err(|source| {
        // The rows are lost either way; what is left of them would only be in the way.
        let _ = fs::remove_file(&partial);
        DataError::Write { file: file.to_owned(), source }
    })
}

fn partial_name(file: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    file.with_file_name(name)
}

fn write_and_sync<T: Serialize>(file: &Path, rows: impl IntoIterator<Item = T>) -> io::Result<()> {
    let mut writer = BufWriter::new(File::create(file)?);
    for row in rows {
        serde_json::to_writer(&mut writer, &row)?;
        writer.write_all(b"\n")?;
    }
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Writes preference pairs in the columns that [`read_pairs`](crate::read_pairs) reads.
///
/// # Errors
/// As [`write_jsonl`].
pub fn write_text_pairs(file: &Path, pairs: &[PreferencePair]) -> Result<()> {
    write_jsonl(file, pairs.iter().map(|pair| columns(&pair.text)))
}

fn columns(text: &PairText) -> Value {
    match text {
        PairText::Plain { prompt, chosen, rejected } => {
            json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        }
        PairText::Implicit { chosen, rejected } => json!({"chosen": chosen, "rejected": rejected}),
        PairText::Chat { prompt, chosen, rejected, options: ChatOptions { tools, variables } } => {
            let mut columns = json!({"prompt": prompt, "chosen": chosen, "rejected": rejected});
            if let Some(tools) = tools {
                columns["tools"] = tools.clone();
            }
            if !variables.is_empty() {
                columns["chat_template_kwargs"] = variables.clone().into();
            }
            columns
        }
    }
}

/// Writes image pairs in the columns that [`read_image_pairs`](crate::read_image_pairs) reads; images below the
/// file's folder are named relative to it.
///
/// # Errors
/// As [`write_jsonl`].
pub fn write_image_pairs(file: &Path, pairs: &[ImagePair]) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let relative = |image: &Path| image.strip_prefix(folder).unwrap_or(image).to_string_lossy().into_owned();
    let row = |pair: &ImagePair| json!({"prompt": pair.prompt, "chosen": relative(&pair.chosen), "rejected": relative(&pair.rejected)});
    write_jsonl(file, pairs.iter().map(row))
}
