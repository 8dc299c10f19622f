//! The order of norms, attention and MLP in a layer, where architectures share one.

use super::cache::KvCache;
use super::decoder::{Layer, Norm, Places};
use super::sizes::Sizes;
use crate::error::Result;
use crate::nn::RmsNorm;
use crate::params::Scope;
use candle_core::Tensor;
use std::fmt::Debug;

/// The part of a layer in which tokens look at each other.
pub(crate) trait Attention: Debug + Send + Sync {
    /// `x (B, T, D)` → the same shape; with a cache, the tokens join it.
    ///
    /// # Errors
    /// If the sizes don't fit.
    fn forward(&self, x: &Tensor, places: &Places, cache: Option<&KvCache>) -> Result<Tensor>;
}

/// The part of a layer that treats every token by itself.
pub(crate) trait Mlp: Debug + Send + Sync {
    /// `x (…, D)` → the same shape.
    ///
    /// # Errors
    /// If the sizes don't fit.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Debug)]
pub(crate) struct PreNorm<A, M> {
    input_layernorm: RmsNorm,
    self_attn: A,
    post_attention_layernorm: RmsNorm,
    mlp: M,
}

impl<A, M> PreNorm<A, M> {
    /// The layer of this place, around its attention and MLP.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new(sizes: &Sizes, scope: &Scope, norm: Norm, self_attn: A, mlp: M) -> Result<Self> {
        let norm = |name: &str| norm(&scope.sub(name), sizes.hidden_size, sizes.rms_norm_eps);
        let (first, second) = (norm("input_layernorm")?, norm("post_attention_layernorm")?);
        Ok(Self { input_layernorm: first, self_attn, post_attention_layernorm: second, mlp })
    }
}

impl<A: Attention, M: Mlp> Layer for PreNorm<A, M> {
    fn forward(&self, x: &Tensor, places: &Places, cache: Option<&KvCache>) -> Result<Tensor> {
        let x = (x + self.self_attn.forward(&self.input_layernorm.forward(x)?, places, cache)?)?;
        let y = self.mlp.forward(&self.post_attention_layernorm.forward(&x)?)?;
        Ok((x + y)?)
    }
}
