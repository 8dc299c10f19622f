//! Processed logits against transformers' own processors (tests/fixtures/sampling).

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device};
use serde_json::{Map, Value};
use std::path::PathBuf;
use votive_model::{SamplingPolicy, files};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sampling").join(name)
}

fn policy(options: &Value) -> SamplingPolicy {
    let number = |name: &str| options.get(name).and_then(Value::as_f64);
    SamplingPolicy {
        temperature: number("temperature").unwrap_or(1.0),
        top_k: number("top_k").map(|k| k as usize),
        top_p: number("top_p"),
        min_p: number("min_p"),
        repetition_penalty: number("repetition_penalty").unwrap_or(1.0),
    }
}

fn sorted(values: &[f32]) -> Vec<f32> {
    let mut values = values.to_vec();
    values.sort_by(f32::total_cmp);
    values
}

fn has_equals(values: &[f32]) -> bool {
    sorted(values).windows(2).any(|pair| pair[0] == pair[1])
}

#[test]
fn every_step_gives_the_numbers_of_transformers() {
    let read = |name: &str| files::read(&fixture(name), &Device::Cpu).unwrap().tensors;
    let (inputs, expected) = (read("logits.safetensors"), read("scores.safetensors"));
    let logits = inputs["logits"].to_vec2::<f32>().unwrap();
    let seen = inputs["seen"].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let cases: Map<String, Value> =
        serde_json::from_slice(&std::fs::read(fixture("cases.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), expected.len());
    for (name, options) in &cases {
        let expected = expected[name].to_vec2::<f32>().unwrap();
        for (row, logits) in logits.iter().enumerate() {
            let found = policy(options).process(logits, &seen[row]);
            if has_equals(logits) {
                // Which of equal logits torch's sort puts last, and so which of them stay, is nobody's rule: the lowest
                // ids here. As many must stay.
                assert_eq!(sorted(&found), sorted(&expected[row]), "{name}, row {row}");
            } else {
                assert_eq!(found, expected[row], "{name}, row {row}");
            }
        }
    }
}
