//! The same logits as candle-transformers' inference models, on the same random weights.
//!
//! candle 0.11.1's sliding windows see one key more than transformers', and Qwen2's are in every layer; so the windows
//! here are wider than the rows. Windows themselves are checked against transformers (`language_fixtures.rs`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama as candle_llama, mistral as candle_mistral, qwen2 as candle_qwen2};
use serde_json::{Value, json};
use votive_model::llama::{Family, Rope, RopeScaling};
use votive_model::{LlamaConfig, Params};

const VOCABULARY: usize = 50;

fn config(family: Family) -> LlamaConfig {
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 16,
    };
    let mut base = LlamaConfig::llama(VOCABULARY, (32, 48), 3, (4, 2), 64);
    base.family = family;
    base.sizes.initializer_range = 0.2;
    base.sizes.tie_word_embeddings = family == Family::Qwen2;
    match family {
        Family::Llama => LlamaConfig { rope: Rope { theta: 10_000.0, scaling }, ..base },
        Family::Mistral => LlamaConfig { windows: vec![Some(32); 3], ..base },
        _ => base,
    }
}

/// Compares the logits of the last position with those of `candle`, which gets `config.json` and the weights.
fn check(family: Family, candle: impl Fn(Value, VarBuilder, &Tensor) -> Tensor) {
    let config = config(family);
    let (model, params) = Params::fresh(4, &Device::Cpu, |scope| config.build(scope)).unwrap();
    let ids: Vec<u32> = (0..24).map(|i| i * 17 % VOCABULARY as u32).collect();
    let ids = Tensor::from_vec(ids, (2, 12), &Device::Cpu).unwrap();
    let ours = model.logits(&model.hidden(&ids).unwrap().i((.., 11)).unwrap()).unwrap();
    let weights = params.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    let weights = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    let theirs = candle(config.to_json("float32"), weights, &ids).reshape((2, VOCABULARY)).unwrap();
    let worst = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(worst < 1e-4, "{family:?}: off by {worst}");
}

#[test]
fn llama() {
    check(Family::Llama, |config, weights, ids| {
        let config: candle_llama::LlamaConfig = serde_json::from_value(config).unwrap();
        let config = config.into_config(false);
        let mut cache = candle_llama::Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
        candle_llama::Llama::load(weights, &config).unwrap().forward(ids, 0, &mut cache).unwrap()
    });
}

#[test]
fn mistral() {
    check(Family::Mistral, |config, weights, ids| {
        let config: candle_mistral::Config = serde_json::from_value(config).unwrap();
        candle_mistral::Model::new(&config, weights).unwrap().forward(ids, 0).unwrap()
    });
}

#[test]
fn qwen2() {
    check(Family::Qwen2, |mut config, weights, ids| {
        config["sliding_window"] = json!(32);
        let config: candle_qwen2::Config = serde_json::from_value(config).unwrap();
        candle_qwen2::ModelForCausalLM::new(&config, weights).unwrap().forward(ids, 0).unwrap()
    });
}
