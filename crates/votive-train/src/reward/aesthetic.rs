//! How pleasing a picture is, whatever its prompt: LAION's aesthetic predictor on a CLIP model.

use super::picture_encoder::PictureEncoder;
use super::{Pictures, numbers};
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::path::Path;
use votive_model::ModelError;
use votive_model::clip::AestheticHead;

/// A CLIP folder with a head of points beside it.
#[derive(Debug)]
pub struct AestheticScorer {
    pub(super) encoder: PictureEncoder,
    head: AestheticHead,
}

impl AestheticScorer {
    /// Reads a folder: a CLIP model, its image processor, and [`AestheticHead::FILE`].
    ///
    /// # Errors
    /// If a file is missing, malformed or not supported, or the parts do not fit together.
    pub fn open(folder: &Path, device: &Device) -> Result<Self> {
        let encoder = PictureEncoder::open(folder, device)?;
        let file = folder.join(AestheticHead::FILE);
        let head = AestheticHead::read(&file, device)?;
        let (found, width) = (head.width(), encoder.model.text_config().projection_dim);
        if found != width {
            let (what, of) = (file.display().to_string(), |width: usize| format!("a head of width {width}"));
            return Err(ModelError::Shape { what, expected: of(width), found: of(found) }.into());
        }
        Ok(Self { encoder, head })
    }

    /// Points of each picture, of 10. Every picture is scaled and cut as its file would be.
    ///
    /// # Errors
    /// If a picture has no pixels, or the encoder fails.
    pub fn points_of_files(&self, pictures: Pictures) -> Result<Vec<f64>> {
        numbers(&self.head.points(&self.encoder.of_files(pictures)?)?)
    }

    /// The same of pictures that a network has drawn, `(B,)`, with a gradient by their pixels.
    ///
    /// # Shapes
    /// `pictures (B, 3, H, W)` from 0 to 1
    /// # Errors
    /// If the encoder fails.
    pub fn points_of_drawn(&self, pictures: &Tensor) -> Result<Tensor> {
        Ok(self.head.points(&self.encoder.of_drawn(pictures)?)?)
    }
}
