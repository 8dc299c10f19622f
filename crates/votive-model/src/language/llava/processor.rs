//! From the image files and the texts of a user to what the model reads: transformers' `LlavaProcessor`.

use crate::clip::ClipImageProcessor;
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::image_processor::ImageProcessor;
use crate::image_tokens::{ImageInput, ImageTokens};
use serde_json::json;
use std::path::Path;

/// The file of the processor as a whole; older folders may lack it.
const FILE: &str = "processor_config.json";

/// Kinds of image processors that do what CLIP's does, some from other defaults.
const IMAGE_PROCESSORS: [&str; 6] = [
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "LlavaImageProcessor",
    "LlavaImageProcessorFast",
    "SiglipImageProcessor",
    "SiglipImageProcessorFast",
];

/// Scales and cuts images to squares of one size.
#[derive(Clone, Debug)]
pub(super) struct LlavaProcessor {
    images: ClipImageProcessor,
    tokens: ImageTokens,
    /// Pixels along a side of what the model reads.
    side: usize,
    image_token: String,
}

impl LlavaProcessor {
    /// Reads the processor's files in a folder, for a model that reads images of `side` pixels a side.
    ///
    /// # Errors
    /// If a file is missing or malformed, or the model reads other images or another number of vectors.
    pub(super) fn read(folder: &Path, tokens: ImageTokens, side: usize) -> Result<Self> {
        let path = folder.join(FILE);
        let file = path.exists().then(|| ConfigFile::read(&path)).transpose()?;
        let mut image_token = None;
        if let Some(file) = &file {
            check_count(file, tokens.count((side, side)), side)?;
            image_token = file.maybe_str("image_token")?;
        }
        let images = ClipImageProcessor::read_any(folder, &IMAGE_PROCESSORS)?;
        if images.output_size() != Some((side, side)) {
            let found = images.output_size();
            return Err(ModelError::Shape {
                what: format!("{}: images that its processor makes", folder.display()),
                expected: format!("{side}×{side}, as the image encoder reads them"),
                found: found
                    .map_or("sizes that differ".to_owned(), |(width, height)| format!("{width}×{height}")),
            });
        }
        Ok(Self { images, tokens, side, image_token: image_token.unwrap_or_else(|| "<image>".to_owned()) })
    }
}

impl ImageProcessor for LlavaProcessor {
    fn tokens(&self) -> ImageTokens {
        self.tokens
    }

    fn image_token(&self) -> &str {
        &self.image_token
    }

    fn size(&self, _: (usize, usize)) -> Result<(usize, usize)> {
        Ok((self.side, self.side))
    }

    fn image(&self, rgb: &[u8], size: (usize, usize)) -> Result<ImageInput> {
        ImageInput::new(self.images.pixels(rgb, size)?, (self.side, self.side))
    }
}

/// Checks that the file counts as many tokens for an image as the model makes vectors.
fn check_count(file: &ConfigFile, per_image: usize, side: usize) -> Result<()> {
    let strategy = "vision_feature_select_strategy";
    file.only(strategy, &[json!("default"), json!("full")])?;
    let Some(patch) = file.maybe_usize("patch_size")? else { return Ok(()) };
    if patch == 0 {
        return Err(file.unsupported("patch_size", "1 or more"));
    }
    let additional = file.maybe_usize("num_additional_image_tokens")?.unwrap_or(0);
    let dropped = usize::from(file.maybe_str(strategy)?.is_some_and(|strategy| strategy == "default"));
    let count = (side / patch).pow(2) + additional;
    match count.checked_sub(dropped) == Some(per_image) {
        true => Ok(()),
        false => {
            let expected = format!(
                "with `patch_size` and `{strategy}` it must give the {per_image} vectors that the model makes of an \
                 image, and gives {}",
                count.saturating_sub(dropped)
            );
            Err(file.unsupported("num_additional_image_tokens", &expected))
        }
    }
}
