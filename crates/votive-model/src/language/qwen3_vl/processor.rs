//! From the images of a user to what the model reads: transformers' `Qwen3VLProcessor` and `Qwen2VLImageProcessor`.
//!
//! Images are scaled as Pillow does it, which is transformers' image processor without torchvision.

use super::config::VisionConfig;
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::image_processor::{ImageProcessor, Scaling, processor_file};
use crate::image_tokens::{ImageInput, ImageTokens};
use serde_json::json;
use std::path::Path;

/// Kinds of image processors that do this.
const IMAGE_PROCESSORS: [&str; 2] = ["Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast"];

/// Pixels of an image, the least and the most, if a file does not say.
const PIXELS: [usize; 2] = [56 * 56, 28 * 28 * 1280];
/// The longer side over the shorter, at most.
const MOST_ASPECT: f64 = 200.0;

/// The file that may name the token, and the token if it does not.
const TOKENIZER_FILE: &str = "tokenizer_config.json";
const IMAGE_TOKEN: &str = "<|image_pad|>";

/// Scales images to sides of whole cells, with their shape nearly kept.
#[derive(Clone, Debug)]
pub(super) struct Qwen3VlProcessor {
    scaling: Scaling,
    tokens: ImageTokens,
    /// Pixels along a side of a cell.
    cell: usize,
    /// Pixels of an image, the least and the most.
    pixels: [usize; 2],
    image_token: String,
}

impl Qwen3VlProcessor {
    /// Reads the processor's files in a folder, for a model with such an image encoder.
    ///
    /// # Errors
    /// If a file is missing or malformed, or cuts images otherwise than the model reads them.
    pub(super) fn read(folder: &Path, tokens: ImageTokens, vision: &VisionConfig) -> Result<Self> {
        let file = processor_file(folder)?;
        file.only("image_processor_type", &IMAGE_PROCESSORS.map(|class| json!(class)))?;
        file.only("do_center_crop", &[json!(false)])?;
        for (field, own, absent) in [
            ("patch_size", vision.patch, 14),
            ("merge_size", vision.merge, 2),
            ("temporal_patch_size", vision.frames, 2),
        ] {
            if file.maybe_usize(field)?.unwrap_or(absent) != own {
                return Err(file.unsupported(field, &format!("{own}, as in the model's config.json")));
            }
        }
        let tokenizer = folder.join(TOKENIZER_FILE);
        let token = match tokenizer.exists() {
            true => ConfigFile::read(&tokenizer)?.maybe_str("image_token")?,
            false => None,
        };
        Ok(Self {
            scaling: Scaling::read(&file)?,
            tokens,
            cell: vision.patch * vision.merge,
            pixels: pixels(&file)?,
            image_token: token.unwrap_or_else(|| IMAGE_TOKEN.to_owned()),
        })
    }
}

/// The least and the most pixels, in both spellings: `min_pixels` and `max_pixels`, which come first, and the edges of `size`.
fn pixels(file: &ConfigFile) -> Result<[usize; 2]> {
    let size = file.object("size");
    let read = |of_size: &str, alone: &str, absent: usize| -> Result<usize> {
        let given = match (file.maybe_usize(alone)?, &size) {
            (Some(pixels), _) => Some(pixels),
            (None, Some(size)) => Some(size.usize(of_size)?),
            (None, None) => None,
        };
        Ok(given.unwrap_or(absent))
    };
    let found =
        [read("shortest_edge", "min_pixels", PIXELS[0])?, read("longest_edge", "max_pixels", PIXELS[1])?];
    if found[0] == 0 || found[0] > found[1] {
        let supported = format!("from 1 up to the most pixels, {}, not {}", found[1], found[0]);
        return Err(file.unsupported("size", &supported));
    }
    Ok(found)
}

impl ImageProcessor for Qwen3VlProcessor {
    fn tokens(&self) -> ImageTokens {
        self.tokens
    }

    fn image_token(&self) -> &str {
        &self.image_token
    }

    /// Both sides to the nearest whole number of cells; if those are too many or too few pixels, the image is first scaled to the
    /// most or the least, and its sides cut off to cells or filled up. transformers' `smart_resize`.
    fn size(&self, (width, height): (usize, usize)) -> Result<(usize, usize)> {
        let (longer, shorter) = (width.max(height) as f64, width.min(height) as f64);
        let aspect = longer / shorter;
        // Nothing over nothing is no number.
        if aspect.is_nan() || aspect > MOST_ASPECT {
            return Err(ModelError::Shape {
                what: "an image".to_owned(),
                expected: format!("a longer side of at most {MOST_ASPECT} times the shorter"),
                found: format!("{width}×{height}"),
            });
        }
        let cell = self.cell as f64;
        let sides = [width as f64, height as f64];
        let scaled = |cells: &dyn Fn(f64) -> f64| sides.map(|side| (cells(side) * cell) as usize);
        let nearest = scaled(&|side| (side / cell).round_ties_even());
        let [least, most] = self.pixels;
        let area = nearest[0] * nearest[1];
        let [width, height] = if area > most {
            let shrink = (sides[0] * sides[1] / most as f64).sqrt();
            scaled(&|side| (side / shrink / cell).floor().max(1.0))
        } else if area < least {
            let stretch = (least as f64 / (sides[0] * sides[1])).sqrt();
            scaled(&|side| (side * stretch / cell).ceil())
        } else {
            nearest
        };
        Ok((width, height))
    }

    fn image(&self, rgb: &[u8], size: (usize, usize)) -> Result<ImageInput> {
        let to = self.size(size)?;
        let image = self.scaling.scaled(rgb, size, to)?;
        ImageInput::new(self.scaling.numbers(&image), to)
    }
}
