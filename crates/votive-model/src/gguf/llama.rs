//! The Llama family in llama.cpp's names. What its graphs do not compute is refused: the file would load and be another
//! model.
//!
//! Source: the tensor names and keys of llama.cpp's `gguf-py/gguf/constants.py`; its architecture `llama` rotates
//! neighbouring pairs, so rows of query and key projections are put into that order.

use super::{GgufTensor, Metadata, Quantization, Value};
use crate::error::{ModelError, Result};
use crate::llama::{Family, LlamaConfig, RopeScaling};
use crate::params::Params;
use candle_core::{Device, Tensor};

/// llama.cpp's architecture.
fn architecture(family: Family) -> &'static str {
    match family {
        // llama.cpp has no Mistral; without windows it is a Llama.
        Family::Llama | Family::Mistral => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
    }
}

fn refused(what: &str) -> ModelError {
    ModelError::Tokens(format!("a GGUF file cannot hold this model: {what}"))
}

/// Sizes and variants of a model, as llama.cpp reads them.
///
/// # Errors
/// If llama.cpp would compute something else.
pub fn metadata(config: &LlamaConfig) -> Result<Metadata> {
    let context = config.sizes.max_position_embeddings;
    if let Some(window) = config.windows.iter().flatten().find(|window| **window < context) {
        return Err(refused(&format!(
            "a sliding window of {window} below {context} positions, which llama.cpp does not know of this architecture"
        )));
    }
    let has_factors = matches!(config.rope.scaling, RopeScaling::Llama3 { .. });
    let architecture = architecture(config.family);
    if has_factors && architecture != "llama" {
        return Err(refused("`llama3` rotary scaling, which llama.cpp reads for Llama alone"));
    }
    if config.attention_bias && config.family == Family::Qwen3 {
        return Err(refused("biases in the attention of a Qwen3"));
    }
    let number = |value: usize| Value::U32(u32::try_from(value).unwrap_or(u32::MAX));
    let mut found: Metadata = vec![("general.architecture".to_owned(), Value::Text(architecture.to_owned()))];
    let mut set = |key: &str, value| found.push((format!("{architecture}.{key}"), value));
    set("context_length", number(context));
    set("embedding_length", number(config.sizes.hidden_size));
    set("block_count", number(config.sizes.num_hidden_layers));
    set("feed_forward_length", number(config.sizes.intermediate_size));
    set("attention.head_count", number(config.sizes.num_attention_heads));
    set("attention.head_count_kv", number(config.sizes.num_key_value_heads));
    set("attention.key_length", number(config.sizes.head_dim));
    set("attention.value_length", number(config.sizes.head_dim));
    set("attention.layer_norm_rms_epsilon", Value::F32(config.sizes.rms_norm_eps as f32));
    set("rope.dimension_count", number(config.sizes.head_dim));
    set("rope.freq_base", Value::F32(config.rope.theta as f32));
    set("vocab_size", number(config.sizes.vocab_size));
    if let RopeScaling::Linear { factor } = config.rope.scaling {
        set("rope.scaling.type", Value::Text("linear".to_owned()));
        set("rope.scaling.factor", Value::F32(factor as f32));
    }
    Ok(found)
}

/// The tensors of a model; matrices are stored as `matrices`, or as F16 where their rows are no whole blocks, vectors as
/// F32.
///
/// # Errors
/// If a parameter has no place in llama.cpp's architecture.
pub fn tensors(config: &LlamaConfig, params: &Params, matrices: Quantization) -> Result<Vec<GgufTensor>> {
    let one = |(name, tensor): (&str, &Tensor)| {
        let tensor = tensor.detach();
        let tensor = match permuted_heads(config, name) {
            Some(heads) => neighbours(&tensor, heads)?,
            None => tensor,
        };
        let stored = match tensor.rank() {
            1 => Quantization::F32,
            _ if matrices.fits(tensor.dims()) => matrices,
            _ => Quantization::F16,
        };
        Ok(GgufTensor { name: translate(name)?, tensor, stored })
    };
    let mut found = params.iter().map(one).collect::<Result<Vec<_>>>()?;
    if let Some(tensor) = rope_factors(config)? {
        found.push(GgufTensor { name: "rope_freqs.weight".to_owned(), tensor, stored: Quantization::F32 });
    }
    Ok(found)
}

/// llama.cpp's name of a parameter.
fn translate(name: &str) -> Result<String> {
    const WHOLE: [(&str, &str); 3] = [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
    ];
    const OF_LAYER: [(&str, &str); 11] = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    if let Some((_, theirs)) = WHOLE.iter().find(|(ours, _)| *ours == name) {
        return Ok((*theirs).to_owned());
    }
    let of_layer = || {
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (module, kind) = rest.rsplit_once('.')?;
        let (_, theirs) = OF_LAYER.iter().find(|(ours, _)| *ours == module)?;
        Some(format!("blk.{layer}.{theirs}.{kind}"))
    };
    of_layer().ok_or_else(|| refused(&format!("the tensor `{name}`")))
}

/// Heads of a projection whose rows llama.cpp wants in another order.
fn permuted_heads(config: &LlamaConfig, name: &str) -> Option<usize> {
    let is = |module: &str| name.contains(&format!(".self_attn.{module}."));
    match architecture(config.family) {
        "llama" if is("q_proj") => Some(config.sizes.num_attention_heads),
        "llama" if is("k_proj") => Some(config.sizes.num_key_value_heads),
        _ => None,
    }
}

/// From the halves of each head that rotate with each other to neighbours: row i and row i + D/2 become rows 2i, 2i + 1.
fn neighbours(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, rest) = (tensor.dim(0)?, tensor.elem_count() / tensor.dim(0)?.max(1));
    let split = tensor.reshape((heads, 2, rows / heads / 2, rest))?;
    Ok(split.transpose(1, 2)?.contiguous()?.reshape(tensor.dims())?)
}

/// What llama.cpp divides each frequency by, for scaling that differs between frequencies.
fn rope_factors(config: &LlamaConfig) -> Result<Option<Tensor>> {
    if !matches!(config.rope.scaling, RopeScaling::Llama3 { .. }) {
        return Ok(None);
    }
    let plain = crate::llama::Rope { scaling: RopeScaling::Default, ..config.rope };
    let scaled = config.rope.frequencies(config.sizes.head_dim);
    let factors: Vec<f32> = plain
        .frequencies(config.sizes.head_dim)
        .iter()
        .zip(scaled)
        .map(|(plain, scaled)| plain / scaled)
        .collect();
    Ok(Some(Tensor::new(factors, &Device::Cpu)?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::CausalLmConfig;

    #[test]
    fn every_parameter_of_every_family_has_a_name() {
        for family in [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3] {
            let config = LlamaConfig {
                family,
                mlp_bias: family == Family::Llama,
                ..LlamaConfig::llama(20, (8, 16), 2, (4, 2), 16)
            };
            let (_, params) =
                Params::fresh(1, &Device::Cpu, |scope| CausalLmConfig::from(config.clone()).build(scope))
                    .unwrap();
            let found = tensors(&config, &params, Quantization::Q8_0).unwrap();
            assert_eq!(found.len(), params.iter().count());
            assert!(found.iter().any(|t| t.name == "blk.1.attn_output.weight"), "{family:?}");
            metadata(&config).unwrap();
        }
    }

    #[test]
    fn halves_become_neighbours() {
        let rows = Tensor::new((0..12).map(|i| i as f32).collect::<Vec<_>>(), &Device::Cpu).unwrap();
        let found = neighbours(&rows, 2).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 6.0, 9.0, 7.0, 10.0, 8.0, 11.0]);
    }

    #[test]
    fn what_llama_cpp_would_compute_otherwise_is_refused_by_name() {
        let base = LlamaConfig::llama(20, (8, 16), 2, (4, 2), 16);
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8,
        };
        let rope = crate::llama::Rope { scaling, ..base.rope };
        let qwen2 = LlamaConfig { family: Family::Qwen2, rope, ..base.clone() };
        let narrow = LlamaConfig { family: Family::Mistral, windows: vec![None, Some(8)], ..base.clone() };
        let biased = LlamaConfig { family: Family::Qwen3, attention_bias: true, ..base.clone() };
        for (config, part) in [(qwen2, "llama3"), (narrow, "window of 8"), (biased, "biases")] {
            let message = metadata(&config).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        metadata(&LlamaConfig { windows: vec![Some(16); 2], rope, ..base }).unwrap();
    }
}
