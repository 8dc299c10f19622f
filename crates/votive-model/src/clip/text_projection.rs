//! A text encoder that gives each prompt in one vector too, `CLIPTextModelWithProjection` in transformers.
//!
//! Source: Radford et al., arXiv:2103.00020, Sec. 2.4: the state at the end token, projected.

use super::text::ClipTextModel;
use super::text_config::ClipTextConfig;
use crate::error::Result;
use crate::nn::Linear;
use crate::params::Scope;
use candle_core::Tensor;

/// End token of configurations from before transformers 4.31, which is no id of the vocabulary: the end of a prompt is
/// then its largest id.
const OLD_EOS: u32 = 2;

/// Encodes a prompt's tokens, and pools them.
#[derive(Clone, Debug)]
pub struct ClipTextModelWithProjection {
    text_model: ClipTextModel,
    text_projection: Linear,
}

/// What a pooling text encoder makes of prompts.
#[derive(Clone, Debug)]
pub struct PooledStates {
    /// `(B, S, hidden_size)`: what goes into the last layer.
    pub penultimate: Tensor,
    /// `(B, projection_dim)`: the normalised state at the end token, projected.
    pub pooled: Tensor,
}

impl ClipTextModelWithProjection {
    /// The network on the parameters of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub fn new(scope: &Scope, config: &ClipTextConfig) -> Result<Self> {
        let projection = scope.sub("text_projection");
        Ok(Self {
            text_model: ClipTextModel::new(scope, config)?,
            text_projection: Linear::new(&projection, config.hidden_size, config.projection_dim, false)?,
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ClipTextConfig {
        self.text_model.config()
    }

    /// Encodes and pools.
    ///
    /// # Shapes
    /// `ids (B, S)` u32
    /// # Errors
    /// As [`ClipTextModel::forward`].
    pub fn forward(&self, ids: &Tensor) -> Result<PooledStates> {
        let states = self.text_model.states(ids)?;
        let ends = ids.to_vec2::<u32>()?.into_iter().map(|ids| self.end(&ids)).enumerate();
        let at = |(row, end): (usize, usize)| states.last.narrow(0, row, 1)?.narrow(1, end, 1)?.squeeze(1);
        let pooled = Tensor::cat(&ends.map(at).collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        Ok(PooledStates {
            penultimate: states.penultimate,
            pooled: self.text_projection.forward(&pooled.contiguous()?)?,
        })
    }

    /// Where a prompt ends: at the first end token, or at the start if there is none, as in transformers.
    fn end(&self, ids: &[u32]) -> usize {
        let end = match self.config().eos_token_id {
            OLD_EOS => ids.iter().max().copied().unwrap_or(0),
            eos => eos,
        };
        ids.iter().position(|id| *id == end).unwrap_or(0)
    }
}
