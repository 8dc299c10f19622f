//! Gemma 3 (text): norms on queries and keys, and two sets of rotary angles, for layers with and without a window.

use super::{NORM, Sandwich, decoder, read_sizes, scores, softcap};
use crate::config::ConfigFile;
use crate::error::Result;
use crate::language::attention::{Projections, RotaryAttention, SelfAttention};
use crate::language::decoder::Roots;
use crate::language::rope::{Rope, Rotary};
use crate::language::sizes::{FULL, SLIDING, layer_windows, window_size};
use crate::language::{Architecture, Decoder, Network, Sizes};
use serde_json::json;
use std::sync::Arc;
use votive_tensor::Scores;

pub(crate) const ARCHITECTURE: Architecture = Architecture {
    model_type: "gemma3_text",
    class: "Gemma3ForCausalLM",
    reward_class: Some("Gemma3TextForSequenceClassification"),
    pad_token_id: Some(0),
    own_code: None,
    sees_images: false,
    read: |file| Ok(Arc::new(Gemma3Config::read(file)?)),
};

#[derive(Debug)]
struct Gemma3Config {
    sizes: Sizes,
    /// Angles of layers that see everything, and of those with a window.
    ropes: [Rope; 2],
    windows: Vec<Option<usize>>,
    scores: Scores,
    logit_softcap: Option<f64>,
    attention_bias: bool,
}

impl Gemma3Config {
    fn read(config: &ConfigFile) -> Result<Self> {
        config.only("hidden_activation", &[json!("gelu_pytorch_tanh")])?;
        // The class has the field and does not use it.
        config.only("attn_logit_softcapping", &[])?;
        let sizes = read_sizes(config, 4, 131_072)?;
        let window = window_size(config, Some(4096))?;
        if window.is_none() {
            return Err(config.unsupported("sliding_window", "a number"));
        }
        let pattern = config.maybe_usize("sliding_window_pattern")?.unwrap_or(6);
        if pattern == 0 {
            return Err(config.unsupported("sliding_window_pattern", "1 or more"));
        }
        let slides = |layer: usize| !(layer + 1).is_multiple_of(pattern);
        Ok(Self {
            ropes: ropes(config, sizes.max_position_embeddings)?,
            windows: layer_windows(config, sizes.num_hidden_layers, window, slides)?,
            scores: scores(config, None)?,
            logit_softcap: softcap(config, "final_logit_softcapping", None)?,
            attention_bias: config.bool_or("attention_bias", false)?,
            sizes,
        })
    }
}

/// `rope_parameters` with a set for each kind of layer (transformers 5), or `rope_theta`, `rope_local_base_freq` and a
/// `rope_scaling` that stretches the global one alone (transformers 4).
fn ropes(config: &ConfigFile, max_positions: usize) -> Result<[Rope; 2]> {
    config.only("partial_rotary_factor", &[json!(1), json!(1.0)])?;
    let (newer, older) = (config.object("rope_parameters"), config.object("rope_scaling"));
    if newer.is_some() && older.is_some() {
        return Err(config.unsupported("rope_scaling", "either this or `rope_parameters`"));
    }
    let other = |name: &String| name != FULL && name != SLIDING;
    let nested = newer.as_ref().and_then(|newer| newer.value().as_object());
    if let (Some(newer), Some(name)) = (&newer, nested.and_then(|nested| nested.keys().find(|n| other(n)))) {
        return Err(newer.unsupported(name, &format!("a set for `{FULL}` and one for `{SLIDING}`")));
    }
    let of = |kind: &str| newer.as_ref().and_then(|newer| newer.object(kind));
    let (global, local) = (of(FULL).or(older), of(SLIDING));
    let theta = config.maybe_f64("rope_theta")?.unwrap_or(1_000_000.0);
    let local_theta = config.maybe_f64("rope_local_base_freq")?.unwrap_or(10_000.0);
    for fields in global.iter().chain(&local) {
        fields.only("partial_rotary_factor", &[json!(1), json!(1.0)])?;
    }
    Ok([
        Rope::of(config, global.as_ref(), theta, max_positions)?,
        Rope::of(config, local.as_ref(), local_theta, max_positions)?,
    ])
}

impl Network for Gemma3Config {
    fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    fn decoder(&self, roots: &Roots) -> Result<Decoder> {
        let (sizes, bias) = (&self.sizes, self.attention_bias);
        let rotary = self.ropes.iter().map(|rope| Rotary::new(rope, sizes.head_dim)).collect();
        let decoder = decoder(sizes, roots, rotary, |index, scope| {
            let window = self.windows[index];
            let attention = RotaryAttention {
                scores: self.scores,
                rotary: Some(usize::from(window.is_some())),
                ..RotaryAttention::new(sizes, index, window)
            };
            let place = scope.sub("self_attn");
            let projections = Projections::new(sizes, &place, bias, bias)?;
            let attention =
                SelfAttention::new(projections, attention).with_head_norms(sizes, &place, NORM)?;
            Sandwich::new(sizes, scope, attention)
        })?;
        Ok(decoder.with_logit_softcap(self.logit_softcap))
    }
}
