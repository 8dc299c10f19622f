//! From the image files and the texts of a user to what the model reads: transformers' `LlavaProcessor`.

use crate::clip::ClipImageProcessor;
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::image_tokens::{ImageInput, ImageTokens};
use serde_json::json;
use std::path::Path;

/// The file of the processor as a whole; older folders may lack it.
const FILE: &str = "processor_config.json";

/// Kinds of image processors that do what CLIP's does.
const IMAGE_PROCESSORS: [&str; 4] =
    ["CLIPImageProcessor", "CLIPImageProcessorFast", "LlavaImageProcessor", "LlavaImageProcessorFast"];

/// Prepares images, and says how they stand in texts.
#[derive(Clone, Debug, PartialEq)]
pub struct LlavaProcessor {
    images: ClipImageProcessor,
    tokens: ImageTokens,
    image_token: String,
}

impl LlavaProcessor {
    /// Reads the processor's files in a folder, for a model that reads images like this.
    ///
    /// # Errors
    /// If a file is missing or malformed, or the model reads other images or another number of vectors.
    pub fn read(folder: &Path, tokens: ImageTokens) -> Result<Self> {
        let path = folder.join(FILE);
        let file = path.exists().then(|| ConfigFile::read(&path)).transpose()?;
        let mut image_token = None;
        if let Some(file) = &file {
            check_count(file, tokens)?;
            image_token = file.maybe_str("image_token")?;
        }
        let images = ClipImageProcessor::read_any(folder, &IMAGE_PROCESSORS)?;
        if images.output_size() != Some((tokens.side, tokens.side)) {
            let found = images.output_size();
            return Err(ModelError::Shape {
                what: format!("{}: images that its processor makes", folder.display()),
                expected: format!("{0}×{0}, as the image encoder reads them", tokens.side),
                found: found
                    .map_or("sizes that differ".to_owned(), |(width, height)| format!("{width}×{height}")),
            });
        }
        Ok(Self { images, tokens, image_token: image_token.unwrap_or_else(|| "<image>".to_owned()) })
    }

    /// How the model reads images.
    #[must_use]
    pub fn tokens(&self) -> ImageTokens {
        self.tokens
    }

    /// What stands for an image in a text, once for each; a token of the vocabulary.
    #[must_use]
    pub fn image_token(&self) -> &str {
        &self.image_token
    }

    /// What the model reads of an image.
    ///
    /// # Shapes
    /// `rgb` (H, W, 3) of `width` and `height`
    /// # Errors
    /// As [`ClipImageProcessor::pixels`].
    pub fn image(&self, rgb: &[u8], size: (usize, usize)) -> Result<ImageInput> {
        ImageInput::new(self.images.pixels(rgb, size)?, (self.tokens.side, self.tokens.side))
    }

    /// A text's tokens with as many placeholders for each image as the model makes vectors of it.
    #[must_use]
    pub fn expand(&self, ids: &[u32]) -> Vec<u32> {
        let copies = |id: &u32| if *id == self.tokens.placeholder { self.tokens.per_image } else { 1 };
        ids.iter().flat_map(|id| std::iter::repeat_n(*id, copies(id))).collect()
    }
}

/// Checks that the file counts as many tokens for an image as the model makes vectors.
fn check_count(file: &ConfigFile, tokens: ImageTokens) -> Result<()> {
    let strategy = "vision_feature_select_strategy";
    file.only(strategy, &[json!("default"), json!("full")])?;
    let Some(patch) = file.maybe_usize("patch_size")? else { return Ok(()) };
    if patch == 0 {
        return Err(file.unsupported("patch_size", "1 or more"));
    }
    let additional = file.maybe_usize("num_additional_image_tokens")?.unwrap_or(0);
    let dropped = usize::from(file.maybe_str(strategy)?.is_some_and(|strategy| strategy == "default"));
    let count = (tokens.side / patch).pow(2) + additional;
    match count.checked_sub(dropped) == Some(tokens.per_image) {
        true => Ok(()),
        false => {
            let expected = format!(
                "with `patch_size` and `{strategy}` it must give the {} vectors that the model makes of an image, \
                 and gives {}",
                tokens.per_image,
                count.saturating_sub(dropped)
            );
            Err(file.unsupported("num_additional_image_tokens", &expected))
        }
    }
}
