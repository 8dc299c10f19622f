//! The Llama family: Llama 2 and 3, Mistral, Qwen2 and 2.5, Qwen3 (dense).
//!
//! Pre-norm blocks of grouped-query attention with rotary positions and a SwiGLU, named as in the checkpoints of
//! transformers. The variants differ in biases, norms on queries and keys, and sliding windows.
//!
//! Source: Touvron et al., arXiv:2307.09288 (Llama 2); Grattafiori et al., arXiv:2407.21783 (Llama 3); Jiang et al.,
//! arXiv:2310.06825 (Mistral); Yang et al., arXiv:2407.10671 (Qwen2) and arXiv:2505.09388 (Qwen3).

mod cache;
mod config;
mod rope;

pub use cache::KvCache;
pub use config::{Family, LlamaConfig};
pub use rope::{Rope, RopeScaling};

use crate::causal_lm::{CausalLm, TokenBatch};
use crate::error::{ModelError, Result};
use crate::nn::{Embedding, Linear, RmsNorm};
use crate::params::{Init, Scope};
use crate::prefix_tree::PrefixTree;
use candle_core::{Device, IndexOp, Tensor};
use rope::Angles;
use std::sync::Arc;
use votive_tensor as ops;
use votive_tensor::segment::Recorder;
use votive_tensor::{Activation, AttentionMask};

/// A language model of the Llama family.
#[derive(Clone, Debug)]
pub struct Llama {
    config: Arc<LlamaConfig>,
    embed_tokens: Embedding,
    layers: Vec<Arc<Layer>>,
    norm: RmsNorm,
    /// `(V, D)`; the embedding itself if it is tied.
    head: Tensor,
    frequencies: Vec<f32>,
}

impl Llama {
    /// The network at the root of a checkpoint.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub fn new(config: &LlamaConfig, scope: &Scope) -> Result<Self> {
        let (model, lm_head) = (scope.sub("model"), scope.sub("lm_head"));
        let init = Init::Normal(config.initializer_range);
        let table = [config.vocab_size, config.hidden_size];
        let embed_tokens = Embedding::new(&model.sub("embed_tokens"), table[0], table[1], init)?;
        let head = if config.tie_word_embeddings {
            // A copy that some tools save beside the embedding.
            lm_head.ignore("weight");
            embed_tokens.weight().clone()
        } else {
            lm_head.get("weight", &table, init)?
        };
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::new(config, index, &model.sub("layers").sub(index)).map(Arc::new))
            .collect::<Result<_>>()?;
        Ok(Self {
            embed_tokens,
            layers,
            norm: RmsNorm::new(&model.sub("norm"), config.hidden_size, config.rms_norm_eps)?,
            head,
            frequencies: config.rope.frequencies(config.head_dim),
            config: Arc::new(config.clone()),
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The head's weight, `(V, D)`, which maps hidden states to logits.
    #[must_use]
    pub fn head(&self) -> &Tensor {
        &self.head
    }

    /// Hidden states after the last norm.
    ///
    /// # Shapes
    /// `ids (B, T)` u32, right-padded with any ids → `(B, T, D)`.
    /// # Errors
    /// If T exceeds the model's positions or an id is not in the vocabulary.
    pub fn hidden(&self, ids: &Tensor) -> Result<Tensor> {
        let (_, width) = ids.dims2()?;
        self.check_positions(width)?;
        let positions: Vec<usize> = (0..width).collect();
        let angles = Angles::new(&self.frequencies, &positions, 1, ids.device())?;
        self.run(ids, &Place { angles, mask: AttentionMask::causal(), cache: None })
    }

    /// Hidden states after the last norm of the tokens of a tree.
    ///
    /// With a recorder every layer is a recomputed segment: less memory, a second forward in the backward.
    ///
    /// # Shapes
    /// → `(1, N, D)`.
    /// # Errors
    /// If a row exceeds the model's positions or an id is not in the vocabulary.
    fn tree_hidden(&self, tree: &PrefixTree, recorder: Option<&Recorder>) -> Result<Tensor> {
        self.check_positions(tree.positions.iter().max().map_or(0, |last| last + 1))?;
        let angles = Angles::new(&self.frequencies, &tree.positions, 1, self.device())?;
        let mask = AttentionMask::tree(Arc::clone(&tree.segments));
        let ids = Tensor::new(&*tree.ids, self.device())?.unsqueeze(0)?;
        let Some(recorder) = recorder else {
            return self.run(&ids, &Place { angles, mask, cache: None });
        };
        let mut x = self.embed_tokens.forward(&ids)?;
        for layer in &self.layers {
            let (layer, angles, mask) = (Arc::clone(layer), angles.clone(), mask.clone());
            x = recorder.segment(&x, move |x| {
                let place = Place { angles: angles.clone(), mask: mask.clone(), cache: None };
                layer.forward(x, &place).map_err(candle_core::Error::wrap)
            })?;
        }
        self.norm.forward(&x)
    }

    /// Hidden states of tokens that follow those in the cache, which then holds them too.
    ///
    /// # Shapes
    /// `ids (B, T)` u32, of which the first call's are left-padded as the cache says → `(B, T, D)`.
    /// # Gradient
    /// None flows to cached tokens.
    /// # Errors
    /// If the cache has no room, a row outgrows the model's positions or an id is not in the vocabulary.
    pub fn hidden_cached(&self, ids: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let (rows, width) = ids.dims2()?;
        cache.check(rows, width)?;
        self.check_positions(cache.longest() + width)?;
        let new = cache.len()..cache.len() + width;
        let positions =
            |padding: &usize| new.clone().map(|at| at.saturating_sub(*padding)).collect::<Vec<_>>();
        let positions: Vec<usize> = cache.left_padding().iter().flat_map(positions).collect();
        let angles = Angles::new(&self.frequencies, &positions, rows, ids.device())?;
        let first_key = Some(cache.left_padding().to_vec());
        let mask = AttentionMask { first_key, ..AttentionMask::causal() };
        let hidden = self.run(ids, &Place { angles, mask, cache: Some(cache) })?;
        cache.advance(width);
        Ok(hidden)
    }

    fn run(&self, ids: &Tensor, place: &Place) -> Result<Tensor> {
        let mut x = self.embed_tokens.forward(ids)?;
        for layer in &self.layers {
            x = layer.forward(&x, place)?;
        }
        self.norm.forward(&x)
    }

    /// `hidden (…, D)` → logits `(…, V)`.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(hidden, &self.head, None)?)
    }

    fn check_positions(&self, width: usize) -> Result<()> {
        let most = self.config.max_position_embeddings;
        if width > most {
            return Err(ModelError::Tokens(format!(
                "{width} tokens in a row, but the model has {most} positions"
            )));
        }
        Ok(())
    }
}

impl CausalLm for Llama {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn device(&self) -> &Device {
        self.head.device()
    }

    fn log_probs(&self, batch: &TokenBatch, recorder: Option<&Recorder>) -> Result<Tensor> {
        batch.check(self.config.vocab_size)?;
        let contexts = batch.contexts();
        let places = Tensor::new(batch.places(&contexts), self.device())?;
        let hidden = self.tree_hidden(&contexts, recorder)?.squeeze(0)?.index_select(&places, 0)?;
        Ok(ops::token_log_probs(&hidden, &self.head, &batch.targets())?)
    }

    fn cache(&self, left_padding: Vec<usize>, capacity: usize) -> Result<KvCache> {
        KvCache::new(&self.config, left_padding, capacity, self.device())
    }

    fn next_logits(&self, ids: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let hidden = self.hidden_cached(ids, cache)?;
        self.logits(&hidden.i((.., hidden.dim(1)? - 1))?)
    }
}

/// Where the tokens of a call stand, and what they see.
struct Place<'a> {
    angles: Angles,
    /// Without the layers' own windows.
    mask: AttentionMask,
    cache: Option<&'a KvCache>,
}

#[derive(Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl Layer {
    fn new(config: &LlamaConfig, index: usize, scope: &Scope) -> Result<Self> {
        let norm = |name: &str| RmsNorm::new(&scope.sub(name), config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::new(config, index, &scope.sub("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: Mlp::new(config, &scope.sub("mlp"))?,
        })
    }

    fn forward(&self, x: &Tensor, place: &Place) -> Result<Tensor> {
        let x = (x + self.self_attn.forward(&self.input_layernorm.forward(x)?, place)?)?;
        let y = self.mlp.forward(&self.post_attention_layernorm.forward(&x)?)?;
        Ok((x + y)?)
    }
}

#[derive(Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Norms of each head's queries and keys (Qwen3).
    head_norms: Option<(RmsNorm, RmsNorm)>,
    layer: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
}

impl Attention {
    fn new(config: &LlamaConfig, layer: usize, scope: &Scope) -> Result<Self> {
        let (heads, kv_heads, head_dim) =
            (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let (width, init) = (config.hidden_size, Init::Normal(config.initializer_range));
        let project = |name: &str, heads| {
            Linear::with_init(&scope.sub(name), width, heads * head_dim, config.qkv_bias(), init)
        };
        let norm = |name: &str| RmsNorm::new(&scope.sub(name), head_dim, config.rms_norm_eps);
        scope.sub("rotary_emb").ignore("inv_freq");
        let (o_bias, o_init) = (config.output_bias(), config.residual_init());
        Ok(Self {
            q_proj: project("q_proj", heads)?,
            k_proj: project("k_proj", kv_heads)?,
            v_proj: project("v_proj", kv_heads)?,
            o_proj: Linear::with_init(&scope.sub("o_proj"), heads * head_dim, width, o_bias, o_init)?,
            head_norms: config
                .has_head_norms()
                .then(|| Ok::<_, ModelError>((norm("q_norm")?, norm("k_norm")?)))
                .transpose()?,
            layer,
            heads,
            kv_heads,
            head_dim,
            window: config.windows[layer],
        })
    }

    fn forward(&self, x: &Tensor, place: &Place) -> Result<Tensor> {
        let Place { angles, mask, cache } = place;
        let (mut q, mut k, v) = (self.q_proj.forward(x)?, self.k_proj.forward(x)?, self.v_proj.forward(x)?);
        if let Some((q_norm, k_norm)) = &self.head_norms {
            q = self.norm_heads(q_norm, &q)?;
            k = self.norm_heads(k_norm, &k)?;
        }
        let q = ops::rope(&q, &angles.cos, &angles.sin, self.heads)?;
        let k = ops::rope(&k, &angles.cos, &angles.sin, self.kv_heads)?;
        let mask = AttentionMask { window: self.window, ..mask.clone() };
        let [k, v] = match cache {
            None => [k, v],
            Some(cache) => cache.append(self.layer, [&k, &v])?,
        };
        let scale = (self.head_dim as f64).powf(-0.5);
        let y = ops::attention((&q, &k, &v), self.heads, self.kv_heads, scale, &mask)?;
        self.o_proj.forward(&y)
    }

    fn norm_heads(&self, norm: &RmsNorm, x: &Tensor) -> Result<Tensor> {
        let (rows, positions, width) = x.dims3()?;
        let heads = x.reshape((rows, positions, width / self.head_dim, self.head_dim))?;
        Ok(norm.forward(&heads)?.reshape((rows, positions, width))?)
    }
}

/// SwiGLU: Shazeer, arXiv:2002.05202.
#[derive(Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn new(config: &LlamaConfig, scope: &Scope) -> Result<Self> {
        let (width, inner, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        let init = Init::Normal(config.initializer_range);
        Ok(Self {
            gate_proj: Linear::with_init(&scope.sub("gate_proj"), width, inner, bias, init)?,
            up_proj: Linear::with_init(&scope.sub("up_proj"), width, inner, bias, init)?,
            down_proj: Linear::with_init(
                &scope.sub("down_proj"),
                inner,
                width,
                bias,
                config.residual_init(),
            )?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (gate, up) = (self.gate_proj.forward(x)?, self.up_proj.forward(x)?);
        self.down_proj.forward(&ops::gated(&gate, &up, Activation::Silu)?)
    }
}
