//! Attention to the image itself and to the prompt, `Transformer2DModel` in diffusers.
//!
//! Source: Rombach et al., arXiv:2112.10752, Sec. 3.3; gated feed-forward: Shazeer, "GLU variants improve
//! transformer", arXiv:2002.05202, with the exact (error function) GELU.

use super::spatial::{to_image, to_sequence};
use crate::error::Result;
use crate::lora::LoraLayer;
use crate::nn::{GroupNorm, LayerNorm, Linear, adapted_linear};
use crate::params::{Init, Scope};
use candle_core::Tensor;
use votive_tensor::{Activation, AttentionMask, Weight, attention, gated_halves, linear};

/// Sizes of the attention of one level.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransformerConfig {
    pub(super) channels: usize,
    pub(super) heads: usize,
    pub(super) layers: usize,
    /// Width of the prompt embeddings.
    pub(super) context: usize,
    pub(super) groups: usize,
    pub(super) linear_projection: bool,
}

impl TransformerConfig {
    /// Width inside the blocks: the heads are equally wide, so a remainder of the channels is left out.
    fn inner(&self) -> usize {
        self.channels / self.heads.max(1) * self.heads
    }
}

/// Attention of the pixels to others, with the width of a head in its scale.
#[derive(Clone, Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
    scale: f64,
}

impl Attention {
    fn new(scope: &Scope, width: usize, context: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            to_q: Linear::new(&scope.sub("to_q"), width, width, false)?,
            to_k: Linear::new(&scope.sub("to_k"), context, width, false)?,
            to_v: Linear::new(&scope.sub("to_v"), context, width, false)?,
            to_out: Linear::new(&scope.sub("to_out.0"), width, width, true)?,
            heads,
            scale: (width as f64 / heads as f64).powf(-0.5),
        })
    }

    fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (q, k, v) = (self.to_q.forward(x)?, self.to_k.forward(context)?, self.to_v.forward(context)?);
        let mixed = attention((&q, &k, &v), self.heads, self.heads, self.scale, &AttentionMask::full())?;
        self.to_out.forward(&mixed)
    }
}

/// Self-attention, attention to the prompt, gated feed-forward, each normalised first and added.
#[derive(Clone, Debug)]
struct Block {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    expand: Linear,
    contract: Linear,
}

impl Block {
    fn new(scope: &Scope, config: &TransformerConfig) -> Result<Self> {
        let width = config.inner();
        let norm = |name: &str| LayerNorm::new(&scope.sub(name), width, 1e-5);
        let attention = |name: &str, context| Attention::new(&scope.sub(name), width, context, config.heads);
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: attention("attn1", width)?,
            norm2: norm("norm2")?,
            attn2: attention("attn2", config.context)?,
            norm3: norm("norm3")?,
            expand: Linear::new(&scope.sub("ff.net.0.proj"), width, 8 * width, true)?,
            contract: Linear::new(&scope.sub("ff.net.2"), 4 * width, width, true)?,
        })
    }

    fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let x = (self.attn1.forward(&h, &h)? + x)?;
        let x = (self.attn2.forward(&self.norm2.forward(&x)?, context)? + &x)?;
        let h = self.expand.forward(&self.norm3.forward(&x)?)?;
        Ok((self.contract.forward(&gated_halves(&h, Activation::GeluErf)?)? + &x)?)
    }
}

/// The map between channels and the width of the blocks: the same arithmetic, stored as a matrix or as a 1×1 kernel.
#[derive(Clone, Debug)]
enum Projection {
    Matrix(Linear),
    Kernel { weight: Tensor, bias: Tensor, lora: Option<LoraLayer> },
}

impl Projection {
    fn new(scope: &Scope, ins: usize, outs: usize, matrix: bool) -> Result<Self> {
        if matrix {
            return Ok(Self::Matrix(Linear::new(scope, ins, outs, true)?));
        }
        let weight = scope.get("weight", &[outs, ins, 1, 1], Init::fan_in(ins))?;
        Ok(Self::Kernel { weight, bias: scope.get("bias", &[outs], Init::Zero)?, lora: scope.lora() })
    }

    /// `(B, T, ins)` → `(B, T, outs)`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Matrix(map) => map.forward(x),
            Self::Kernel { weight, bias, lora: None } => Ok(linear(x, &weight.flatten_from(1)?, Some(bias))?),
            Self::Kernel { weight, bias, lora: Some(lora) } => {
                adapted_linear(x, &Weight::Whole(weight.flatten_from(1)?), Some(bias), lora)
            }
        }
    }
}

/// Transformer blocks over the pixels of an image, added to it.
#[derive(Clone, Debug)]
pub(super) struct Transformer2d {
    norm: GroupNorm,
    proj_in: Projection,
    blocks: Vec<Block>,
    proj_out: Projection,
}

impl Transformer2d {
    pub(super) fn new(scope: &Scope, config: &TransformerConfig) -> Result<Self> {
        let (channels, inner) = (config.channels, config.inner());
        let block = |i: usize| Block::new(&scope.sub("transformer_blocks").sub(i), config);
        let matrix = config.linear_projection;
        Ok(Self {
            norm: GroupNorm::new(&scope.sub("norm"), channels, config.groups, 1e-6)?,
            proj_in: Projection::new(&scope.sub("proj_in"), channels, inner, matrix)?,
            blocks: (0..config.layers).map(block).collect::<Result<_>>()?,
            proj_out: Projection::new(&scope.sub("proj_out"), inner, channels, matrix)?,
        })
    }

    /// `x (B, C, H, W)`, `context (B, S, D)` → `(B, C, H, W)`.
    pub(super) fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let mut h = self.proj_in.forward(&to_sequence(&self.norm.forward(x)?)?)?;
        for block in &self.blocks {
            h = block.forward(&h, context)?;
        }
        Ok((to_image(&self.proj_out.forward(&h)?, (height, width))? + x)?)
    }
}
