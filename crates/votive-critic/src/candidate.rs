//! What is judged: a text or an image.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use image::{ImageFormat, ImageReader, Limits, RgbImage};
use sha2::{Digest, Sha256};

use crate::error::{CriticError, Result};

/// Longest side of an image, pixels.
const MAX_SIDE: u32 = 16_384;
/// Most bytes of a file, and of its pixels.
const MAX_BYTES: u64 = 512 << 20;

/// A text or an image that is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// Words.
    Text(String),
    /// An image as it is stored.
    Image(Picture),
}

impl Candidate {
    /// SHA-256 of the words or of the stored image, hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        match self {
            Self::Text(text) => sha256(text.as_bytes()),
            Self::Image(picture) => sha256(&picture.bytes),
        }
    }
}

/// SHA-256, hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The kind of an image's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `image/png`
    Png,
    /// `image/jpeg`
    Jpeg,
    /// `image/webp`
    Webp,
}

impl MediaType {
    /// The type as HTTP and data URIs spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    fn format(self) -> ImageFormat {
        match self {
            Self::Png => ImageFormat::Png,
            Self::Jpeg => ImageFormat::Jpeg,
            Self::Webp => ImageFormat::WebP,
        }
    }
}

/// An image as it is stored; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    bytes: Arc<[u8]>,
    media: MediaType,
}

impl Picture {
    /// An image of stored bytes, whose pixels are decoded once to see that they can be; `name` is for messages.
    ///
    /// # Errors
    /// If they are no PNG, JPEG or WebP image, damaged, or more than 16 384 pixels a side or 512 MiB.
    pub fn new(bytes: Vec<u8>, name: &str) -> Result<Self> {
        let wrong = |message: String| CriticError::Image { name: name.to_owned(), message };
        let media = match image::guess_format(&bytes) {
            Ok(ImageFormat::Png) => MediaType::Png,
            Ok(ImageFormat::Jpeg) => MediaType::Jpeg,
            Ok(ImageFormat::WebP) => MediaType::Webp,
            _ => return Err(wrong("not a PNG, JPEG or WebP image".to_owned())),
        };
        let picture = Self { bytes: bytes.into(), media };
        picture.decode().map_err(|error| wrong(error.to_string()))?;
        Ok(picture)
    }

    /// The image of a file.
    ///
    /// # Errors
    /// If it cannot be read; as [`Picture::new`].
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |source| CriticError::Io { action: "read", path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
            let message = format!("larger than {} MiB", MAX_BYTES >> 20);
            return Err(CriticError::Image { name: path.display().to_string(), message });
        }
        Self::new(std::fs::read(path).map_err(failed)?, &path.display().to_string())
    }

    /// An image of pixels, stored as PNG.
    ///
    /// # Errors
    /// If the pixels cannot be stored.
    pub fn of_pixels(pixels: &RgbImage) -> Result<Self> {
        let mut bytes = Cursor::new(Vec::new());
        pixels.write_to(&mut bytes, ImageFormat::Png).map_err(|error| CriticError::Image {
            name: "an image".to_owned(),
            message: error.to_string(),
        })?;
        Ok(Self { bytes: bytes.into_inner().into(), media: MediaType::Png })
    }

    /// The image as it is stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The kind of its bytes.
    #[must_use]
    pub fn media_type(&self) -> MediaType {
        self.media
    }

    /// The pixels; transparency is dropped.
    ///
    /// # Errors
    /// If the bytes are damaged, or the image is larger than is allowed.
    pub fn decode(&self) -> Result<RgbImage, image::ImageError> {
        let mut reader = ImageReader::with_format(Cursor::new(&*self.bytes), self.media.format());
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        limits.max_alloc = Some(MAX_BYTES);
        reader.limits(limits);
        Ok(reader.decode()?.into_rgb8())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_what_was_stored() {
        let pixels = RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let picture = Picture::of_pixels(&pixels).unwrap();
        assert_eq!(picture.decode().unwrap(), pixels);
        let read_again = Picture::new(picture.bytes().to_vec(), "x").unwrap();
        assert_eq!((read_again.media_type(), &read_again), (MediaType::Png, &picture));
        assert_eq!(Candidate::Image(picture.clone()).sha256(), sha256(picture.bytes()));
    }

    #[test]
    fn bytes_that_are_no_image_are_refused_by_name() {
        let pixels = RgbImage::new(8, 8);
        let mut bytes = Picture::of_pixels(&pixels).unwrap().bytes().to_vec();
        bytes.truncate(bytes.len() / 2);
        for bytes in [b"not an image".to_vec(), Vec::new(), bytes] {
            let error = Picture::new(bytes, "a.png").unwrap_err().to_string();
            assert!(error.starts_with("a.png: "), "{error}");
        }
        assert!(Picture::read(Path::new("nowhere.png")).unwrap_err().to_string().starts_with("nowhere.png"));
    }
}
