//! Which `config.json` of the architectures beside the Llama family is refused in which words, and which spellings mean
//! the same network.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use votive_model::config::ConfigFile;
use votive_model::language::ARCHITECTURES;
use votive_model::{CausalLmConfig, Params};

/// A configuration of `model_type` with the fewest fields, and `extra`.
fn json_of(model_type: &str, extra: Value) -> Value {
    let mut config = json!({
        "model_type": model_type, "vocab_size": 20, "hidden_size": 16, "intermediate_size": 12,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
        "max_position_embeddings": 64, "initializer_range": 0.3,
        // LLaVA's placeholder is behind the vocabulary of its own default.
        "image_token_index": 5,
        // Qwen3-VL's image encoder has another width than its language model, by their own defaults.
        "vision_config": {"out_hidden_size": 4096},
    });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    config
}

fn read(config: &Value) -> votive_model::Result<CausalLmConfig> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    CausalLmConfig::read(&ConfigFile::read(&path)?)
}

/// Hidden states of a row of 12 tokens under weights that depend on nothing but their names.
fn hidden(model_type: &str, extra: Value) -> Vec<f32> {
    let config = read(&json_of(model_type, extra)).unwrap();
    let (model, _) = Params::fresh(3, &Device::Cpu, |scope| config.build(scope)).unwrap();
    let ids = Tensor::arange(1u32, 13, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    model.hidden(&ids).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn same(model_type: &str, a: Value, b: Value) {
    assert_eq!(hidden(model_type, a), hidden(model_type, b));
}

#[track_caller]
fn different(model_type: &str, a: Value, b: Value) {
    assert_ne!(hidden(model_type, a), hidden(model_type, b));
}

#[test]
fn every_row_of_the_registry_is_found_by_its_names() {
    for row in ARCHITECTURES {
        assert!(
            read(&json_of(row.model_type, json!({"architectures": [row.class]}))).is_ok(),
            "{}",
            row.class
        );
        let message = read(&json_of(row.model_type, json!({"architectures": ["Other"]}))).unwrap_err();
        assert!(message.to_string().contains(row.class), "{message}");
    }
    let message = read(&json_of("mamba", json!({}))).unwrap_err().to_string();
    assert!(ARCHITECTURES.iter().all(|row| message.contains(row.model_type)), "{message}");
}

#[test]
fn absent_fields_are_what_transformers_makes_them() {
    same(
        "gemma2",
        json!({}),
        json!({
            "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 256,
            "sliding_window": 4096, "rope_theta": 1e4, "tie_word_embeddings": true, "rms_norm_eps": 1e-6,
        }),
    );
    same(
        "gemma2",
        json!({"sliding_window": 3}),
        json!({
            "sliding_window": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        }),
    );
    different("gemma2", json!({"attn_logit_softcapping": 0.5}), json!({"attn_logit_softcapping": null}));
    same(
        "gemma3_text",
        json!({"sliding_window": 3, "sliding_window_pattern": 2}),
        json!({
            "sliding_window": 3, "query_pre_attn_scalar": 256,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        }),
    );
    same("olmo2", json!({}), json!({"rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": false}));
    same(
        "phi3",
        json!({}),
        json!({"rms_norm_eps": 1e-5, "sliding_window": null, "partial_rotary_factor": 1.0}),
    );
    same("smollm3", json!({}), json!({"rope_theta": 2e6, "no_rope_layers": [1, 1, 1, 0]}));
    different("smollm3", json!({}), json!({"no_rope_layers": [1, 1, 1, 1]}));
}

#[test]
fn both_generations_of_fields_mean_the_same() {
    same(
        "gemma3_text",
        json!({
            "rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window_pattern": 2,
        }),
        json!({
            "sliding_window_pattern": 2,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
            }
        }),
    );
    let (short, long) = (json!([1.0, 1.5]), json!([2.0, 5.0]));
    let newer = json!({
        "rope_type": "longrope", "short_factor": short, "long_factor": long, "rope_theta": 2e4,
        "original_max_position_embeddings": 8,
    });
    for name in ["su", "longrope", "yarn"] {
        let older = json!({"type": name, "short_factor": short, "long_factor": long});
        same(
            "phi3",
            json!({"rope_scaling": older, "rope_theta": 2e4, "original_max_position_embeddings": 8}),
            json!({"rope_parameters": newer}),
        );
    }
    // 12 tokens are short or long.
    let of = |original: usize| {
        let scaling =
            json!({"type": "su", "short_factor": short, "long_factor": long, "attention_factor": 1.2});
        json!({"rope_scaling": scaling, "original_max_position_embeddings": original})
    };
    same("phi3", of(12), of(40));
    different("phi3", of(11), of(12));
}

#[test]
fn the_code_that_phi3_folders_bring_is_passed_over_and_other_code_refused() {
    let map = |code: &str| json!({"auto_map": {"AutoModelForCausalLM": code}});
    assert!(read(&json_of("phi3", map("modeling_phi3.Phi3ForCausalLM"))).is_ok());
    let message = read(&json_of("phi3", map("other.Phi3"))).unwrap_err().to_string();
    assert!(message.contains("auto_map") && message.contains("own code"), "{message}");
}

#[test]
fn refusals_name_the_field_and_what_is_supported() {
    let refuse = |model_type: &str, extra: Value, parts: &[&str]| {
        let message = read(&json_of(model_type, extra)).unwrap_err().to_string();
        for part in ["config.json"].iter().chain(parts) {
            assert!(message.contains(part), "`{message}` lacks `{part}`");
        }
    };
    // The wrapper around a vision tower has another type.
    refuse("gemma3", json!({}), &["model_type", "gemma3", "gemma3_text"]);
    refuse("gemma", json!({"hidden_act": "relu"}), &["hidden_act", "relu", "gelu_pytorch_tanh"]);
    refuse("gemma2", json!({"hidden_activation": "gelu"}), &["hidden_activation", "gelu_pytorch_tanh"]);
    refuse("gemma2", json!({"use_bidirectional_attention": true}), &["use_bidirectional_attention"]);
    refuse("gemma2", json!({"attn_logit_softcapping": -1.0}), &["attn_logit_softcapping", "above 0"]);
    refuse("gemma2", json!({"query_pre_attn_scalar": 0}), &["query_pre_attn_scalar", "above 0"]);
    refuse("gemma2", json!({"layer_types": ["full_attention"]}), &["layer_types", "4 of"]);
    refuse("gemma2", json!({"sliding_window": 0}), &["sliding_window", "1 or more"]);
    refuse("gemma3_text", json!({"attn_logit_softcapping": 50.0}), &["attn_logit_softcapping"]);
    refuse("gemma3_text", json!({"sliding_window": null}), &["sliding_window", "a number"]);
    refuse("gemma3_text", json!({"sliding_window_pattern": 0}), &["sliding_window_pattern"]);
    refuse("gemma3_text", json!({"rope_parameters": {"rope_theta": 1e4}}), &["rope_theta", "full_attention"]);
    let yarn = json!({"full_attention": {"rope_type": "yarn", "factor": 2.0}});
    refuse("gemma3_text", json!({"rope_parameters": yarn}), &["rope_type", "yarn", "linear"]);
    refuse("phi3", json!({"resid_pdrop": 0.1}), &["resid_pdrop", "0.1"]);
    refuse("phi3", json!({"partial_rotary_factor": 0.3}), &["partial_rotary_factor", "even"]);
    refuse(
        "phi3",
        json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
        &["type", "linear", "longrope"],
    );
    let short = json!({"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [1.0, 2.0]}});
    refuse("phi3", short, &["short_factor", "a list of 2 numbers"]);
    refuse("olmo2", json!({"rope_scaling": {"type": "yarn", "factor": 2.0}}), &["yarn", "linear"]);
    refuse("smollm3", json!({"no_rope_layers": [1, 0]}), &["no_rope_layers", "4 layers"]);
    refuse("smollm3", json!({"no_rope_layer_interval": 0}), &["no_rope_layer_interval"]);
    refuse("smollm3", json!({"layer_types": ["sliding_attention"]}), &["layer_types"]);
}
