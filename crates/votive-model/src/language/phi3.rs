//! Phi-3, Phi-3.5 and Phi-4 (text): Llama's layers with queries, keys and values in one projection, gate and value in
//! another, and LongRoPE.
//!
//! Source: Abdin et al., arXiv:2404.14219.

use super::attention::RotaryAttention;
use super::block::{Attention, Mlp, PreNorm};
use super::cache::KvCache;
use super::decoder::{Decoder, Places, Roots};
use super::longrope::LongRope;
use super::rope::Rotary;
use super::sizes::{SizeDefaults, Sizes, refuse_what_is_not_implemented, window_size};
use super::{Architecture, Network};
use crate::config::ConfigFile;
use crate::error::Result;
use crate::nn::{Linear, RmsNorm};
use crate::params::Scope;
use candle_core::Tensor;
use serde_json::json;
use std::sync::Arc;
use votive_tensor as ops;
use votive_tensor::Activation;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    model_type: "phi3",
    class: "Phi3ForCausalLM",
    reward_class: Some("Phi3ForSequenceClassification"),
    pad_token_id: Some(32_000),
    // The hub's folders bring the code that became transformers' class.
    own_code: Some("modeling_phi3.Phi3ForCausalLM"),
    sees_images: false,
    read: |file| Ok(Arc::new(Phi3Config::read(file)?)),
};

#[derive(Debug)]
struct Phi3Config {
    sizes: Sizes,
    rope: LongRope,
    window: Option<usize>,
}

impl Phi3Config {
    fn read(config: &ConfigFile) -> Result<Self> {
        refuse_what_is_not_implemented(config)?;
        config.only("hidden_act", &[json!("silu")])?;
        let zero = [json!(0), json!(0.0)];
        config.only("resid_pdrop", &zero)?;
        config.only("embd_pdrop", &zero)?;
        let sizes = Sizes::read(
            config,
            SizeDefaults { max_positions: 4096, rms_norm_eps: 1e-5, ..SizeDefaults::PLAIN },
        )?;
        Ok(Self {
            rope: LongRope::read(config, sizes.head_dim, sizes.max_position_embeddings)?,
            window: window_size(config, None)?,
            sizes,
        })
    }
}

impl Network for Phi3Config {
    fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    fn decoder(&self, roots: &Roots) -> Result<Decoder> {
        let sizes = &self.sizes;
        Decoder::new(sizes, roots, vec![Rotary::long(&self.rope)], RmsNorm::new, |index, scope| {
            let attention = RotaryAttention::new(sizes, index, self.window);
            let attention = FusedAttention::new(sizes, &scope.sub("self_attn"), attention)?;
            let mlp = FusedMlp::new(sizes, &scope.sub("mlp"))?;
            PreNorm::new(sizes, scope, RmsNorm::new, attention, mlp)
        })
    }
}

#[derive(Debug)]
struct FusedAttention {
    qkv_proj: Linear,
    o_proj: Linear,
    /// Widths of queries, keys and values in the projection's output.
    widths: [usize; 3],
    attention: RotaryAttention,
}

impl FusedAttention {
    fn new(sizes: &Sizes, scope: &Scope, attention: RotaryAttention) -> Result<Self> {
        let widths = [sizes.query_width(), sizes.key_width(), sizes.key_width()];
        let (hidden, queries) = (sizes.hidden_size, sizes.query_width());
        let (qkv, out) = (scope.sub("qkv_proj"), scope.sub("o_proj"));
        scope.sub("rotary_emb").ignore("inv_freq");
        Ok(Self {
            qkv_proj: Linear::with_init(&qkv, hidden, widths.iter().sum(), false, sizes.init())?,
            o_proj: Linear::with_init(&out, queries, hidden, false, sizes.residual_init())?,
            widths,
            attention,
        })
    }
}

impl Attention for FusedAttention {
    fn forward(&self, x: &Tensor, places: &Places, cache: Option<&KvCache>) -> Result<Tensor> {
        let qkv = self.qkv_proj.forward(x)?;
        let [q, k, v] = self.widths;
        let qkv = [qkv.narrow(2, 0, q)?, qkv.narrow(2, q, k)?, qkv.narrow(2, q + k, v)?];
        self.o_proj.forward(&self.attention.forward(qkv, places, cache)?)
    }
}

#[derive(Debug)]
struct FusedMlp {
    gate_up_proj: Linear,
    down_proj: Linear,
    inner: usize,
}

impl FusedMlp {
    fn new(sizes: &Sizes, scope: &Scope) -> Result<Self> {
        let (width, inner) = (sizes.hidden_size, sizes.intermediate_size);
        let (gate_up, down) = (scope.sub("gate_up_proj"), scope.sub("down_proj"));
        Ok(Self {
            gate_up_proj: Linear::with_init(&gate_up, width, 2 * inner, false, sizes.init())?,
            down_proj: Linear::with_init(&down, inner, width, false, sizes.residual_init())?,
            inner,
        })
    }
}

impl Mlp for FusedMlp {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let both = self.gate_up_proj.forward(x)?;
        let last = both.rank() - 1;
        let (gate, up) = (both.narrow(last, 0, self.inner)?, both.narrow(last, self.inner, self.inner)?);
        self.down_proj.forward(&ops::gated(&gate, &up, Activation::Silu)?)
    }
}
