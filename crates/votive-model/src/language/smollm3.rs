//! SmolLM3: Llama's layers, some of them without rotary positions.
//!
//! Source: Bakouch et al., "SmolLM3: smol, multilingual, long-context reasoner" (2025); layers without positions: Yang et
//! al., arXiv:2501.18795.

use super::attention::{Projections, RotaryAttention, SelfAttention};
use super::block::PreNorm;
use super::decoder::{Decoder, Roots};
use super::mlp::GatedMlp;
use super::rope::{Rope, Rotary};
use super::sizes::{SizeDefaults, Sizes, layer_windows, refuse_what_is_not_implemented, window_size};
use super::{Architecture, Network};
use crate::config::ConfigFile;
use crate::error::Result;
use crate::nn::RmsNorm;
use serde_json::{Value, json};
use std::sync::Arc;
use votive_tensor::Activation;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "smollm3",
    class: "SmolLM3ForCausalLM",
    reward_class: Some("SmolLM3ForSequenceClassification"),
    pad_token_id: Some(128_004),
    own_code: None,
    sees_images: false,
    read: |file| Ok(Arc::new(SmolLm3Config::read(file)?)),
};

#[derive(Debug)]
struct SmolLm3Config {
    sizes: Sizes,
    rope: Rope,
    /// Whether each layer turns its queries and keys.
    has_rope: Vec<bool>,
    windows: Vec<Option<usize>>,
    attention_bias: bool,
    mlp_bias: bool,
}

impl SmolLm3Config {
    fn read(config: &ConfigFile) -> Result<Self> {
        const THETA: f64 = 2_000_000.0;
        refuse_what_is_not_implemented(config)?;
        config.only("hidden_act", &[json!("silu")])?;
        let sizes = Sizes::read(
            config,
            SizeDefaults {
                key_value_heads: Some(4),
                max_positions: 32_768,
                tied: true,
                ..SizeDefaults::PLAIN
            },
        )?;
        let has_rope = rope_layers(config, sizes.num_hidden_layers)?;
        let used = config.bool_or("use_sliding_window", false)?;
        let window = window_size(config, None)?.filter(|_| used);
        Ok(Self {
            rope: Rope::read(config, THETA, sizes.max_position_embeddings)?,
            windows: layer_windows(config, sizes.num_hidden_layers, window, |layer| !has_rope[layer])?,
            has_rope,
            attention_bias: config.bool_or("attention_bias", false)?,
            mlp_bias: config.bool_or("mlp_bias", false)?,
            sizes,
        })
    }
}

/// `no_rope_layers`, in which, despite its name, 1 means a layer with rotary positions.
fn rope_layers(config: &ConfigFile, layers: usize) -> Result<Vec<bool>> {
    let Some(list) = config.get("no_rope_layers") else {
        let interval = config.maybe_usize("no_rope_layer_interval")?.unwrap_or(4);
        if interval == 0 {
            return Err(config.unsupported("no_rope_layer_interval", "1 or more"));
        }
        return Ok((1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect());
    };
    let flag = |value: &Value| match value.as_u64() {
        Some(flag @ (0 | 1)) => Some(flag == 1),
        _ => value.as_bool(),
    };
    let flags: Option<Vec<bool>> = list.as_array().and_then(|list| list.iter().map(flag).collect());
    flags.filter(|flags| flags.len() >= layers).ok_or_else(|| {
        config.unsupported("no_rope_layers", &format!("a list of 0 or 1 for each of the {layers} layers"))
    })
}

impl Network for SmolLm3Config {
    fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    fn decoder(&self, roots: &Roots) -> Result<Decoder> {
        let (sizes, bias) = (&self.sizes, self.attention_bias);
        let rotary = vec![Rotary::new(&self.rope, sizes.head_dim)];
        Decoder::new(sizes, roots, rotary, RmsNorm::new, |index, scope| {
            let attention = RotaryAttention {
                rotary: self.has_rope[index].then_some(0),
                ..RotaryAttention::new(sizes, index, self.windows[index])
            };
            let projections = Projections::new(sizes, &scope.sub("self_attn"), bias, bias)?;
            let attention = SelfAttention::new(projections, attention);
            let mlp = GatedMlp::new(sizes, &scope.sub("mlp"), self.mlp_bias, Activation::Silu)?;
            PreNorm::new(sizes, scope, RmsNorm::new, attention, mlp)
        })
    }
}
