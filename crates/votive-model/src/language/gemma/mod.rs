//! Gemma 1, 2 and 3 (text): norms whose weights are stored as distances from 1, scaled embeddings, a GEGLU.
//!
//! Source: Gemma Team, arXiv:2403.08295, arXiv:2408.00118 (Gemma 2), arXiv:2503.19786 (Gemma 3).

pub(super) mod gemma1;
pub(super) mod gemma2;
pub(super) mod gemma3;

use super::attention::SelfAttention;
use super::block::{Attention, Mlp};
use super::cache::KvCache;
use super::decoder::{Decoder, Layer, Norm, Places, Roots};
use super::mlp::GatedMlp;
use super::rope::Rotary;
use super::sizes::{SizeDefaults, Sizes, refuse_what_is_not_implemented};
use crate::config::ConfigFile;
use crate::error::Result;
use crate::nn::RmsNorm;
use crate::params::Scope;
use candle_core::Tensor;
use serde_json::json;
use votive_tensor::{Activation, Scores};

const NORM: Norm = RmsNorm::around_one;

/// Reads what all Gemmas share.
fn read_sizes(config: &ConfigFile, key_value_heads: usize, max_positions: usize) -> Result<Sizes> {
    refuse_what_is_not_implemented(config)?;
    config.only("use_bidirectional_attention", &[json!(false)])?;
    let (key_value_heads, head_dim) = (Some(key_value_heads), Some(256));
    Sizes::read(
        config,
        SizeDefaults { key_value_heads, head_dim, max_positions, tied: true, ..SizeDefaults::PLAIN },
    )
}

/// A decoder with scaled embeddings.
fn decoder<L: Layer + 'static>(
    sizes: &Sizes,
    roots: &Roots,
    rotary: Vec<Rotary>,
    layer: impl Fn(usize, &Scope) -> Result<L>,
) -> Result<Decoder> {
    let decoder = Decoder::new(sizes, roots, rotary, NORM, layer)?;
    Ok(decoder.with_embedding_scale((sizes.hidden_size as f64).sqrt()))
}

/// A bound of a soft cap; none if the field is null.
fn softcap(config: &ConfigFile, field: &str, absent: Option<f64>) -> Result<Option<f64>> {
    match config.maybe_f64(field)? {
        Some(cap) if cap > 0.0 => Ok(Some(cap)),
        Some(_) => Err(config.unsupported(field, "a number above 0, or null")),
        None => Ok(absent.filter(|_| config.value().get(field).is_none())),
    }
}

/// Scores scaled by `1/√query_pre_attn_scalar`.
fn scores(config: &ConfigFile, softcap: Option<f64>) -> Result<Scores> {
    const FIELD: &str = "query_pre_attn_scalar";
    match config.maybe_f64(FIELD)?.unwrap_or(256.0) {
        scalar if scalar > 0.0 => Ok(Scores { scale: scalar.powf(-0.5), softcap }),
        _ => Err(config.unsupported(FIELD, "a number above 0")),
    }
}

/// Norms before and behind both attention and MLP (Gemma 2 and 3).
#[derive(Debug)]
struct Sandwich {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
}

impl Sandwich {
    fn new(sizes: &Sizes, scope: &Scope, self_attn: SelfAttention) -> Result<Self> {
        let norm = |name: &str| NORM(&scope.sub(name), sizes.hidden_size, sizes.rms_norm_eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm")?,
            mlp: GatedMlp::new(sizes, &scope.sub("mlp"), false, Activation::GeluTanh)?,
            post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
        })
    }
}

impl Layer for Sandwich {
    fn forward(&self, x: &Tensor, places: &Places, cache: Option<&KvCache>) -> Result<Tensor> {
        let y = self.self_attn.forward(&self.input_layernorm.forward(x)?, places, cache)?;
        let x = (x + self.post_attention_layernorm.forward(&y)?)?;
        let y = self.mlp.forward(&self.pre_feedforward_layernorm.forward(&x)?)?;
        Ok((&x + self.post_feedforward_layernorm.forward(&y)?)?)
    }
}
