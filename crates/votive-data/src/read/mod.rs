//! Readers: one file per kind of table yields rows, one file per layout of columns gives them their meaning.

mod dataset_info;
mod dialogue;
mod format;
mod gather;
mod image;
mod image_column;
mod image_folders;
mod image_format;
mod json;
mod jsonl;
mod kind;
mod pairing;
mod parquet;
mod prompts;
mod ranking;
mod records;
mod row;
mod shards;
mod table;
mod text;

use std::path::Path;

pub use format::{FORMATS, Format};
pub use image::{ImageDataSource, PairWeights, Ties};
pub(crate) use image_column::EmbeddedImages;
pub use image_format::{IMAGE_FORMATS, ImageFormat};
pub use kind::holds_images;
pub use parquet::catches_panics;
pub use prompts::read_captions;
pub use ranking::PairChoice;
pub use records::{Records, Refused};
pub use text::{TextRecords, TextSource, read_pairs, read_text, read_unpaired};

/// Endings of image files.
const IMAGE_ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

fn extension(file: &Path) -> Option<String> {
    Some(file.extension()?.to_str()?.to_ascii_lowercase())
}
