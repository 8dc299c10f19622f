//! A CLIP folder as whoever names it means it: as a score of fit, or with a head of its own.

use super::picture_encoder::PictureEncoder;
use super::{AestheticScorer, ClipScorer, ImageReward, Pictures, RewardFootprint, numbers};
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::path::Path;
use votive_diffusion::BoxError;
use votive_model::clip::AestheticHead;

/// Difference of points that makes the odds e to 1. A guess: the head tells mean ratings, and single people's ratings of one
/// picture lie more than a point apart.
const POINT: f64 = 1.0;

/// Whoever gives pictures numbers by a CLIP folder.
#[derive(Debug)]
pub enum PictureScorer {
    /// By the cosine with the prompt: CLIP, PickScore, HPSv2.
    Fit(Box<ClipScorer>),
    /// By a head on the embedding, whatever the prompt: the folder has a file [`AestheticHead::FILE`].
    Aesthetic(Box<AestheticScorer>),
}

impl PictureScorer {
    /// Reads a folder.
    ///
    /// # Errors
    /// As [`ClipScorer::open`] and [`AestheticScorer::open`].
    pub fn open(folder: &Path, device: &Device) -> Result<Self> {
        Ok(match folder.join(AestheticHead::FILE).exists() {
            true => Self::Aesthetic(Box::new(AestheticScorer::open(folder, device)?)),
            false => Self::Fit(Box::new(ClipScorer::open(folder, device)?)),
        })
    }

    /// A number for each picture of its prompt: a cosine, or points of 10.
    ///
    /// # Errors
    /// If a picture has no pixels, or an encoder fails.
    pub fn of_files<S: AsRef<str>>(&self, prompts: &[S], pictures: Pictures) -> Result<Vec<f64>> {
        match self {
            Self::Fit(scorer) => scorer.cosines_of_files(pictures, &scorer.texts(prompts)?.embeds),
            Self::Aesthetic(scorer) => scorer.points_of_files(pictures),
        }
    }

    /// The same of pictures that a network has drawn, `(B,)`, with a gradient by their pixels.
    ///
    /// # Shapes
    /// `pictures (B, 3, H, W)` from 0 to 1
    /// # Errors
    /// If an encoder fails.
    pub fn of_drawn(&self, prompts: &[String], pictures: &Tensor) -> Result<Tensor> {
        match self {
            Self::Fit(scorer) => scorer.cosines_of_drawn(pictures, &scorer.texts(prompts)?.embeds),
            Self::Aesthetic(scorer) => scorer.points_of_drawn(pictures),
        }
    }

    /// Difference of its numbers that makes the odds e to 1: of cosines, one over what the model multiplies them by to be logits.
    #[must_use]
    pub fn unit(&self) -> f64 {
        1.0 / self.log_odds()
    }

    /// Log-odds of a difference of 1.
    fn log_odds(&self) -> f64 {
        match self {
            Self::Fit(scorer) => scorer.scale(),
            Self::Aesthetic(_) => 1.0 / POINT,
        }
    }

    /// How many of some prompts are longer than it reads.
    ///
    /// # Errors
    /// If the tokenizer or the encoder fails.
    pub fn cut_prompts<S: AsRef<str>>(&self, prompts: &[S]) -> Result<usize> {
        Ok(match self {
            Self::Fit(scorer) => {
                scorer.texts(prompts)?.truncated_tokens.into_iter().filter(|lost| *lost > 0).count()
            }
            Self::Aesthetic(_) => 0,
        })
    }

    fn encoder(&self) -> &PictureEncoder {
        match self {
            Self::Fit(scorer) => &scorer.encoder,
            Self::Aesthetic(scorer) => &scorer.encoder,
        }
    }

    fn logits(&self, prompts: &[String], pictures: &Tensor) -> Result<Tensor> {
        Ok((self.of_drawn(prompts, pictures)? * self.log_odds())?)
    }
}

/// Rewards are log-odds: `exp(logit_scale)·cos`, which is PickScore if the model is PickScore's; or points.
impl ImageReward for PictureScorer {
    fn score(&self, prompts: &[String], images: &Tensor) -> std::result::Result<Vec<f64>, BoxError> {
        Ok(numbers(&self.logits(prompts, &images.detach())?)?)
    }

    fn tracked(&self, prompts: &[String], images: &Tensor) -> std::result::Result<Option<Tensor>, BoxError> {
        Ok(Some(self.logits(prompts, images)?))
    }

    fn footprint(&self) -> RewardFootprint {
        self.encoder().footprint()
    }
}
