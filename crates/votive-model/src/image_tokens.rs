//! Images among the tokens of a text.
//!
//! A text holds a placeholder for every vector that the model makes of an image. Before it is read, each placeholder
//! becomes an id of its own beyond the vocabulary: equal images share their ids, and different ones share none. So
//! whatever compares tokens (shared prefixes, prompts that are read once, the cache) also compares images.

use crate::error::{ModelError, Result};
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An image as an image encoder reads it.
#[derive(Clone, Debug)]
pub struct ImageInput {
    /// (3, H, W), one number after another.
    pixels: Arc<[f32]>,
    width: usize,
    height: usize,
    identity: [u8; 32],
}

impl ImageInput {
    /// An image of (3, H, W) numbers.
    ///
    /// # Errors
    /// If there are not as many numbers as the size asks for.
    pub fn new(pixels: Vec<f32>, (width, height): (usize, usize)) -> Result<Self> {
        if pixels.len() != 3 * width * height {
            return Err(ModelError::Shape {
                what: "numbers of an image".to_owned(),
                expected: format!("3·{width}·{height}"),
                found: pixels.len().to_string(),
            });
        }
        let mut hash = Sha256::new();
        [width, height].iter().for_each(|side| hash.update(side.to_le_bytes()));
        pixels.iter().for_each(|number| hash.update(number.to_le_bytes()));
        Ok(Self { pixels: pixels.into(), width, height, identity: hash.finalize().into() })
    }

    /// Equal for equal images, and for no others.
    #[must_use]
    pub fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    /// Images of `side` pixels a side as one tensor, `(M, 3, side, side)`.
    ///
    /// # Errors
    /// If one has another size.
    pub(crate) fn stack(images: &[&Self], side: usize, device: &Device) -> Result<Tensor> {
        if let Some(other) = images.iter().find(|image| (image.width, image.height) != (side, side)) {
            return Err(ModelError::Shape {
                what: "an image for the image encoder".to_owned(),
                expected: format!("{side}×{side}"),
                found: format!("{}×{}", other.width, other.height),
            });
        }
        let pixels: Vec<f32> = images.iter().flat_map(|image| image.pixels.iter().copied()).collect();
        Ok(Tensor::from_vec(pixels, (images.len(), 3, side, side), device)?)
    }
}

/// How a model reads images among tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageTokens {
    /// Token that stands for one vector of an image.
    pub placeholder: u32,
    /// Vectors of an image, P.
    pub per_image: usize,
    /// Pixels along a side of an image.
    pub side: usize,
}

impl ImageTokens {
    /// Puts the ids of images, from `vocabulary` on, in the place of the placeholders of rows; also gives the distinct images
    /// in the order of their ids, P for each.
    ///
    /// # Errors
    /// If a row's placeholders are not P for each of its images.
    pub(crate) fn place<'a>(
        &self,
        rows: &[Vec<u32>],
        images: &'a [Vec<ImageInput>],
        vocabulary: usize,
    ) -> Result<(Vec<Vec<u32>>, Vec<&'a ImageInput>)> {
        let mut distinct: Vec<&ImageInput> = Vec::new();
        let mut numbers: BTreeMap<&[u8; 32], usize> = BTreeMap::new();
        let mut placed = rows.to_vec();
        for (row, ids) in placed.iter_mut().enumerate() {
            let images = images.get(row).map_or(&[][..], Vec::as_slice);
            let mut places = ids.iter_mut().filter(|id| **id == self.placeholder).collect::<Vec<_>>();
            if places.len() != images.len() * self.per_image {
                return Err(self.mismatch(row, places.len(), images.len()));
            }
            for (places, image) in places.chunks_mut(self.per_image.max(1)).zip(images) {
                let number = *numbers.entry(image.identity()).or_insert_with(|| {
                    distinct.push(image);
                    distinct.len() - 1
                });
                let first = vocabulary + number * self.per_image;
                (first..).zip(places).for_each(|(id, place)| **place = id as u32);
            }
        }
        Ok((placed, distinct))
    }

    fn mismatch(&self, row: usize, found: usize, images: usize) -> ModelError {
        let Self { placeholder, per_image, .. } = self;
        ModelError::Tokens(format!(
            "row {row} has {found} image tokens (id {placeholder}) and {images} images, which ask for {per_image} \
             each"
        ))
    }
}

/// Rows whose placeholders have become ids beyond the vocabulary, and the vectors that those stand for.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The rows.
    pub rows: Vec<Vec<u32>>,
    /// `(M·P, D)`; none where there is no image.
    pub vectors: Option<Tensor>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const TOKENS: ImageTokens = ImageTokens { placeholder: 7, per_image: 2, side: 1 };

    fn image(grey: f32) -> ImageInput {
        ImageInput::new(vec![grey; 3], (1, 1)).unwrap()
    }

    #[test]
    fn equal_images_have_equal_ids_and_others_their_own() {
        let rows = [vec![1, 7, 7, 3, 7, 7], vec![7, 7], vec![4]];
        let images = [vec![image(0.5), image(0.25)], vec![image(0.25)], vec![]];
        let (placed, distinct) = TOKENS.place(&rows, &images, 10).unwrap();
        assert_eq!(placed, [vec![1, 10, 11, 3, 12, 13], vec![12, 13], vec![4]]);
        assert_eq!(distinct.iter().map(|image| image.pixels[0]).collect::<Vec<_>>(), [0.5, 0.25]);
        assert_eq!(TOKENS.place(&rows[2..], &[], 10).unwrap().0, [[4]]);
    }

    #[test]
    fn placeholders_and_images_that_do_not_match_are_refused_with_their_numbers() {
        for (row, images) in
            [(vec![7, 7, 7], vec![image(0.0)]), (vec![7, 7], vec![]), (vec![1], vec![image(0.0)])]
        {
            let message = TOKENS.place(&[vec![], row], &[vec![], images], 10).unwrap_err().to_string();
            assert!(message.contains("row 1") && message.contains("image tokens (id 7)"), "{message}");
        }
        assert!(ImageInput::new(vec![0.0; 5], (1, 2)).unwrap_err().to_string().contains("3·1·2"));
        let wide = ImageInput::new(vec![0.0; 6], (2, 1)).unwrap();
        let message = ImageInput::stack(&[&wide], 1, &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("1×1") && message.contains("2×1"), "{message}");
    }
}
