//! Gemma (1): Llama's order of norms.

use super::{NORM, decoder, read_sizes};
use crate::config::ConfigFile;
use crate::error::Result;
use crate::language::attention::{Projections, RotaryAttention, SelfAttention};
use crate::language::block::PreNorm;
use crate::language::decoder::Roots;
use crate::language::mlp::GatedMlp;
use crate::language::rope::{DEFAULT_THETA, Rope, Rotary};
use crate::language::{Architecture, Decoder, Network, Sizes};
use serde_json::json;
use std::sync::Arc;
use votive_tensor::Activation;

pub(crate) const ARCHITECTURE: Architecture = Architecture {
    model_type: "gemma",
    class: "GemmaForCausalLM",
    reward_class: Some("GemmaForSequenceClassification"),
    pad_token_id: Some(0),
    own_code: None,
    sees_images: false,
    read: |file| Ok(Arc::new(GemmaConfig::read(file)?)),
};

#[derive(Debug)]
struct GemmaConfig {
    sizes: Sizes,
    rope: Rope,
    attention_bias: bool,
}

impl GemmaConfig {
    fn read(config: &ConfigFile) -> Result<Self> {
        // "gelu" is what the first release wrote; the tanh approximation is what it meant (transformers 5.23 says so).
        config.only("hidden_act", &[json!("gelu"), json!("gelu_pytorch_tanh")])?;
        config.only("hidden_activation", &[json!("gelu_pytorch_tanh")])?;
        let sizes = read_sizes(config, 16, 8192)?;
        Ok(Self {
            rope: Rope::read(config, DEFAULT_THETA, sizes.max_position_embeddings)?,
            attention_bias: config.bool_or("attention_bias", false)?,
            sizes,
        })
    }
}

impl Network for GemmaConfig {
    fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    fn decoder(&self, roots: &Roots) -> Result<Decoder> {
        let (sizes, bias) = (&self.sizes, self.attention_bias);
        decoder(sizes, roots, vec![Rotary::new(&self.rope, sizes.head_dim)], |index, scope| {
            let projections = Projections::new(sizes, &scope.sub("self_attn"), bias, bias)?;
            let attention = SelfAttention::new(projections, RotaryAttention::new(sizes, index, None));
            let mlp = GatedMlp::new(sizes, &scope.sub("mlp"), false, Activation::GeluTanh)?;
            PreNorm::new(sizes, scope, NORM, attention, mlp)
        })
    }
}
