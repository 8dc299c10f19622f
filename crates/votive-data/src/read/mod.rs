//! Readers: one file per kind of table yields rows, one file per layout of columns gives them their meaning.

mod dataset_info;
mod dialogue;
mod format;
mod gather;
mod image;
mod json;
mod jsonl;
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
pub use image::{read_image_pairs, screen_image_pairs};
pub use parquet::catches_panics;
pub use prompts::read_captions;
pub use ranking::PairChoice;
pub use records::{Records, Refused};
pub use text::{TextRecords, TextSource, read_pairs, read_text, read_unpaired};

fn extension(file: &Path) -> Option<String> {
    Some(file.extension()?.to_str()?.to_ascii_lowercase())
}
