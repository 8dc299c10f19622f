//! Images that texts show, from where they lie to what the model reads of them.

use crate::error::{Result, TrainError};
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use votive_data::{
    ImageBytes, ImageLimits, ImagePlaces, ImageSource, Place, TextBatch, TextTokenizer, read_image,
};
use votive_model::{ImageInput, ImageTokens, LlavaProcessor};

/// The image processor of a model's folder, and the files that are open.
pub struct ShownImages {
    processor: LlavaProcessor,
    bytes: Mutex<ImageBytes>,
}

impl fmt::Debug for ShownImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.processor.fmt(f)
    }
}

impl ShownImages {
    /// Reads the processor of a folder, and tells its tokenizer how the model reads images.
    ///
    /// # Errors
    /// If the processor is missing or another model's, or its image token is not one token of the vocabulary.
    pub fn of(folder: &Path, tokenizer: TextTokenizer, tokens: ImageTokens) -> Result<(TextTokenizer, Self)> {
        let processor = LlavaProcessor::read(folder, tokens)?;
        let found = tokenizer.encode(processor.image_token(), false)?;
        if found != [tokens.placeholder] {
            return Err(TrainError::Plan(format!(
                "model.path = {}: the tokenizer makes {found:?} of the image token {:?}, and the model's is {}",
                folder.display(),
                processor.image_token(),
                tokens.placeholder
            )));
        }
        let places = ImagePlaces { token_id: tokens.placeholder, per_image: tokens.per_image };
        Ok((tokenizer.with_images(places), Self { processor, bytes: Mutex::default() }))
    }

    /// The images of every sequence of a batch.
    ///
    /// # Errors
    /// If an image can no longer be read.
    pub(super) fn of_batch(&self, batch: &TextBatch) -> Result<Vec<Vec<ImageInput>>> {
        let rows = batch.rows.iter().cycle();
        let sequence = |(images, row): (&Vec<ImageSource>, &usize)| {
            let place = |index| Place::new(Path::new("data.path"), *row, format!("images[{index}]"));
            images.iter().enumerate().map(|(index, image)| self.read(image, &place(index))).collect()
        };
        batch.images.iter().zip(rows).map(sequence).collect()
    }

    /// What the model reads of an image; `place` is what refers to it.
    ///
    /// # Errors
    /// If the image cannot be read or decoded.
    pub fn read(&self, image: &ImageSource, place: &Place) -> Result<ImageInput> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let rgb = read_image(&mut bytes, image, &ImageLimits::default(), place)?;
        let (width, height) = rgb.dimensions();
        Ok(self.processor.image(rgb.as_raw(), (width as usize, height as usize))?)
    }
}
