//! Rewards that recipes name.

use candle_core::{DType, Tensor};
use std::sync::Arc;
use votive_diffusion::BoxError;
use votive_eval::grade_images;
use votive_playground::image::Picture;
use votive_train::RewardKind;
use votive_train::reward::ImageReward;

/// The reward of a name that the trainer does not make itself: of the worlds, it knows none.
pub(crate) fn reward(_: RewardKind) -> Arc<dyn ImageReward> {
    Arc::new(Playground)
}

/// The utility that the playground's exact checker sees: how much of the caption is met, and how clean the picture is.
struct Playground;

impl ImageReward for Playground {
    fn score(&self, prompts: &[String], images: &Tensor) -> Result<Vec<f64>, BoxError> {
        let (_, _, height, width) = images.dims4()?;
        let bytes = (images.detach().permute((0, 2, 3, 1))? * 255.0)?.round()?.to_dtype(DType::U8)?;
        let bytes = bytes.flatten_from(1)?.to_vec2::<u8>()?;
        let pictures: Vec<Picture> = bytes.into_iter().map(|rgb| Picture { width, height, rgb }).collect();
        Ok(grade_images(prompts, &pictures)?.into_iter().map(|graded| graded.utility).collect())
    }
}
