//! Which `config.json` of the Llama family is read how, and which is refused in which words.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use votive_model::config::ConfigFile;
use votive_model::llama::{Family, Rope, RopeScaling};
use votive_model::{CausalLmConfig, LlamaConfig};

/// A configuration of `model_type` with the fewest fields, and `extra`.
fn json_of(model_type: &str, extra: Value) -> Value {
    let mut config = json!({
        "model_type": model_type, "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 8,
    });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    config
}

fn file(config: &Value) -> ConfigFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    ConfigFile::read(&path).unwrap()
}

fn read(config: &Value) -> votive_model::Result<LlamaConfig> {
    LlamaConfig::read(&file(config))
}

fn config(model_type: &str, extra: Value) -> LlamaConfig {
    read(&json_of(model_type, extra)).unwrap()
}

#[test]
fn absent_fields_are_what_transformers_makes_them() {
    let llama = config("llama", json!({}));
    let sizes = &llama.sizes;
    assert_eq!((sizes.num_key_value_heads, sizes.head_dim, sizes.max_position_embeddings), (8, 8, 2048));
    assert_eq!((sizes.rms_norm_eps, sizes.tie_word_embeddings, llama.eos_token_id), (1e-6, false, vec![2]));
    assert_eq!(llama.bos_token_id, Some(1));
    assert_eq!((llama.rope, llama.windows), (Rope::default(), vec![None; 3]));
    let mistral = config("mistral", json!({}));
    assert_eq!((mistral.sizes.num_key_value_heads, mistral.sizes.max_position_embeddings), (8, 131_072));
    assert_eq!((mistral.windows, mistral.eos_token_id), (vec![Some(4096); 3], vec![2]));
    let qwen2 = config("qwen2", json!({"num_key_value_heads": null}));
    assert_eq!(
        (qwen2.family, qwen2.sizes.num_key_value_heads, qwen2.sizes.max_position_embeddings),
        (Family::Qwen2, 8, 32_768)
    );
    assert_eq!((qwen2.windows, qwen2.eos_token_id), (vec![None; 3], vec![]));
    assert_eq!(config("qwen3", json!({"num_key_value_heads": 2})).sizes.head_dim, 128);
    // Grouped queries need a divisor, and Qwen's default of 32 is none of 8.
    assert!(read(&json_of("qwen2", json!({}))).is_err());
}

#[test]
fn both_generations_of_rope_fields() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192
    });
    let mut five = llama3.clone();
    five["rope_theta"] = json!(500_000.0);
    let old = config("llama", json!({"rope_theta": 500_000.0, "rope_scaling": llama3}));
    let new = config("llama", json!({"rope_parameters": five}));
    assert_eq!(old, new);
    assert_eq!(old.rope.theta, 500_000.0);
    let linear = RopeScaling::Linear { factor: 2.0 };
    assert_eq!(
        config("llama", json!({"rope_scaling": {"type": "linear", "factor": 2.0}})).rope.scaling,
        linear
    );
    let default = config(
        "qwen2",
        json!({"num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    );
    assert_eq!(default.rope, Rope { theta: 1e6, scaling: RopeScaling::Default });
    // Without its own field, the context of the pretraining is the model's.
    let mut short = llama3;
    short.as_object_mut().unwrap().remove("original_max_position_embeddings");
    let scaling =
        config("llama", json!({"rope_scaling": short, "max_position_embeddings": 4096})).rope.scaling;
    assert!(
        matches!(scaling, RopeScaling::Llama3 { original_max_position_embeddings: 4096, .. }),
        "{scaling:?}"
    );
}

#[test]
fn windows_by_layer() {
    let qwen = |extra: Value| {
        let mut fields = json!({"num_key_value_heads": 2, "sliding_window": 16});
        fields.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config("qwen2", fields).windows
    };
    assert_eq!(qwen(json!({})), vec![None; 3]);
    assert_eq!(qwen(json!({"use_sliding_window": true})), vec![None; 3]);
    assert_eq!(qwen(json!({"use_sliding_window": true, "max_window_layers": 1})), [None, Some(16), Some(16)]);
    let types = json!({"use_sliding_window": true, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]});
    assert_eq!(qwen(types), [Some(16), None, Some(16)]);
    assert_eq!(config("mistral", json!({"sliding_window": null})).windows, vec![None; 3]);
    assert_eq!(config("mistral", json!({"sliding_window": 8})).windows, vec![Some(8); 3]);
}

#[test]
fn what_is_written_is_read_back() {
    let scaled = json!({"rope_type": "linear", "factor": 2.0});
    let tied = json!({"tie_word_embeddings": true, "attention_bias": true, "mlp_bias": true, "rope_scaling": scaled});
    let mixed = json!({
        "num_key_value_heads": 2, "use_sliding_window": true, "sliding_window": 5, "eos_token_id": [4, 6],
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "pad_token_id": 3,
    });
    for config in [
        config("llama", tied),
        config("mistral", json!({"sliding_window": 5})),
        config("mistral", json!({"sliding_window": null})),
        config("qwen2", mixed.clone()),
        config("qwen3", mixed),
        LlamaConfig::llama(100, (64, 96), 3, (8, 2), 128),
    ] {
        let json = config.to_json("float32");
        assert_eq!(read(&json).unwrap(), config);
        // Through the type that stands for every architecture, in whatever type the weights are stored.
        let read = CausalLmConfig::read(&file(&json)).unwrap();
        assert_eq!(read, config.into());
        assert_eq!(CausalLmConfig::read(&file(&read.to_json("bfloat16"))).unwrap(), read);
        assert_eq!(read.to_json("bfloat16")["torch_dtype"], "bfloat16");
    }
}

#[test]
fn refusals_name_the_field_and_what_is_supported() {
    let refuse = |model_type: &str, extra: Value, parts: &[&str]| {
        let message = CausalLmConfig::read(&file(&json_of(model_type, extra))).unwrap_err().to_string();
        for part in ["config.json"].iter().chain(parts) {
            assert!(message.contains(part), "`{message}` lacks `{part}`");
        }
    };
    refuse("gpt2", json!({}), &["model_type", "gpt2", "llama, mistral, qwen2, qwen3"]);
    refuse("qwen3_moe", json!({}), &["model_type", "qwen3_moe"]);
    refuse(
        "llama",
        json!({"architectures": ["LlamaForSequenceClassification"]}),
        &["architectures", "LlamaForCausalLM"],
    );
    for kind in ["yarn", "dynamic", "longrope", "su"] {
        let scaling = json!({"rope_scaling": {"rope_type": kind, "factor": 2.0}});
        refuse("llama", scaling, &["rope_type", kind, "default, linear, llama3"]);
    }
    refuse(
        "llama",
        json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        &["`rope_scaling.type`", "dynamic"],
    );
    refuse("llama", json!({"rope_scaling": {"type": "linear"}}), &["factor", "needs a number"]);
    refuse(
        "llama",
        json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
        &["full_attention"],
    );
    refuse("llama", json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor", "0.5"]);
    refuse(
        "llama",
        json!({"rope_parameters": {"partial_rotary_factor": 0.5}}),
        &["partial_rotary_factor", "0.5"],
    );
    refuse("llama", json!({"hidden_act": "gelu"}), &["hidden_act", "gelu", "silu"]);
    refuse("llama", json!({"pretraining_tp": 2}), &["pretraining_tp"]);
    refuse("llama", json!({"attention_dropout": 0.1}), &["attention_dropout", "0.1"]);
    refuse(
        "llama",
        json!({"quantization_config": {"quant_method": "gptq"}}),
        &["quantization_config", "gptq"],
    );
    refuse("llama", json!({"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}), &["auto_map", "own code"]);
    refuse("llama", json!({"num_key_value_heads": 3}), &["num_key_value_heads", "divisor of the 8"]);
    refuse("llama", json!({"num_key_value_heads": 0}), &["num_key_value_heads", "divisor of the 8"]);
    refuse("llama", json!({"intermediate_size": 0}), &["intermediate_size", "1 or more"]);
    refuse("llama", json!({"head_dim": 7}), &["head_dim", "even"]);
    refuse("llama", json!({"vocab_size": "many"}), &["vocab_size", "a whole number", "many"]);
    refuse("llama", json!({"eos_token_id": "x"}), &["eos_token_id", "token id"]);
    refuse(
        "qwen2",
        json!({"num_key_value_heads": 2, "layer_types": ["full_attention"]}),
        &["layer_types", "3 of"],
    );
    refuse("llama", json!({"num_attention_heads": 0}), &["num_attention_heads", "1 or more"]);
}
