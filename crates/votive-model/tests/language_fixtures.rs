//! Numbers of transformers on tiny checkpoints that it saved (tests/fixtures/text, written by tools/parity/text.py).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, IndexOp, Tensor};
use serde_json::Value;
use std::path::{Path, PathBuf};
use votive_model::{CausalLm, Decoder, GenerateOptions, Params, TokenBatch, files, generate};
use votive_model::{load_causal_lm, save_causal_lm};

/// `<|eos|>` of the fixtures' tokenizer.
const EOS: u32 = 2;
const MODELS: [&str; 13] = [
    "llama",
    "llama_tied",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "phi3_long",
    "olmo2",
    "smollm3",
];

fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/text").join(model)
}

fn load(folder: &Path) -> Decoder {
    let (config, params) = load_causal_lm(folder, &Device::Cpu).unwrap();
    params.build(|scope| config.build(scope)).unwrap()
}

/// Per-token log-probs of every token under `mask`, and the largest distance to transformers'.
fn worst_distance(model: &Decoder, file: &Path, mask: &str) -> f32 {
    let expected = files::read(file, &Device::Cpu).unwrap().tensors;
    let integers = |name: &str| expected[name].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let (ids, attention, mask) = (integers("input_ids"), integers("attention_mask"), integers(mask));
    let logps = expected["per_token_logps"].to_vec2::<f32>().unwrap();
    let rows: Vec<Vec<u32>> = ids
        .iter()
        .zip(&attention)
        .map(|(ids, attention)| ids[..attention.iter().sum::<u32>() as usize].to_vec())
        .collect();
    let wanted: Vec<(usize, usize)> = (0..rows.len())
        .flat_map(|row| (1..rows[row].len()).map(move |at| (row, at)))
        .filter(|(row, at)| mask[*row][*at] == 1)
        .collect();
    let found = model.log_probs(&TokenBatch::new(rows, wanted.clone()).unwrap(), None).unwrap();
    let found = found.to_vec1::<f32>().unwrap();
    wanted.iter().zip(found).map(|((row, at), found)| (found - logps[*row][at - 1]).abs()).fold(0.0, f32::max)
}

#[test]
fn log_probs_per_token() {
    for name in MODELS {
        let (folder, model) = (folder(name), load(&folder(name)));
        for (file, mask) in [
            ("expected", "attention_mask"),
            ("prefs.expected", "completion_mask"),
            ("prefs_chat.expected", "completion_mask"),
        ] {
            let worst = worst_distance(&model, &folder.join(format!("{file}.safetensors")), mask);
            assert!(worst < 1e-4, "{name}, {file}: off by {worst}");
        }
    }
}

#[test]
fn logits() {
    for name in MODELS {
        let (folder, model) = (folder(name), load(&folder(name)));
        let expected = files::read(&folder.join("expected.safetensors"), &Device::Cpu).unwrap().tensors;
        let ids = expected["input_ids"].to_dtype(DType::U32).unwrap();
        let lengths = expected["attention_mask"]
            .to_dtype(DType::U32)
            .unwrap()
            .sum(1)
            .unwrap()
            .to_vec1::<u32>()
            .unwrap();
        for (row, len) in lengths.into_iter().enumerate() {
            let len = len as usize;
            let hidden = model.hidden(&ids.i((row..=row, ..len)).unwrap()).unwrap();
            let logits = model.logits(&hidden.i((0, len - 1)).unwrap()).unwrap();
            let distance = (logits - expected["last_logits"].i(row).unwrap()).unwrap().abs().unwrap();
            let worst = distance.max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst < 1e-4, "{name}, row {row}: off by {worst}");
        }
    }
}

#[test]
fn greedy_continuations() {
    for name in MODELS {
        let (folder, model) = (folder(name), load(&folder(name)));
        let cases: Vec<Value> =
            serde_json::from_slice(&std::fs::read(folder.join("generate.json")).unwrap()).unwrap();
        let ids = |case: &Value, field: &str| -> Vec<u32> {
            case[field].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let prompts: Vec<Vec<u32>> = cases.iter().map(|case| ids(case, "prompt_ids")).collect();
        let options = GenerateOptions::greedy(24, vec![EOS]);
        let found = generate(&model, &prompts, &options).unwrap();
        for (case, found) in cases.iter().zip(found) {
            assert_eq!(found.token_ids, ids(case, "token_ids"), "{name}: {}", case["prompt"]);
        }
    }
}

#[test]
fn a_saved_model_is_read_back_as_it_was() {
    for name in MODELS {
        let (config, params) = load_causal_lm(&folder(name), &Device::Cpu).unwrap();
        let saved = tempfile::tempdir().unwrap();
        for (float, tolerance) in [(DType::F32, 0.0), (DType::F16, 1e-3), (DType::BF16, 1e-2)] {
            save_causal_lm(saved.path(), &config, &params, float).unwrap();
            let (config_again, params_again) = load_causal_lm(saved.path(), &Device::Cpu).unwrap();
            assert_eq!(config_again, config, "{name}");
            let names = |params: &Params| params.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
            assert_eq!(names(&params_again), names(&params), "{name}");
            let distance = |(a, b): (&Tensor, &Tensor)| {
                (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
            };
            let pairs = params.iter().map(|(_, t)| t).zip(params_again.iter().map(|(_, t)| t));
            assert!(pairs.map(distance).all(|d| d <= tolerance), "{name} as {float:?}");
        }
    }
}
