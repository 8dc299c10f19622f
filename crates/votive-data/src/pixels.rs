//! From image files to the pixels that a VAE encodes.
//!
//! Source: the preprocessing of diffusers' Diffusion-DPO script: shorter side scaled to the resolution with bilinear
//! interpolation, centre crop, pixels to [-1, 1]; the two images of a pair are flipped together or not at all.
//!
//! Departures: the crop is always central, so that a pair looks the same in every epoch; the orientation that a camera
//! notes in a photograph is applied.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, RgbImage};
use votive_tensor::random::Draws;

use crate::error::{DataError, Place, Result};
use crate::record::ImagePair;

/// How large an image file may be, checked on its header before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Pixels a side.
    pub max_side: u32,
    /// Bytes that decoding may allocate.
    pub max_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_side: 16_384, max_bytes: 512 << 20 }
    }
}

/// How an image is scaled. Both average over the pixels they remove, so neither aliases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResizeFilter {
    /// Linear between neighbours.
    #[default]
    Bilinear,
    /// Windowed sinc over three pixels a side; sharper.
    Lanczos,
}

/// What is done to both images of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augmentation {
    /// Mirrored left to right. A caption that says "left" is then wrong.
    pub flip: bool,
}

impl Augmentation {
    /// A flip with probability one half.
    pub fn random_flip(draws: &mut Draws) -> Self {
        Self { flip: draws.chance(0.5) }
    }
}

/// Both images of a pair, each (3,H,W) in [-1, 1], H = W = resolution.
#[derive(Clone, Debug, PartialEq)]
pub struct PairPixels {
    /// The preferred image.
    pub chosen: Vec<f32>,
    /// The other.
    pub rejected: Vec<f32>,
    /// How the preferred image was cut out of its file.
    pub chosen_cut: Cut,
    /// How the other was.
    pub rejected_cut: Cut,
}

/// How a square was cut out of an image, in pixels, each down and across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Height and width of the image.
    pub original: (u32, u32),
    /// Height and width that it was scaled to.
    pub scaled: (u32, u32),
    /// Top and left of the square.
    pub corner: (u32, u32),
}

/// Loads image pairs at one resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLoader {
    /// Pixels a side of the square that is cut out.
    pub resolution: u32,
    /// How images of other sizes are scaled.
    pub filter: ResizeFilter,
    /// What is refused.
    pub limits: ImageLimits,
}

impl ImageLoader {
    /// A loader with the default filter and limits.
    #[must_use]
    pub fn new(resolution: u32) -> Self {
        Self { resolution, filter: ResizeFilter::default(), limits: ImageLimits::default() }
    }

    /// Loads both images of a pair; `file` is where the pair was read, for messages.
    ///
    /// # Errors
    /// As [`decode_image`].
    pub fn load(&self, file: &Path, pair: &ImagePair, augmentation: Augmentation) -> Result<PairPixels> {
        let side = |field, image| {
            let decoded = decode_image(image, &self.limits, &Place::new(file, pair.row, field))?;
            let mut square = self.square(&decoded);
            if augmentation.flip {
                // The cut is central, so a flip leaves its corner where it is, but for the rounding of half a pixel.
                imageops::flip_horizontal_in_place(&mut square);
            }
            Ok((to_latent_input(&square), self.cut(decoded.dimensions())))
        };
        let (chosen, chosen_cut) = side("chosen", &pair.chosen)?;
        let (rejected, rejected_cut) = side("rejected", &pair.rejected)?;
        Ok(PairPixels { chosen, rejected, chosen_cut, rejected_cut })
    }

    /// Where the square of an image of this width and height lies.
    #[must_use]
    pub fn cut(&self, (width, height): (u32, u32)) -> Cut {
        let (shorter, side) = (u64::from(width.min(height)).max(1), self.resolution);
        let scale = |length: u32| ((u64::from(length) * u64::from(side) / shorter) as u32).max(side);
        let offset = |length: u32| (f64::from(length - side) / 2.0).round_ties_even() as u32;
        let scaled = (scale(height), scale(width));
        Cut { original: (height, width), scaled, corner: (offset(scaled.0), offset(scaled.1)) }
    }

    /// Scales the shorter side to the resolution and cuts the middle out of the longer. An image that has the
    /// resolution already keeps its pixels.
    #[must_use]
    pub fn square(&self, image: &RgbImage) -> RgbImage {
        let cut = self.cut(image.dimensions());
        let (scaled_height, scaled_width) = cut.scaled;
        let filter = match self.filter {
            ResizeFilter::Bilinear => FilterType::Triangle,
            ResizeFilter::Lanczos => FilterType::Lanczos3,
        };
        let resized;
        let image = if cut.original == cut.scaled {
            image
        } else {
            resized = imageops::resize(image, scaled_width, scaled_height, filter);
            &resized
        };
        imageops::crop_imm(image, cut.corner.1, cut.corner.0, self.resolution, self.resolution).to_image()
    }
}

/// Decodes an image file to 8-bit RGB; transparency is dropped, as PIL's `convert("RGB")` does.
///
/// # Errors
/// If the file cannot be opened or is no PNG, JPEG or WebP image; if its header states more than the limits allow. The
/// message names the image and `place`, the row that refers to it.
pub fn decode_image(image: &Path, limits: &ImageLimits, place: &Place) -> Result<RgbImage> {
    let unreadable =
        |message: String| DataError::Image { place: place.clone(), image: image.to_owned(), message };
    let reader = || open(image).map_err(|source| unreadable(source.to_string()));
    let (width, height) = reader()?.into_dimensions().map_err(|error| unreadable(describe(&error)))?;
    if width.max(height) > limits.max_side {
        let (place, image, max_side) = (place.clone(), image.to_owned(), limits.max_side);
        return Err(DataError::ImageTooLarge { place, image, width, height, max_side });
    }
    let decoded = decode(reader()?, limits).map_err(|error| match error {
        ImageError::Limits(_) => {
            let most = limits.max_bytes >> 20;
            unreadable(format!(
                "{width}x{height} pixels take more than the limit of {most} MiB; scale it down"
            ))
        }
        other => unreadable(describe(&other)),
    });
    decoded.map(DynamicImage::into_rgb8)
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

fn open(image: &Path) -> std::io::Result<ImageReader<BufReader<File>>> {
    let mut reader = ImageReader::open(image)?;
    // The size in the header is checked first, with a message of its own.
    reader.no_limits();
    reader.with_guessed_format()
}

fn decode(
    mut reader: ImageReader<BufReader<File>>,
    limits: &ImageLimits,
) -> image::ImageResult<DynamicImage> {
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
