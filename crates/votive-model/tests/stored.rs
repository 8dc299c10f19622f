//! Frozen weights that are kept in fewer bytes: a network on them is the network on what they stand for.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use votive_model::{
    CausalLm, CausalLmConfig, LoraConfig, Params, Targets, TokenBatch, files, load_causal_lm,
    load_causal_lm_stored,
};
use votive_tensor::Storage;
use votive_tensor::random::{Draws, Stream};

const CPU: Device = Device::Cpu;
const STORAGES: [Storage; 3] = [Storage::BFloat16, Storage::Int8, Storage::Nf4];

/// The language models of the fixtures, one for every architecture and variant.
fn folders() -> Vec<PathBuf> {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/text");
    let entries = std::fs::read_dir(text).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<PathBuf> = entries.filter(|path| path.join("config.json").exists()).collect();
    assert!(folders.len() >= 10);
    folders
}

fn batch() -> TokenBatch {
    let rows: Vec<Vec<u32>> = vec![(5..25).collect(), (30..42).rev().collect()];
    TokenBatch::new(rows, (0..2).flat_map(|row| (1..12).map(move |at| (row, at))).collect()).unwrap()
}

fn log_probs(config: &CausalLmConfig, params: &Params) -> Tensor {
    params.build(|scope| config.build(scope)).unwrap().log_probs(&batch(), None).unwrap()
}

/// The same parameters with every weight in full.
fn in_full(params: &Params) -> Params {
    let whole = params.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone()));
    let stored = params.stored().map(|(name, matrix)| (name.to_owned(), matrix.to_tensor().unwrap()));
    Params::new("in full", whole.chain(stored).collect(), &CPU)
}

/// An adapter on every linear map, DoRA or not, of which B is not zero.
fn adapted(params: &Params, use_dora: bool) -> Params {
    let config = LoraConfig { targets: Targets::AllLinear, use_dora, ..LoraConfig::new(4, 8.0, Vec::new()) };
    let adapted = params.with_new_lora(config, 5).unwrap();
    for (name, tensor) in adapted.trainable().iter().filter(|(name, _)| name.contains("lora_B")) {
        let draws = Draws::new(name.len() as u64, Stream::Init, 0, 0).normals(tensor.elem_count());
        let values = Tensor::from_vec(draws, tensor.shape(), &CPU).unwrap();
        Var::from_tensor(tensor).unwrap().set(&(values * 0.05).unwrap()).unwrap();
    }
    adapted
}

#[track_caller]
fn assert_near(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    let largest = |tensor: &Tensor| {
        let most = tensor.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap();
        most.to_scalar::<f64>().unwrap()
    };
    let distance = largest(&(found - expected).unwrap());
    assert!(distance <= tolerance * largest(expected).max(1.0), "{what}: off by {distance:e}");
}

#[test]
fn a_network_on_stored_weights_is_the_one_on_what_they_stand_for() {
    for folder in folders() {
        for storage in STORAGES {
            let what = format!("{} {storage:?}", folder.display());
            let (config, params) = load_causal_lm_stored(&folder, &CPU, storage).unwrap();
            assert!(params.stored().count() >= 4, "{what}");
            let full = in_full(&params);
            assert_eq!(params.count(), full.count());
            assert_near(&log_probs(&config, &params), &log_probs(&config, &full), 1e-5, &what);
            for use_dora in [false, true] {
                let (stored, whole) = (adapted(&params, use_dora), adapted(&full, use_dora));
                let (found, expected) = (log_probs(&config, &stored), log_probs(&config, &whole));
                assert_near(&found, &expected, 1e-5, &what);
                let gradients = |output: Tensor| output.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let (found, expected) = (gradients(found), gradients(expected));
                let expected: BTreeMap<String, Tensor> = whole
                    .trainable()
                    .into_iter()
                    .map(|(name, tensor)| (name, expected.get(&tensor).unwrap().clone()))
                    .collect();
                for (name, tensor) in stored.trainable() {
                    let found = found.get(&tensor).unwrap();
                    assert_near(found, &expected[&name], 1e-4, &format!("{what}: {name}"));
                }
            }
        }
    }
}

/// What a checkpoint in bf16 holds is kept as it is.
#[test]
fn a_checkpoint_in_bf16_loses_nothing_in_bf16() {
    let folder = tempfile::tempdir().unwrap();
    let source = folders().into_iter().find(|path| path.ends_with("llama")).unwrap();
    std::fs::copy(source.join("config.json"), folder.path().join("config.json")).unwrap();
    let tensors = files::read(&source.join("model.safetensors"), &CPU).unwrap().tensors;
    files::write(&folder.path().join("model.safetensors"), tensors, DType::BF16, BTreeMap::new()).unwrap();
    let (config, whole) = load_causal_lm(folder.path(), &CPU).unwrap();
    let (_, stored) = load_causal_lm_stored(folder.path(), &CPU, Storage::BFloat16).unwrap();
    let bits = |params: &Params| log_probs(&config, params).to_vec1::<f32>().unwrap();
    assert_eq!(bits(&stored), bits(&whole));
    for (name, matrix) in stored.stored() {
        let expected = whole.get(name).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(matrix.to_tensor().unwrap().to_vec2::<f32>().unwrap(), expected, "{name}");
    }
}

#[test]
fn what_is_stored_is_not_trained_whole_and_merges_in_full() {
    let (config, params) = load_causal_lm_stored(&folders()[0], &CPU, Storage::Int8).unwrap();
    let message = params.clone().into_trainable().unwrap_err().to_string();
    assert!(message.contains("kept in fewer bytes"), "{message}");
    let adapted = adapted(&params, false);
    let merged = adapted.merged().unwrap();
    assert_eq!(merged.stored().count(), 0);
    assert_near(&log_probs(&config, &merged), &log_probs(&config, &adapted), 1e-4, "merged");
}
