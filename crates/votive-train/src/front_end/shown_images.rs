//! Images that texts show, from where they lie to what the model reads of them.

use crate::error::{Result, TrainError};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use votive_data::{
    ImageBytes, ImageLimits, ImagePlaces, ImageSize, ImageSource, Place, TextBatch, TextTokenizer,
    VectorCount, read_image,
};
use votive_model::{ImageInput, ImageProcessor, ImageTokens, ImageVectors};

/// The image processor of a model's folder, and the files that are open.
pub struct ShownImages {
    processor: Arc<dyn ImageProcessor>,
    bytes: Mutex<ImageBytes>,
}

impl fmt::Debug for ShownImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.processor.fmt(f)
    }
}

impl ShownImages {
    /// Puts the processor of a folder beside its tokenizer, which then knows how the model reads images.
    ///
    /// # Errors
    /// If the processor's image token is not one token of the vocabulary.
    pub fn of(
        folder: &Path,
        tokenizer: TextTokenizer,
        processor: Arc<dyn ImageProcessor>,
    ) -> Result<(TextTokenizer, Self)> {
        let tokens = processor.tokens();
        let found = tokenizer.encode(processor.image_token(), false)?;
        if found != [tokens.placeholder] {
            return Err(TrainError::Plan(format!(
                "model.path = {}: the tokenizer makes {found:?} of the image token {:?}, and the model's is {}",
                folder.display(),
                processor.image_token(),
                tokens.placeholder
            )));
        }
        let vectors = match tokens.vectors {
            ImageVectors::Fixed { per_image, .. } => VectorCount::Fixed(per_image),
            ImageVectors::Cells { .. } => {
                let processor = Arc::clone(&processor);
                VectorCount::BySize(Arc::new(move |ImageSize { width, height }| {
                    let size = processor.size((width as usize, height as usize));
                    size.map(|size| tokens.count(size)).map_err(|error| error.to_string())
                }))
            }
        };
        let places = ImagePlaces { token_id: tokens.placeholder, vectors };
        Ok((tokenizer.with_images(places), Self { processor, bytes: Mutex::default() }))
    }

    /// How the model reads images.
    #[must_use]
    pub fn tokens(&self) -> ImageTokens {
        self.processor.tokens()
    }

    /// What stands for an image in a text.
    #[must_use]
    pub fn image_token(&self) -> &str {
        self.processor.image_token()
    }

    /// How many vectors the model makes of each of some images.
    #[must_use]
    pub fn vectors(&self, images: &[ImageInput]) -> Vec<usize> {
        images.iter().map(|image| self.tokens().count(image.size())).collect()
    }

    /// What the model reads of an image of a width and height.
    ///
    /// # Shapes
    /// `rgb` (H, W, 3)
    /// # Errors
    /// If no image of that shape is read.
    pub fn prepare(&self, rgb: &[u8], size: (u32, u32)) -> Result<ImageInput> {
        Ok(self.processor.image(rgb, (size.0 as usize, size.1 as usize))?)
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
        self.prepare(rgb.as_raw(), rgb.dimensions())
    }
}
