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

    /// Width and height.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// (3, H, W), one number after another.
    pub(crate) fn pixels(&self) -> &[f32] {
        &self.pixels
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
    /// The vectors that the model makes of an image.
    pub vectors: ImageVectors,
}

/// The vectors that a model makes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageVectors {
    /// As many of each, because images have one size.
    Fixed {
        /// Pixels along a side of an image.
        side: usize,
        /// Vectors of an image.
        per_image: usize,
    },
    /// One of each cell of an image of any size, row after row; the cell's row and column are its place in the text.
    Cells {
        /// Pixels along a side of a cell.
        side: usize,
    },
}

/// Where a vector stands in its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) row: usize,
    pub(crate) column: usize,
    /// The larger of the image's numbers of rows and columns.
    pub(crate) extent: usize,
}

impl ImageTokens {
    /// Vectors of an image of a width and height, as the model reads it.
    #[must_use]
    pub fn count(&self, size: (usize, usize)) -> usize {
        match self.vectors {
            ImageVectors::Fixed { per_image, .. } => per_image,
            ImageVectors::Cells { side } => (size.0 / side) * (size.1 / side),
        }
    }

    /// Puts the ids of images, from `vocabulary` on, in the place of the placeholders of rows; also gives the distinct images
    /// in the order of their ids.
    ///
    /// # Errors
    /// If a row's placeholders are not as many as its images have vectors, or those of an image do not stand together.
    pub(crate) fn place<'a>(
        &self,
        rows: &[Vec<u32>],
        images: &'a [Vec<ImageInput>],
        vocabulary: usize,
    ) -> Result<(Vec<Vec<u32>>, Vec<&'a ImageInput>)> {
        let mut distinct: Vec<&ImageInput> = Vec::new();
        let mut first_ids: BTreeMap<&[u8; 32], usize> = BTreeMap::new();
        let mut next_id = vocabulary;
        let mut placed = rows.to_vec();
        for (row, ids) in placed.iter_mut().enumerate() {
            let images = images.get(row).map_or(&[][..], Vec::as_slice);
            let is_place = |(at, id): (usize, &u32)| (*id == self.placeholder).then_some(at);
            let places: Vec<usize> = ids.iter().enumerate().filter_map(is_place).collect();
            let counts: Vec<usize> = images.iter().map(|image| self.count(image.size())).collect();
            let asked = counts.iter().sum();
            if places.len() != asked {
                return Err(self.mismatch(row, places.len(), images.len(), asked));
            }
            let mut rest = places.as_slice();
            for (image, count) in images.iter().zip(counts) {
                let (own, others) = rest.split_at(count);
                rest = others;
                if own.windows(2).any(|pair| pair[1] != pair[0] + 1) {
                    let message = format!("row {row}: the image tokens of an image do not stand together");
                    return Err(ModelError::Tokens(message));
                }
                let first = *first_ids.entry(image.identity()).or_insert_with(|| {
                    distinct.push(image);
                    next_id += count;
                    next_id - count
                });
                (first..).zip(own).for_each(|(id, at)| ids[*at] = id as u32);
            }
        }
        Ok((placed, distinct))
    }

    /// Where each vector of some images stands in its image, if texts' positions say so.
    pub(crate) fn cells(&self, images: &[&ImageInput]) -> Option<Arc<[Cell]>> {
        let ImageVectors::Cells { side } = self.vectors else { return None };
        let of_image = |image: &&ImageInput| {
            let (columns, rows) = (image.width / side, image.height / side);
            let extent = rows.max(columns);
            let cell = move |at| Cell { row: at / columns, column: at % columns, extent };
            (0..rows * columns).map(cell)
        };
        Some(images.iter().flat_map(of_image).collect())
    }

    fn mismatch(&self, row: usize, found: usize, images: usize, asked: usize) -> ModelError {
        ModelError::Tokens(format!(
            "row {row} has {found} image tokens (id {}) and {images} images, which ask for {asked}",
            self.placeholder
        ))
    }
}

/// Rows whose placeholders have become ids beyond the vocabulary, and what those stand for.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The rows.
    pub rows: Vec<Vec<u32>>,
    /// What the ids of images stand for; none where there is no image.
    pub images: Option<SeenImages>,
}

/// What ids beyond the vocabulary stand for, from the first one on: N vectors of one image after another.
#[derive(Clone, Debug)]
pub struct SeenImages {
    /// `(N, D)`; what stands in the place of embeddings.
    pub vectors: Tensor,
    /// `(N, D)` each; what is added to hidden states behind each of the first layers.
    pub added: Vec<Tensor>,
    /// Where each vector stands in its image, if texts' positions say so.
    pub(crate) cells: Option<Arc<[Cell]>>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const TOKENS: ImageTokens =
        ImageTokens { placeholder: 7, vectors: ImageVectors::Fixed { side: 1, per_image: 2 } };
    const CELLS: ImageTokens = ImageTokens { placeholder: 7, vectors: ImageVectors::Cells { side: 2 } };

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
    fn images_of_different_sizes_have_as_many_ids_as_cells() {
        let of = |width, height| ImageInput::new(vec![0.5; 3 * width * height], (width, height)).unwrap();
        let (wide, small) = (of(6, 4), of(2, 2));
        let rows = [vec![7, 1, 7, 7, 7, 7, 7, 7], vec![7; 6]];
        let images = [vec![small.clone(), wide.clone()], vec![wide.clone()]];
        let (placed, distinct) = CELLS.place(&rows, &images, 10).unwrap();
        assert_eq!(placed, [vec![10, 1, 11, 12, 13, 14, 15, 16], (11..17).collect()]);
        let cells = CELLS.cells(&distinct).unwrap();
        let cell = |row, column, extent| Cell { row, column, extent };
        assert_eq!(cells[..3], [cell(0, 0, 1), cell(0, 0, 3), cell(0, 1, 3)]);
        assert_eq!(cells[6], cell(1, 2, 3));
        assert_eq!(TOKENS.cells(&distinct), None);
        let apart = CELLS.place(&[vec![7, 7, 7, 1, 7, 7, 7]], &[vec![wide]], 10).unwrap_err().to_string();
        assert!(apart.contains("do not stand together"), "{apart}");
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
