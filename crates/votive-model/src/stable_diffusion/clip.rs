//! CLIP's text encoder, `CLIPTextModel` in transformers: what the U-Net attends to.
//!
//! Source: Radford et al., "Learning transferable visual models from natural language supervision", arXiv:2103.00020,
//! Sec. 2.4.

use super::clip_config::ClipTextConfig;
use crate::causal_lm::check_ids;
use crate::error::{ModelError, Result};
use crate::nn::{Embedding, LayerNorm, Linear};
use crate::params::{Init, Scope};
use candle_core::Tensor;
use votive_tensor::{Activation, AttentionMask, activate, attention};

/// Encodes a prompt's tokens.
#[derive(Clone, Debug)]
pub struct ClipTextModel {
    config: ClipTextConfig,
    tokens: Embedding,
    positions: Embedding,
    layers: Vec<Layer>,
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
        let layer = |i: usize| Layer::new(&scope.sub("encoder.layers").sub(i), config);
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
            let next = layer.forward(&h)?;
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

/// Causal self-attention and a feed-forward net, each normalised first and added.
#[derive(Clone, Debug)]
struct Layer {
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    scale: f64,
    activation: Activation,
}

impl Layer {
    fn new(scope: &Scope, config: &ClipTextConfig) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        // The start that transformers gives these maps, narrower with depth.
        let wide = (width as f64).powf(-0.5);
        let deep = wide * (2.0 * config.num_hidden_layers as f64).powf(-0.5);
        let expand = (2.0 * width as f64).powf(-0.5);
        let linear = |name: &str, ins, outs, deviation| {
            Linear::with_init(&scope.sub(name), ins, outs, true, Init::Normal(deviation))
        };
        let norm = |name: &str| LayerNorm::new(&scope.sub(name), width, config.layer_norm_eps);
        Ok(Self {
            norm1: norm("layer_norm1")?,
            query: linear("self_attn.q_proj", width, width, deep)?,
            key: linear("self_attn.k_proj", width, width, deep)?,
            value: linear("self_attn.v_proj", width, width, deep)?,
            out: linear("self_attn.out_proj", width, width, wide)?,
            norm2: norm("layer_norm2")?,
            fc1: linear("mlp.fc1", width, inner, expand)?,
            fc2: linear("mlp.fc2", inner, width, deep)?,
            heads: config.num_attention_heads,
            scale: (width as f64 / config.num_attention_heads as f64).powf(-0.5),
            activation: config.hidden_act,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let (q, k, v) = (self.query.forward(&h)?, self.key.forward(&h)?, self.value.forward(&h)?);
        let mixed = attention((&q, &k, &v), self.heads, self.heads, self.scale, &AttentionMask::causal())?;
        let x = (self.out.forward(&mixed)? + x)?;
        let h = activate(&self.fc1.forward(&self.norm2.forward(&x)?)?, self.activation)?;
        Ok((self.fc2.forward(&h)? + &x)?)
    }
}
