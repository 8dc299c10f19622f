//! The layer that both towers of CLIP are made of, transformers' `CLIPEncoderLayer`.

use crate::config::ConfigFile;
use crate::error::Result;
use crate::nn::{LayerNorm, Linear};
use crate::params::{Init, Scope};
use candle_core::Tensor;
use votive_tensor::{Activation, AttentionMask, activate, attention};

/// transformers' names of activations.
const ACTIVATIONS: [(&str, Activation); 5] = [
    ("quick_gelu", Activation::QuickGelu),
    ("gelu", Activation::GeluErf),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_new", Activation::GeluTanh),
    ("silu", Activation::Silu),
];

/// An activation's field, with the one that it has if it is absent.
///
/// # Errors
/// If the activation is not one of CLIP's.
pub(crate) fn activation(file: &ConfigFile, field: &str, absent: &str) -> Result<Activation> {
    let act = file.maybe_str(field)?.unwrap_or_else(|| absent.to_owned());
    let found = ACTIVATIONS.into_iter().find(|(name, _)| *name == act);
    found.map(|(_, activation)| activation).ok_or_else(|| {
        let names = ACTIVATIONS.map(|(name, _)| name).join(", ");
        file.unsupported(field, &format!("supported: {names}"))
    })
}

/// transformers' name of an activation.
pub(super) fn activation_name(activation: Activation) -> Option<&'static str> {
    ACTIVATIONS.iter().find(|(_, known)| *known == activation).map(|(name, _)| *name)
}

/// Shape of every layer of a tower.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerConfig {
    pub(super) width: usize,
    /// Width inside the feed-forward net.
    pub(super) inner: usize,
    pub(super) heads: usize,
    /// Layers of the tower; a start from nothing is narrower with depth.
    pub(super) layers: usize,
    pub(super) activation: Activation,
    /// ε of the layer normalisations.
    pub(super) eps: f64,
}

/// Self-attention and a feed-forward net, each normalised first and added.
#[derive(Clone, Debug)]
pub(super) struct EncoderLayer {
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

impl EncoderLayer {
    pub(super) fn new(scope: &Scope, config: LayerConfig) -> Result<Self> {
        let LayerConfig { width, inner, heads, layers, activation, eps } = config;
        // The start that transformers gives these maps.
        let wide = (width as f64).powf(-0.5);
        let deep = wide * (2.0 * layers as f64).powf(-0.5);
        let expand = (2.0 * width as f64).powf(-0.5);
        let linear = |name: &str, ins, outs, deviation| {
            Linear::with_init(&scope.sub(name), ins, outs, true, Init::Normal(deviation))
        };
        let norm = |name: &str| LayerNorm::new(&scope.sub(name), width, eps);
        Ok(Self {
            norm1: norm("layer_norm1")?,
            query: linear("self_attn.q_proj", width, width, deep)?,
            key: linear("self_attn.k_proj", width, width, deep)?,
            value: linear("self_attn.v_proj", width, width, deep)?,
            out: linear("self_attn.out_proj", width, width, wide)?,
            norm2: norm("layer_norm2")?,
            fc1: linear("mlp.fc1", width, inner, expand)?,
            fc2: linear("mlp.fc2", inner, width, deep)?,
            heads,
            scale: (width as f64 / heads as f64).powf(-0.5),
            activation,
        })
    }

    /// `x (B, S, width)` → the same shape.
    pub(super) fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let (q, k, v) = (self.query.forward(&h)?, self.key.forward(&h)?, self.value.forward(&h)?);
        let mixed = attention((&q, &k, &v), self.heads, self.heads, self.scale, mask)?;
        let x = (self.out.forward(&mixed)? + x)?;
        let h = activate(&self.fc1.forward(&self.norm2.forward(&x)?)?, self.activation)?;
        Ok((self.fc2.forward(&h)? + &x)?)
    }
}
