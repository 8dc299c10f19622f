//! The Llama family: Llama 2 and 3, SmolLM, Mistral, Qwen2 and 2.5, Qwen3 (dense).
//!
//! Pre-norm blocks of grouped-query attention with rotary positions and a SwiGLU, named as in the checkpoints of
//! transformers. The variants differ in biases, norms on queries and keys, and sliding windows.
//!
//! Source: Touvron et al., arXiv:2307.09288 (Llama 2); Grattafiori et al., arXiv:2407.21783 (Llama 3); Jiang et al.,
//! arXiv:2310.06825 (Mistral); Yang et al., arXiv:2407.10671 (Qwen2) and arXiv:2505.09388 (Qwen3).

mod config;

pub use super::rope::{Rope, RopeScaling};
pub use config::{Family, LlamaConfig};

use super::attention::{Projections, RotaryAttention, SelfAttention};
use super::block::PreNorm;
use super::decoder::{Decoder, Roots};
use super::mlp::GatedMlp;
use super::rope::Rotary;
use super::sizes::Sizes;
use super::{Architecture, Network};
use crate::error::Result;
use crate::nn::RmsNorm;
use crate::params::Scope;
use std::sync::Arc;
use votive_tensor::Activation;

pub(super) const fn architecture(family: Family) -> Architecture {
    Architecture {
        model_type: family.model_type(),
        class: family.architecture(),
        reward_class: Some(family.reward_architecture()),
        pad_token_id: None,
        own_code: None,
        sees_images: false,
        read: |file| Ok(Arc::new(LlamaConfig::read(file)?)),
    }
}

impl Network for LlamaConfig {
    fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    fn decoder(&self, roots: &Roots) -> Result<Decoder> {
        let sizes = &self.sizes;
        let rotary = vec![Rotary::new(&self.rope, sizes.head_dim)];
        Decoder::new(sizes, roots, rotary, RmsNorm::new, |index, scope| {
            let attention = self.attention(index, &scope.sub("self_attn"))?;
            let mlp = GatedMlp::new(sizes, &scope.sub("mlp"), self.mlp_bias, Activation::Silu)?;
            PreNorm::new(sizes, scope, RmsNorm::new, attention, mlp)
        })
    }
}

impl LlamaConfig {
    /// The network at the root of a checkpoint.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub fn build(&self, scope: &Scope) -> Result<Decoder> {
        self.decoder(&Roots::of(scope))
    }

    fn attention(&self, index: usize, scope: &Scope) -> Result<SelfAttention> {
        let projections = Projections::new(&self.sizes, scope, self.qkv_bias(), self.attention_bias)?;
        let attention = RotaryAttention::new(&self.sizes, index, self.windows[index]);
        let attention = SelfAttention::new(projections, attention);
        match self.family {
            Family::Qwen3 => attention.with_head_norms(&self.sizes, scope, RmsNorm::new),
            Family::Llama | Family::Mistral | Family::Qwen2 => Ok(attention),
        }
    }
}
