//! OLMo 2: norms behind attention and MLP instead of before them, and norms of all queries and of all keys together.
//!
//! Source: OLMo Team, arXiv:2501.00656.

use super::attention::{Projections, RotaryAttention};
use super::block::{Attention, Mlp};
use super::cache::KvCache;
use super::decoder::{Decoder, Layer, Places, Roots};
use super::mlp::GatedMlp;
use super::rope::{DEFAULT_THETA, Rope, Rotary};
use super::sizes::{SizeDefaults, Sizes, refuse_what_is_not_implemented};
use super::{Architecture, Network};
use crate::config::ConfigFile;
use crate::error::Result;
use crate::nn::RmsNorm;
use crate::params::Scope;
use candle_core::Tensor;
use serde_json::json;
use std::sync::Arc;
use votive_tensor::Activation;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "olmo2",
    class: "Olmo2ForCausalLM",
    reward_class: Some("Olmo2ForSequenceClassification"),
    pad_token_id: Some(1),
    own_code: None,
    sees_images: false,
    read: |file| Ok(Arc::new(Olmo2Config::read(file)?)),
};

#[derive(Debug)]
struct Olmo2Config {
    sizes: Sizes,
    rope: Rope,
    attention_bias: bool,
}

impl Olmo2Config {
    fn read(config: &ConfigFile) -> Result<Self> {
        refuse_what_is_not_implemented(config)?;
        config.only("hidden_act", &[json!("silu")])?;
        let sizes = Sizes::read(config, SizeDefaults { rms_norm_eps: 1e-5, ..SizeDefaults::PLAIN })?;
        Ok(Self {
            rope: Rope::read(config, DEFAULT_THETA, sizes.max_position_embeddings)?,
            attention_bias: config.bool_or("attention_bias", false)?,
            sizes,
        })
    }
}

impl Network for Olmo2Config {
    fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    fn decoder(&self, roots: &Roots) -> Result<Decoder> {
        let rotary = vec![Rotary::new(&self.rope, self.sizes.head_dim)];
        Decoder::new(&self.sizes, roots, rotary, RmsNorm::new, |index, scope| {
            PostNorm::new(self, index, scope)
        })
    }
}

/// `x + norm(attention(x))`, then `x + norm(mlp(x))`.
#[derive(Debug)]
struct PostNorm {
    self_attn: NormedAttention,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
}

impl PostNorm {
    fn new(config: &Olmo2Config, index: usize, scope: &Scope) -> Result<Self> {
        let sizes = &config.sizes;
        let norm = |name: &str| RmsNorm::new(&scope.sub(name), sizes.hidden_size, sizes.rms_norm_eps);
        Ok(Self {
            self_attn: NormedAttention::new(config, index, &scope.sub("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: GatedMlp::new(sizes, &scope.sub("mlp"), false, Activation::Silu)?,
            post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
        })
    }
}

impl Layer for PostNorm {
    fn forward(&self, x: &Tensor, places: &Places, cache: Option<&KvCache>) -> Result<Tensor> {
        let y = self.self_attn.forward(x, places, cache)?;
        let x = (x + self.post_attention_layernorm.forward(&y)?)?;
        let y = self.mlp.forward(&x)?;
        Ok((&x + self.post_feedforward_layernorm.forward(&y)?)?)
    }
}

#[derive(Debug)]
struct NormedAttention {
    projections: Projections,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    attention: RotaryAttention,
}

impl NormedAttention {
    fn new(config: &Olmo2Config, index: usize, scope: &Scope) -> Result<Self> {
        let (sizes, bias) = (&config.sizes, config.attention_bias);
        let norm = |name: &str, width| RmsNorm::new(&scope.sub(name), width, sizes.rms_norm_eps);
        Ok(Self {
            projections: Projections::new(sizes, scope, bias, bias)?,
            q_norm: norm("q_norm", sizes.query_width())?,
            k_norm: norm("k_norm", sizes.key_width())?,
            attention: RotaryAttention::new(sizes, index, None),
        })
    }
}

impl Attention for NormedAttention {
    fn forward(&self, x: &Tensor, places: &Places, cache: Option<&KvCache>) -> Result<Tensor> {
        let [q, k, v] = self.projections.project(x)?;
        let qkv = [self.q_norm.forward(&q)?, self.k_norm.forward(&k)?, v];
        self.projections.out(&self.attention.forward(qkv, places, cache)?)
    }
}
