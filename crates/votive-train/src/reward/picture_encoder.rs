//! The way from a picture to CLIP's space: what every score by a CLIP folder starts with.

use super::{Pictures, RewardFootprint};
use crate::error::{Result, TrainError};
use crate::memory::folder_bytes;
use candle_core::{Device, Tensor};
use std::path::Path;
use votive_model::clip::{ClipImageProcessor, ClipModel};

/// Numbers a channel that a layer of the image encoder keeps for every patch: two norms, three projections, mix, way out,
/// two sums, the feed-forward's way out.
const LAYER: u64 = 10;

/// The model of a CLIP folder and its image processor.
#[derive(Debug)]
pub(super) struct PictureEncoder {
    pub(super) model: ClipModel,
    processor: ClipImageProcessor,
    /// Of the folder's files, bytes.
    weights: u64,
    pub(super) device: Device,
}

impl PictureEncoder {
    /// Reads a folder.
    ///
    /// # Errors
    /// If a file is missing, malformed or not supported, or the processor makes other images than the model reads.
    pub(super) fn open(folder: &Path, device: &Device) -> Result<Self> {
        let model = ClipModel::load(folder, device)?;
        let processor = ClipImageProcessor::read(folder)?;
        let side = model.vision_config().image_size;
        if processor.output_size() != Some((side, side)) {
            let found = processor.output_size().map_or_else(
                || "images of their own shapes".to_owned(),
                |(width, height)| format!("{width}x{height} pixels"),
            );
            let folder = folder.display();
            let message =
                format!("{folder}: the image processor gives {found}, the encoder reads {side}x{side}");
            return Err(TrainError::Plan(message));
        }
        Ok(Self { model, processor, weights: folder_bytes(folder), device: device.clone() })
    }

    /// Embeddings of pictures as they lie in files, scaled and cut as bytes, `(B, projection_dim)`.
    ///
    /// # Errors
    /// If a picture has no pixels, or the encoder fails.
    pub(super) fn of_files(&self, pictures: Pictures) -> Result<Tensor> {
        let side = self.model.vision_config().image_size;
        let mut pixels = Vec::with_capacity(pictures.len() * 3 * side * side);
        for (bytes, size) in pictures {
            pixels.extend(self.processor.pixels(bytes, *size)?);
        }
        let pixels = Tensor::from_vec(pixels, (pictures.len(), 3, side, side), &self.device)?;
        Ok(self.model.image_embeds(&pixels)?)
    }

    /// The same of pictures that a network has drawn, with a gradient by their pixels.
    ///
    /// # Shapes
    /// `pictures (B, 3, H, W)` from 0 to 1 → `(B, projection_dim)`
    /// # Errors
    /// If the encoder fails.
    pub(super) fn of_drawn(&self, pictures: &Tensor) -> Result<Tensor> {
        Ok(self.model.image_embeds(&self.processor.drawn(pictures)?)?)
    }

    /// What it takes of memory.
    pub(super) fn footprint(&self) -> RewardFootprint {
        let config = self.model.vision_config();
        let (width, inner) = (config.hidden_size as u64, config.intermediate_size as u64);
        let patches = config.patches() as u64 + 1;
        let layer = LAYER * width + 2 * inner;
        RewardFootprint {
            weights: self.weights,
            kept: patches * (config.num_hidden_layers as u64 * layer + 4 * width),
        }
    }
}
