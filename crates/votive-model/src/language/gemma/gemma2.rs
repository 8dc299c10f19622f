//! Gemma 2: soft caps on scores and logits, a sliding window in every other layer, norms before and behind everything.

use super::{Sandwich, decoder, read_sizes, scores, softcap};
use crate::config::ConfigFile;
use crate::error::Result;
use crate::language::attention::{Projections, RotaryAttention, SelfAttention};
use crate::language::decoder::Roots;
use crate::language::rope::{DEFAULT_THETA, Rope, Rotary};
use crate::language::sizes::{layer_windows, window_size};
use crate::language::{Architecture, Decoder, Network, Sizes};
use serde_json::json;
use std::sync::Arc;
use votive_tensor::Scores;

pub(crate) const ARCHITECTURE: Architecture = Architecture {
    model_type: "gemma2",
    class: "Gemma2ForCausalLM",
    reward_class: Some("Gemma2ForSequenceClassification"),
    pad_token_id: Some(0),
    own_code: None,
    sees_images: false,
    read: |file| Ok(Arc::new(Gemma2Config::read(file)?)),
};

#[derive(Debug)]
struct Gemma2Config {
    sizes: Sizes,
    rope: Rope,
    windows: Vec<Option<usize>>,
    scores: Scores,
    logit_softcap: Option<f64>,
    attention_bias: bool,
}

impl Gemma2Config {
    fn read(config: &ConfigFile) -> Result<Self> {
        config.only("hidden_activation", &[json!("gelu_pytorch_tanh")])?;
        let sizes = read_sizes(config, 4, 8192)?;
        let window = window_size(config, Some(4096))?;
        let attention_cap = softcap(config, "attn_logit_softcapping", Some(50.0))?;
        Ok(Self {
            rope: Rope::read(config, DEFAULT_THETA, sizes.max_position_embeddings)?,
            windows: layer_windows(config, sizes.num_hidden_layers, window, |layer| layer.is_multiple_of(2))?,
            scores: scores(config, attention_cap)?,
            logit_softcap: softcap(config, "final_logit_softcapping", Some(30.0))?,
            attention_bias: config.bool_or("attention_bias", false)?,
            sizes,
        })
    }
}

impl Network for Gemma2Config {
    fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    fn decoder(&self, roots: &Roots) -> Result<Decoder> {
        let (sizes, bias) = (&self.sizes, self.attention_bias);
        let decoder =
            decoder(sizes, roots, vec![Rotary::new(&self.rope, sizes.head_dim)], |index, scope| {
                let attention = RotaryAttention {
                    scores: self.scores,
                    ..RotaryAttention::new(sizes, index, self.windows[index])
                };
                let projections = Projections::new(sizes, &scope.sub("self_attn"), bias, bias)?;
                Sandwich::new(sizes, scope, SelfAttention::new(projections, attention))
            })?;
        Ok(decoder.with_logit_softcap(self.logit_softcap))
    }
}
