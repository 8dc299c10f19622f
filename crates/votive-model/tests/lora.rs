//! Adapters against PEFT's (tests/fixtures/lora, written by tools/parity/lora.py), and what a new adapter is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, Tensor, Var};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use votive_model::{CausalLm, CausalLmConfig, Lora, LoraConfig, Params, Targets, TokenBatch};
use votive_model::{files, load_causal_lm};
use votive_tensor::random::{Draws, Stream};

const CPU: Device = Device::Cpu;
const CASES: [&str; 4] = ["rslora", "dora", "saved", "layers"];

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

/// The model that a case's adapter belongs to.
fn base(case: &str) -> (CausalLmConfig, Params) {
    let about = std::fs::read(fixture(&format!("lora/{case}/case.json"))).unwrap();
    let about: Value = serde_json::from_slice(&about).unwrap();
    load_causal_lm(&fixture(&format!("text/{}", about["model"].as_str().unwrap())), &CPU).unwrap()
}

fn adapter(case: &str) -> Lora {
    Lora::load(&fixture(&format!("lora/{case}")), &CPU).unwrap()
}

/// Log-probs of the tokens of a case's rows, with PEFT's.
fn log_probs(case: &str, config: &CausalLmConfig, params: &Params) -> (Vec<f32>, Vec<f32>) {
    let expected = files::read(&fixture(&format!("lora/{case}/expected.safetensors")), &CPU).unwrap().tensors;
    let integers = |name: &str| expected[name].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let (ids, mask) = (integers("input_ids"), integers("attention_mask"));
    let logps = expected["per_token_logps"].to_vec2::<f32>().unwrap();
    let lengths = mask.iter().map(|row| row.iter().sum::<u32>() as usize);
    let rows: Vec<Vec<u32>> = ids.iter().zip(lengths).map(|(row, length)| row[..length].to_vec()).collect();
    let wanted: Vec<(usize, usize)> =
        (0..rows.len()).flat_map(|row| (1..rows[row].len()).map(move |at| (row, at))).collect();
    let model = params.build(|scope| config.build(scope)).unwrap();
    let found = model.log_probs(&TokenBatch::new(rows, wanted.clone()).unwrap(), None).unwrap();
    (found.to_vec1().unwrap(), wanted.iter().map(|(row, at)| logps[*row][at - 1]).collect())
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn peft_adapters_give_pefts_log_probs() {
    for case in CASES {
        let (config, params) = base(case);
        let (found, expected) = log_probs(case, &config, &params.with_lora(adapter(case)).unwrap());
        assert!(distance(&found, &expected) < 1e-4, "{case}: off by {}", distance(&found, &expected));
        let (without, _) = log_probs(case, &config, &params);
        assert!(distance(&without, &expected) > 1e-2, "{case}: the adapter does nothing");
    }
}

#[test]
fn a_saved_adapter_is_read_back_as_it_was() {
    for case in CASES {
        let (config, params) = base(case);
        let folder = tempfile::tempdir().unwrap();
        adapter(case).save(folder.path(), "base").unwrap();
        let again = Lora::load(folder.path(), &CPU).unwrap();
        assert_eq!(again.config(), adapter(case).config(), "{case}");
        let of = |lora| log_probs(case, &config, &params.with_lora(lora).unwrap()).0;
        assert_eq!(of(again), of(adapter(case)), "{case}");
    }
}

#[test]
fn merged_weights_compute_the_same() {
    for case in CASES {
        let (config, params) = base(case);
        let adapted = params.with_lora(adapter(case)).unwrap();
        let merged = adapted.merged().unwrap();
        assert!(merged.lora().is_none() && merged.trainable().is_empty());
        let (a, b) = (log_probs(case, &config, &adapted).0, log_probs(case, &config, &merged).0);
        assert!(distance(&a, &b) < 1e-4, "{case}: off by {}", distance(&a, &b));
    }
}

/// A new adapter with everything in it at once.
fn fresh(params: &Params) -> Params {
    let config = LoraConfig {
        targets: Targets::AllLinear,
        use_dora: true,
        use_rslora: true,
        rank_pattern: BTreeMap::from([("v_proj".to_owned(), 2)]),
        modules_to_save: vec!["lm_head".to_owned(), "input_layernorm".to_owned()],
        ..LoraConfig::new(4, 8.0, Vec::new())
    };
    params.with_new_lora(config, 5).unwrap()
}

#[test]
fn a_new_adapter_changes_nothing_and_all_of_it_can_learn() {
    let (config, params) = load_causal_lm(&fixture("text/llama"), &CPU).unwrap();
    let adapted = fresh(&params);
    let rows: Vec<Vec<u32>> = vec![(5..25).collect(), (30..42).rev().collect()];
    let wanted = (0..2).flat_map(|row| (1..12).map(move |at| (row, at))).collect();
    let batch = TokenBatch::new(rows, wanted).unwrap();
    let of =
        |params: &Params| params.build(|scope| config.build(scope)).unwrap().log_probs(&batch, None).unwrap();
    let distance = distance(&of(&params).to_vec1().unwrap(), &of(&adapted).to_vec1().unwrap());
    assert!(distance < 1e-5, "{distance}");

    let trainable = adapted.trainable();
    let names: Vec<&str> = trainable.iter().map(|(name, _)| name.as_str()).collect();
    for expected in [
        "lm_head.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.0.mlp.up_proj.lora_magnitude_vector",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
    ] {
        assert!(names.contains(&expected), "{expected} is not among {names:?}");
    }
    // 7 maps in each of 2 layers, with A, B and a magnitude; the head and 2 norms.
    assert_eq!(names.len(), 2 * 7 * 3 + 3);
    for (name, tensor) in trainable.iter().filter(|(name, _)| name.contains("lora_B")) {
        let draws = Draws::new(name.len() as u64, Stream::Init, 0, 0).normals(tensor.elem_count());
        let values = Tensor::from_vec(draws, tensor.shape(), &CPU).unwrap();
        Var::from_tensor(tensor).unwrap().set(&(values * 0.1).unwrap()).unwrap();
    }
    let grads = of(&adapted).sqr().unwrap().sum_all().unwrap().backward().unwrap();
    for (name, tensor) in &trainable {
        assert!(grads.get(tensor).is_some(), "{name} has no gradient");
        let values: Vec<f32> = grads.get(tensor).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(values.iter().all(|g| g.is_finite()) && values.iter().any(|g| *g != 0.0), "{name}");
    }
    // The base below it is what it was.
    assert_eq!(
        of(&params).to_vec1::<f32>().unwrap(),
        of(&adapted.without_adapter()).to_vec1::<f32>().unwrap()
    );
}

/// The message with which a folder is refused after `change` of its configuration.
fn refused(change: Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(fixture("lora/rslora").join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    std::fs::write(&path, config.to_string()).unwrap();
    Lora::load(folder.path(), &CPU).map(|_| "nothing".to_owned()).unwrap_or_else(|error| error.to_string())
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    assert_eq!(refused(json!({})), "nothing");
    assert_eq!(refused(json!({"lora_dropout": 0.1, "future_field": null})), "nothing");
    for (change, parts) in [
        (json!({"bias": "all"}), ["bias", "none"]),
        (json!({"init_lora_weights": "pissa"}), ["init_lora_weights", "pissa"]),
        (json!({"fan_in_fan_out": true}), ["fan_in_fan_out", "leave it out"]),
        (json!({"trainable_token_indices": [3]}), ["trainable_token_indices", "[3]"]),
        (json!({"layer_replication": [[0, 1]]}), ["layer_replication", "leave it out"]),
        (json!({"peft_type": "ADALORA"}), ["peft_type", "ADALORA"]),
        (json!({"layers_pattern": "blocks"}), ["layers_pattern", "blocks"]),
        (json!({"future_field": 3}), ["future_field", "leave it out"]),
        (json!({"r": 8}), ["`model.layers.0.mlp.down_proj`", "rank 8"]),
        (json!({"use_dora": true}), ["lora_magnitude_vector", "use_dora"]),
        (json!({"target_modules": "("}), ["`(`", "regular expression"]),
        (json!({"rank_pattern": {"q_proj": "many"}}), ["rank_pattern", "numbers"]),
    ] {
        let message = refused(change);
        assert!(parts.iter().all(|part| message.contains(part)), "{message} lacks one of {parts:?}");
    }
}

#[test]
fn an_adapter_for_another_model_names_the_first_module_that_does_not_fit() {
    // Qwen2's adapter on a Llama of the same sizes but for the keys, and Phi-3's fused projections on it.
    let (_, llama) = load_causal_lm(&fixture("text/llama"), &CPU).unwrap();
    let message = llama.with_lora(adapter("layers")).unwrap_err().to_string();
    for part in ["`model.layers.1.mlp.gate_up_proj`", "no such module", "made for phi3_long"] {
        assert!(message.contains(part), "{message}");
    }
    let (_, gemma) = load_causal_lm(&fixture("text/gemma2"), &CPU).unwrap();
    let message = gemma.with_lora(adapter("dora")).unwrap_err().to_string();
    for part in ["`model.layers.0.mlp.down_proj`", "do not fit the weight [24, 44]", "made for qwen2"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn configurations_that_cannot_be_met_are_refused() {
    let (_, tied) = load_causal_lm(&fixture("text/llama_tied"), &CPU).unwrap();
    let message = |modules: &[&str]| {
        let modules_to_save = modules.iter().map(|name| (*name).to_owned()).collect();
        let config = LoraConfig { modules_to_save, ..LoraConfig::new(2, 4.0, vec!["q_proj".to_owned()]) };
        tied.with_new_lora(config, 1).unwrap_err().to_string()
    };
    assert!(message(&["embed_tokens"]).contains("tie_word_embeddings"), "{}", message(&["embed_tokens"]));
    assert!(message(&["lm_head"]).contains("`lm_head` names no module"), "{}", message(&["lm_head"]));
}
