//! From the tokens of prompts to what the U-Net is told: one text encoder, or SDXL's two.
//!
//! Source: Podell et al., "SDXL", arXiv:2307.01952, Sec. 2.1: the states before the last layer of both encoders side by
//! side, and the pooled prompt of the second. Checked against: diffusers 0.42.1, `encode_prompt` of both pipelines.

use crate::clip::{ClipTextConfig, ClipTextModel, ClipTextModelWithProjection};
use crate::error::{ModelError, Result};
use candle_core::Tensor;
use votive_diffusion::Conditioning;

/// The text encoders of a pipeline.
#[derive(Clone, Debug)]
pub struct TextEncoders {
    first: ClipTextModel,
    second: Option<ClipTextModelWithProjection>,
}

impl TextEncoders {
    pub(super) fn new(first: ClipTextModel, second: Option<ClipTextModelWithProjection>) -> Self {
        Self { first, second }
    }

    /// The configuration of each, in the order of the tokenizers.
    #[must_use]
    pub fn configs(&self) -> Vec<&ClipTextConfig> {
        let second = self.second.as_ref().map(ClipTextModelWithProjection::config);
        std::iter::once(self.first.config()).chain(second).collect()
    }

    /// What the U-Net is told of prompts; the sizes of the pictures are not among it.
    ///
    /// # Shapes
    /// `ids (B, S)` u32 of each tokenizer → a conditioning of B rows
    /// # Errors
    /// If there are not as many tokenizers as encoders; as [`ClipTextModel::forward`].
    pub fn encode(&self, ids: &[Tensor]) -> Result<Conditioning> {
        match (&self.second, ids) {
            (None, [ids]) => Ok(Conditioning::new(self.first.forward(ids)?)?),
            (Some(second), [first_ids, second_ids]) if first_ids.dims() == second_ids.dims() => {
                let first = self.first.states(first_ids)?.penultimate;
                let second = second.forward(second_ids)?;
                let embeds = Tensor::cat(&[&first, &second.penultimate], 2)?;
                Ok(Conditioning::new(embeds)?.with_pooled(second.pooled)?)
            }
            _ => Err(ModelError::Shape {
                what: "tokens of the prompts".to_owned(),
                expected: format!("{} tables of one shape", self.configs().len()),
                found: format!("{:?}", ids.iter().map(Tensor::dims).collect::<Vec<_>>()),
            }),
        }
    }
}
