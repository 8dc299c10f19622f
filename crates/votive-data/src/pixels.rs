//! From the bytes of an image to the pixels that a VAE encodes.
//!
//! Departure from the preprocessing of diffusers' scripts: the orientation that a camera notes in a photograph is
//! applied.

use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use crate::error::{DataError, Place, Result};
use crate::framing::{Augmentation, Frame, ImageSize, ResizeFilter};
use crate::image_bytes::ImageBytes;
use crate::record::{ImagePair, ImageSource};

/// How large an image may be, checked on its header before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Pixels a side.
    pub max_side: u32,
    /// Bytes that decoding may allocate, and that the file may have.
    pub max_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_side: 16_384, max_bytes: 512 << 20 }
    }
}

/// An image as a network sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedImage {
    /// (3,H,W) in [-1, 1], of the frame's target.
    pub pixels: Vec<f32>,
    /// How it was cut out of the image.
    pub frame: Frame,
}

/// Loads images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageLoader {
    /// How images of other sizes are scaled.
    pub filter: ResizeFilter,
    /// What is refused.
    pub limits: ImageLimits,
}

impl ImageLoader {
    /// Loads both images of a pair, the chosen one first, cut to `target`; `file` is where the pair was read, for
    /// messages.
    ///
    /// # Errors
    /// As [`decode_image`]; if the bytes cannot be read.
    pub fn load(
        &self,
        bytes: &mut ImageBytes,
        row: (&Path, &ImagePair),
        target: ImageSize,
        augmentation: Augmentation,
    ) -> Result<[LoadedImage; 2]> {
        let chosen = self.load_side(bytes, row, 0, target, augmentation)?;
        Ok([chosen, self.load_side(bytes, row, 1, target, augmentation)?])
    }

    /// Loads one image of a pair: side 0 is the chosen one, side 1 the other.
    ///
    /// # Errors
    /// As [`ImageLoader::load`].
    pub fn load_side(
        &self,
        bytes: &mut ImageBytes,
        (file, pair): (&Path, &ImagePair),
        side: usize,
        target: ImageSize,
        augmentation: Augmentation,
    ) -> Result<LoadedImage> {
        let (name, image) = pair.sides()[side.min(1)];
        let place = Place::new(file, pair.row, name);
        let stored = bytes.read(image, self.limits.max_bytes);
        let stored = stored.map_err(|message| unreadable(&place, image, message))?;
        let decoded = decode_image(&stored, image, &self.limits, &place)?;
        let frame = Frame::new(size_of(&decoded), target, augmentation);
        let pixels = to_latent_input(&frame.apply(&decoded, self.filter));
        Ok(LoadedImage { pixels, frame })
    }
}

/// Reads and decodes an image, as [`decode_image`] does; `place` is the row that refers to it.
///
/// # Errors
/// As [`decode_image`]; if the bytes cannot be read.
pub fn read_image(
    bytes: &mut ImageBytes,
    image: &ImageSource,
    limits: &ImageLimits,
    place: &Place,
) -> Result<RgbImage> {
    let stored = bytes.read(image, limits.max_bytes).map_err(|message| unreadable(place, image, message))?;
    decode_image(&stored, image, limits, place)
}

pub(crate) fn unreadable(place: &Place, image: &ImageSource, message: String) -> DataError {
    DataError::Image { place: place.clone(), image: image.to_string(), message }
}

pub(crate) fn size_of(image: &RgbImage) -> ImageSize {
    let (width, height) = image.dimensions();
    ImageSize { width, height }
}

/// Decodes an image to 8-bit RGB; transparency is dropped, as PIL's `convert("RGB")` does. `image` is where the bytes
/// lie.
///
/// # Errors
/// If the bytes are no PNG, JPEG or WebP image; if its header states more than the limits allow. The message names the
/// image and `place`, the row that refers to it.
pub fn decode_image(
    bytes: &[u8],
    image: &ImageSource,
    limits: &ImageLimits,
    place: &Place,
) -> Result<RgbImage> {
    let reader = || open(bytes, image);
    let failed = |error: ImageError| unreadable(place, image, describe(&error));
    let (width, height) = reader().into_dimensions().map_err(failed)?;
    if width.max(height) > limits.max_side {
        let (place, image, max_side) = (place.clone(), image.to_string(), limits.max_side);
        return Err(DataError::ImageTooLarge { place, image, width, height, max_side });
    }
    let decoded = decode(reader(), limits).map_err(|error| match error {
        ImageError::Limits(_) => {
            let most = limits.max_bytes >> 20;
            let message =
                format!("{width}x{height} pixels take more than the limit of {most} MiB; scale it down");
            unreadable(place, image, message)
        }
        other => failed(other),
    });
    decoded.map(DynamicImage::into_rgb8)
}

/// Width and height of an image as [`decode_image`] makes it, from its header alone.
///
/// # Errors
/// If the bytes are no PNG, JPEG or WebP image.
pub(crate) fn stored_size(bytes: &[u8], image: &ImageSource) -> std::result::Result<ImageSize, String> {
    let read = || {
        let mut decoder = open(bytes, image).into_decoder()?;
        let (width, height) = decoder.dimensions();
        Ok(match decoder.orientation()? {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => ImageSize { width: height, height: width },
            _ => ImageSize { width, height },
        })
    };
    read().map_err(|error: ImageError| describe(&error))
}

impl ImageLimits {
    fn to_image_limits(self) -> Limits {
        let mut limits = Limits::default();
        limits.max_image_width = Some(self.max_side);
        limits.max_image_height = Some(self.max_side);
        limits.max_alloc = Some(self.max_bytes);
        limits
    }
}

/// The format is told by the first bytes, or else by the name.
fn open<'a>(bytes: &'a [u8], image: &ImageSource) -> ImageReader<Cursor<&'a [u8]>> {
    let mut reader = ImageReader::new(Cursor::new(bytes));
    let guessed = image::guess_format(bytes).ok();
    let named = match image {
        ImageSource::File(file) => ImageFormat::from_path(file).ok(),
        ImageSource::Embedded(_) => None,
    };
    if let Some(format) = guessed.or(named) {
        reader.set_format(format);
    }
    // The size in the header is checked first, with a message of its own.
    reader.no_limits();
    reader
}

fn decode(mut reader: ImageReader<Cursor<&[u8]>>, limits: &ImageLimits) -> image::ImageResult<DynamicImage> {
    let mut limits = limits.to_image_limits();
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    // The pixels count too, not only what the decoder needs to make them.
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn describe(error: &ImageError) -> String {
    match error {
        ImageError::Unsupported(_) => "not a PNG, JPEG or WebP image".to_owned(),
        other => other.to_string(),
    }
}

/// Pixels as the VAE takes them.
///
/// # Shapes
/// (H,W,3) u8 → (3,H,W) f32
/// # Units
/// 0 → −1, 255 → 1.
#[must_use]
pub fn to_latent_input(image: &RgbImage) -> Vec<f32> {
    let channel =
        |channel: usize| image.pixels().map(move |pixel| (f32::from(pixel[channel]) / 255.0 - 0.5) / 0.5);
    (0..3).flat_map(channel).collect()
}
