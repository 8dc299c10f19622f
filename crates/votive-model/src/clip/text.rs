//! CLIP's text encoder, `CLIPTextModel` in transformers: what the U-Net attends to.
//!
//! Source: Radford et al., "Learning transferable visual models from natural language supervision", arXiv:2103.00020,
//! Sec. 2.4.

use super::layer::{EncoderLayer, LayerConfig};
use super::text_config::ClipTextConfig;
use crate::causal_lm::check_ids;
use crate::error::{ModelError, Result};
use crate::nn::{Embedding, LayerNorm};
use crate::params::{Init, Scope};
use candle_core::Tensor;
use votive_tensor::AttentionMask;

/// Encodes a prompt's tokens.
#[derive(Clone, Debug)]
pub struct ClipTextModel {
    config: ClipTextConfig,
    tokens: Embedding,
    positions: Embedding,
    layers: Vec<EncoderLayer>,
    final_norm: LayerNorm,
}

impl ClipTextModel {
    /// The network on the parameters of this place, whose names may start with `text_model.` (as up to transformers 4;
    /// fresh parameters are named so) or not.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub fn new(scope: &Scope, config: &ClipTextConfig) -> Result<Self> {
        let bare = scope.has("embeddings.token_embedding.weight");
        let scope = if bare { scope.clone() } else { scope.sub("text_model") };
        scope.ignore("embeddings.position_ids");
        let width = config.hidden_size;
        let table = |name: &str, entries| {
            Embedding::new(&scope.sub("embeddings").sub(name), entries, width, Init::Normal(0.02))
        };
        let shape = LayerConfig {
            width,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            layers: config.num_hidden_layers,
            activation: config.hidden_act,
            eps: config.layer_norm_eps,
        };
        let layer = |i: usize| EncoderLayer::new(&scope.sub("encoder.layers").sub(i), shape);
        Ok(Self {
            tokens: table("token_embedding", config.vocab_size)?,
            positions: table("position_embedding", config.max_position_embeddings)?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            final_norm: LayerNorm::new(&scope.sub("final_layer_norm"), width, config.layer_norm_eps)?,
            config: config.clone(),
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// The last hidden state after the final normalisation, which Stable Diffusion 1 and 2 take as prompt embeddings.
    ///
    /// # Shapes
    /// `ids (B, S)` u32, padded to one length; padding is seen like any other token → `(B, S, hidden_size)`.
    /// # Errors
    /// If a prompt is longer than the position table, or an id is not in the vocabulary.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(self.states(ids)?.last)
    }

    /// The hidden state before the last layer too, without the final normalisation, which SDXL takes.
    ///
    /// # Shapes
    /// As [`ClipTextModel::forward`].
    /// # Errors
    /// As [`ClipTextModel::forward`].
    pub fn states(&self, ids: &Tensor) -> Result<HiddenStates> {
        let (_, length) = ids.dims2()?;
        check_ids(ids.to_vec2()?.iter().map(Vec::as_slice), self.config.vocab_size)?;
        let most = self.config.max_position_embeddings;
        if length > most {
            return Err(ModelError::Shape {
                what: "prompt".to_owned(),
                expected: format!("at most {most} tokens"),
                found: length.to_string(),
            });
        }
        let positions = self.positions.weight().narrow(0, 0, length)?;
        let mut h = self.tokens.forward(ids)?.broadcast_add(&positions)?;
        let mut penultimate = h.clone();
        for layer in &self.layers {
            let next = layer.forward(&h, &AttentionMask::causal())?;
            penultimate = std::mem::replace(&mut h, next);
        }
        Ok(HiddenStates { penultimate, last: self.final_norm.forward(&h)? })
    }
}

/// What a text encoder makes of prompts, `(B, S, hidden_size)` each.
#[derive(Clone, Debug)]
pub struct HiddenStates {
    /// What goes into the last layer.
    pub penultimate: Tensor,
    /// What comes out of it, normalised.
    pub last: Tensor,
}
