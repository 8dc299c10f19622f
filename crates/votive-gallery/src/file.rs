//! Whole files: read as JSON, written so that a reader sees the old bytes or the new ones and never a part.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::GalleryError;

/// Replaces `path` by `bytes` through a temporary file in the same folder, which is created if needed.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), GalleryError> {
    let failed = |source| GalleryError::Io { action: "write", path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    // The process id keeps two writers from sharing one temporary file.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a left-over temporary file harms nobody.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

/// Reads a text file.
pub(crate) fn read_text(path: &Path) -> Result<String, GalleryError> {
    fs::read_to_string(path).map_err(|source| GalleryError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// Reads a JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, GalleryError> {
    serde_json::from_str(&read_text(path)?)
        .map_err(|source| GalleryError::Json { path: path.to_owned(), source })
}
