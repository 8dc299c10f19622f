//! From the images of a user to what a model reads of them.

mod resample;
mod scaling;

pub(crate) use resample::matrix;
pub(crate) use scaling::Scaling;

use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::image_tokens::{ImageInput, ImageTokens};
use std::fmt::Debug;
use std::path::Path;

/// The file of an image processor by itself, and the field and file of one that was saved with its tokenizer.
const FILE: &str = "preprocessor_config.json";
const WITH_TOKENIZER: (&str, &str) = ("image_processor", "processor_config.json");

/// The image processor's fields in a folder: `preprocessor_config.json`, or a part of `processor_config.json`.
///
/// # Errors
/// If there is neither, or the file is malformed.
pub(crate) fn processor_file(folder: &Path) -> Result<ConfigFile> {
    if folder.join(FILE).exists() {
        return ConfigFile::read(&folder.join(FILE));
    }
    let (field, file) = WITH_TOKENIZER;
    let own = || Some(ConfigFile::read(&folder.join(file)).ok()?.object(field));
    match own().flatten() {
        Some(own) => Ok(own),
        None => {
            let expected = format!("{FILE}, {file} with `{field}`");
            Err(ModelError::NotFound { folder: folder.into(), expected })
        }
    }
}

/// Prepares images for a model, and says how they stand in texts; each family of models that see has its own.
pub trait ImageProcessor: Debug + Send + Sync {
    /// How the model reads images.
    fn tokens(&self) -> ImageTokens;

    /// What stands for an image in a text, once for each; a token of the vocabulary.
    fn image_token(&self) -> &str;

    /// Width and height of what the model reads of an image of a width and height.
    ///
    /// # Errors
    /// If no image of that shape is read.
    fn size(&self, size: (usize, usize)) -> Result<(usize, usize)>;

    /// What the model reads of an image.
    ///
    /// # Shapes
    /// `rgb` (H, W, 3) of `size`, a width and a height
    /// # Errors
    /// If there are not as many bytes as pixels ask for, or no image of that shape is read.
    fn image(&self, rgb: &[u8], size: (usize, usize)) -> Result<ImageInput>;
}
