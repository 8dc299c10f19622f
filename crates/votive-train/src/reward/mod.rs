//! Who says how good pictures are: what a policy learns from, and what two sets of pictures are compared by.

mod aesthetic;
mod clip;
mod picture_encoder;
mod scorer;

pub use aesthetic::AestheticScorer;
pub use clip::{ClipScorer, EncodedTexts};
pub use scorer::PictureScorer;

use crate::error::Result as TrainResult;
use candle_core::{DType, Tensor};
use std::sync::Arc;
use votive_diffusion::BoxError;

/// Pictures as files have them: bytes (H, W, 3), with width and height.
pub type Pictures<'a> = &'a [(&'a [u8], (usize, usize))];

/// Scores as numbers.
fn numbers(scores: &Tensor) -> TrainResult<Vec<f64>> {
    Ok(scores.detach().to_dtype(DType::F64)?.to_vec1()?)
}

/// What a reward takes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewardFootprint {
    /// Its weights, bytes.
    pub weights: u64,
    /// Numbers that a score with a gradient keeps of one picture.
    pub kept: u64,
}

/// Says how good pictures are.
pub trait ImageReward: Send + Sync {
    /// A score for each picture of its prompt, in units of its own.
    ///
    /// # Shapes
    /// `images (B, 3, H, W)`, f32 from 0 to 1
    /// # Errors
    /// If a picture cannot be scored.
    fn score(&self, prompts: &[String], images: &Tensor) -> Result<Vec<f64>, BoxError>;

    /// The same with a gradient by the pixels, `(B,)`; none if there is none.
    ///
    /// # Shapes
    /// As [`ImageReward::score`].
    /// # Errors
    /// If a picture cannot be scored.
    fn tracked(&self, _prompts: &[String], _images: &Tensor) -> Result<Option<Tensor>, BoxError> {
        Ok(None)
    }

    /// What it takes of memory; nothing if that is little.
    fn footprint(&self) -> RewardFootprint {
        RewardFootprint::default()
    }
}

/// A reward that prefers what another one does not.
pub(crate) struct Reversed(pub(crate) Arc<dyn ImageReward>);

impl ImageReward for Reversed {
    fn score(&self, prompts: &[String], images: &Tensor) -> Result<Vec<f64>, BoxError> {
        Ok(self.0.score(prompts, images)?.into_iter().map(|score| -score).collect())
    }

    fn tracked(&self, prompts: &[String], images: &Tensor) -> Result<Option<Tensor>, BoxError> {
        Ok(self.0.tracked(prompts, images)?.map(|scores| scores.neg()).transpose()?)
    }

    fn footprint(&self) -> RewardFootprint {
        self.0.footprint()
    }
}
