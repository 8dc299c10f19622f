//! Self-attention with rotary positions, and the projections around it.

use super::block::Attention;
use super::cache::KvCache;
use super::decoder::{Norm, Places};
use super::sizes::Sizes;
use crate::error::Result;
use crate::nn::{Linear, RmsNorm};
use crate::params::Scope;
use candle_core::Tensor;
use votive_tensor as ops;
use votive_tensor::{AttentionMask, Scores};

/// Everything between the projections: rotates queries and keys, joins the cache, attends.
///
/// Where tokens stand and what they may look at comes from the caller ([`Places`]); what is fixed for a layer is here.
#[derive(Clone, Debug)]
pub(crate) struct RotaryAttention {
    /// Number of the layer, its place in the cache.
    pub(crate) layer: usize,
    /// Query heads.
    pub(crate) heads: usize,
    /// Key and value heads.
    pub(crate) kv_heads: usize,
    /// What becomes of scores before the softmax.
    pub(crate) scores: Scores,
    /// Which of the model's rotary tables turns queries and keys; none turns them not at all.
    pub(crate) rotary: Option<usize>,
    /// How many newest keys a query sees, its own included; none means all.
    pub(crate) window: Option<usize>,
}

impl RotaryAttention {
    /// Attention with scores scaled by `1/√head_dim` and the model's first rotary table.
    pub(crate) fn new(sizes: &Sizes, layer: usize, window: Option<usize>) -> Self {
        Self {
            layer,
            heads: sizes.num_attention_heads,
            kv_heads: sizes.num_key_value_heads,
            scores: (sizes.head_dim as f64).powf(-0.5).into(),
            rotary: Some(0),
            window,
        }
    }

    /// `q (B, T, heads·D)`, `k` and `v (B, T, kv_heads·D)` → `(B, T, heads·D)`.
    ///
    /// # Errors
    /// If the sizes don't fit or the cache has no room.
    pub(crate) fn forward(
        &self,
        [q, k, v]: [Tensor; 3],
        places: &Places,
        cache: Option<&KvCache>,
    ) -> Result<Tensor> {
        let (q, k) = match self.rotary.map(|table| &places.angles[table]) {
            None => (q, k),
            Some(angles) => (angles.rotate(&q, self.heads)?, angles.rotate(&k, self.kv_heads)?),
        };
        let [k, v] = match cache {
            None => [k, v],
            Some(cache) => cache.append(self.layer, [&k, &v])?,
        };
        let mask = AttentionMask { window: self.window, ..places.mask.clone() };
        Ok(ops::attention((&q, &k, &v), self.heads, self.kv_heads, self.scores, &mask)?)
    }
}

/// Separate projections to queries, keys and values, and one back.
#[derive(Debug)]
pub(crate) struct Projections {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
}

impl Projections {
    /// The projections of this place; biases on the way in and on the way out.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new(sizes: &Sizes, scope: &Scope, in_bias: bool, out_bias: bool) -> Result<Self> {
        let (hidden, init) = (sizes.hidden_size, sizes.init());
        let project = |name: &str, width| Linear::with_init(&scope.sub(name), hidden, width, in_bias, init);
        let out = (sizes.query_width(), sizes.residual_init());
        scope.sub("rotary_emb").ignore("inv_freq");
        Ok(Self {
            q_proj: project("q_proj", sizes.query_width())?,
            k_proj: project("k_proj", sizes.key_width())?,
            v_proj: project("v_proj", sizes.key_width())?,
            o_proj: Linear::with_init(&scope.sub("o_proj"), out.0, hidden, out_bias, out.1)?,
        })
    }

    /// Queries, keys and values of `x (B, T, D)`.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub(crate) fn project(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        Ok([self.q_proj.forward(x)?, self.k_proj.forward(x)?, self.v_proj.forward(x)?])
    }

    /// Back to the residual stream.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub(crate) fn out(&self, y: &Tensor) -> Result<Tensor> {
        self.o_proj.forward(y)
    }
}

/// Separate projections, norms of each head's queries and keys if the architecture has them, and attention.
#[derive(Debug)]
pub(crate) struct SelfAttention {
    projections: Projections,
    head_norms: Option<HeadNorms>,
    attention: RotaryAttention,
}

impl SelfAttention {
    /// The attention of these projections.
    pub(crate) fn new(projections: Projections, attention: RotaryAttention) -> Self {
        Self { projections, head_norms: None, attention }
    }

    /// The same, with norms `q_norm` and `k_norm` of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn with_head_norms(self, sizes: &Sizes, scope: &Scope, norm: Norm) -> Result<Self> {
        let norm = |name: &str| norm(&scope.sub(name), sizes.head_dim, sizes.rms_norm_eps);
        Ok(Self { head_norms: Some(HeadNorms { q_norm: norm("q_norm")?, k_norm: norm("k_norm")? }), ..self })
    }
}

impl Attention for SelfAttention {
    fn forward(&self, x: &Tensor, places: &Places, cache: Option<&KvCache>) -> Result<Tensor> {
        let qkv = self.projections.project(x)?;
        let qkv = match &self.head_norms {
            None => qkv,
            Some(norms) => norms.forward(qkv)?,
        };
        self.projections.out(&self.attention.forward(qkv, places, cache)?)
    }
}

/// A norm for queries and one for keys, on each head by itself.
#[derive(Debug)]
struct HeadNorms {
    q_norm: RmsNorm,
    k_norm: RmsNorm,
}

impl HeadNorms {
    fn forward(&self, [q, k, v]: [Tensor; 3]) -> Result<[Tensor; 3]> {
        Ok([by_head(&self.q_norm, &q)?, by_head(&self.k_norm, &k)?, v])
    }
}

fn by_head(norm: &RmsNorm, x: &Tensor) -> Result<Tensor> {
    let (rows, positions, width) = x.dims3()?;
    let heads = x.reshape((rows, positions, width / norm.width(), norm.width()))?;
    Ok(norm.forward(&heads)?.reshape((rows, positions, width))?)
}
