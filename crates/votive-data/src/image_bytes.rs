//! The encoded bytes of images, wherever they lie.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use crate::read::EmbeddedImages;
use crate::record::{EmbeddedImage, ImageSource};

/// Reads the bytes of images one at a time. Embedded images are read fastest in the order of their rows.
#[derive(Default)]
pub struct ImageBytes {
    embedded: EmbeddedImages,
}

impl ImageBytes {
    /// A reader that has nothing open yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of an image as it is stored, at most `most` of them.
    ///
    /// # Errors
    /// What went wrong, in words: no such file, a damaged Parquet file, a row without an image, more bytes than that.
    pub fn read(&mut self, image: &ImageSource, most: u64) -> Result<Vec<u8>, String> {
        let bytes = match image {
            ImageSource::File(file) => of_file(file, most).map_err(|error| error.to_string())?,
            ImageSource::Embedded(image) => self.embedded(image, most)?,
        };
        match bytes.len() as u64 {
            0 => Err("it has no bytes".to_owned()),
            length if length > most => Err(format!("it is larger than the limit of {} MiB", most >> 20)),
            _ => Ok(bytes),
        }
    }

    fn embedded(&mut self, image: &EmbeddedImage, most: u64) -> Result<Vec<u8>, String> {
        match (self.embedded.read(image)?, &image.or_file) {
            (Some(bytes), _) => Ok(bytes.data().to_vec()),
            (None, Some(file)) => of_file(file, most)
                .map_err(|error| format!("it is not embedded, and {}: {error}", file.display())),
            (None, None) => Err("the row has no image".to_owned()),
        }
    }
}

/// The bytes of a file, and no more than one beyond `most` of a larger one.
fn of_file(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
