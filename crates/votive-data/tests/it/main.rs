//! Tests of votive-data through its public interface.
#![allow(clippy::unwrap_used, clippy::panic)]

mod converting;
mod dataset_info;
mod formats;
mod golden;
mod image_formats;
mod images;
mod layouts;
mod reading;
mod streaming;
mod tables;
mod tokenizer_folder;
mod tokenizing;
mod writing;

use std::path::{Path, PathBuf};

/// A folder that vanishes with the test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, content).unwrap();
        file
    }
}

/// The files that `tools/parity` writes with the Python libraries.
fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

/// Every part is in the message.
#[track_caller]
fn check_message(error: impl std::fmt::Display, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}
