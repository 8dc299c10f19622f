//! Five steps of plain PyTorch on tiny language models (tests/fixtures/text_steps, written by
//! tools/parity/text_steps.py), along the whole path from a recipe and a file of preferences.

use crate::drive::no_reward;
use crate::fixture;
use crate::torch::{TorchRun, assert_near, largest_distance};
use crate::workshop::Workshop;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use votive_model::files;
use votive_train::front_end::FrontEnd;
use votive_train::{Prepared, Run, prepare};

/// Log-probabilities are sums of about ten numbers near −5, in f32.
const LOGPS: f64 = 3e-5;
/// The loss is near ln 2; its margin comes from two sums of log-probabilities, times β = 0.1.
const LOSS: f64 = 1e-5;
/// Relative; norms are near 2.
const GRAD_NORM: f64 = 1e-5;

#[test]
fn full_fine_tuning() {
    check("full");
}

#[test]
fn full_fine_tuning_with_tied_embeddings() {
    check("full_tied");
}

#[test]
fn adapter() {
    check("lora");
}

#[test]
fn full_fine_tuning_of_other_architectures() {
    ["full_gemma2", "full_phi3", "full_olmo2"].into_iter().for_each(check);
}

/// A pair loss and the likelihood of the chosen completions, each divided in its own way.
#[test]
fn a_mixture_of_objectives() {
    check("full_mixed");
}

/// With the divergence over the vocabulary at every token, under capped logits.
#[test]
fn an_objective_on_single_tokens() {
    check("full_tdpo");
}

#[test]
fn adapters_of_other_architectures() {
    ["lora_gemma2", "lora_phi3", "lora_olmo2"].into_iter().for_each(check);
}

/// Older checkpoints hold tensors that nothing computes with; they are not trained and don't stop the gate.
#[test]
fn full_fine_tuning_of_a_checkpoint_with_leftovers() {
    check_on("full_tied", |model| {
        let path = model.join("model.safetensors");
        let mut tensors = files::read(&path, &Device::Cpu).unwrap().tensors;
        let head = tensors["model.embed_tokens.weight"].clone();
        let frequencies = Tensor::ones(4, DType::F32, &Device::Cpu).unwrap();
        tensors.insert("lm_head.weight".to_owned(), head);
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), frequencies);
        files::write(&path, tensors, DType::F32, BTreeMap::new()).unwrap();
    });
}

fn check(name: &'static str) {
    check_on(name, |_| {});
}

/// Trains as torch did, on the model's folder as `change` leaves it.
fn check_on(name: &'static str, change: impl Fn(&Path)) {
    let torch = TorchRun::read("text_steps", name);
    let prefs = fixture("text_steps/prefs.jsonl");
    let data = format!("data = {{ path = {prefs:?}, order = \"sequential\" }}");
    let workshop = Workshop::new(&format!("{data}\n{}", torch.recipe()));
    lay_model(&workshop.path("model"), torch.model());
    change(&workshop.path("model"));
    let plan = workshop.plan(&[&format!("model.path={}", workshop.path("model").display())]);
    let Prepared::Text(front, start, _) = prepare(&plan, &Device::Cpu, &no_reward, |_, _| {}).unwrap() else {
        panic!("a language model");
    };
    assert_eq!(front.rows(), torch.pairs() * torch.steps() as usize);
    let mut run = Run::new(&plan, &*front, torch.start(start), None, |_, _| {}).unwrap();
    for step in 0..torch.steps() {
        let seen: BTreeMap<String, Tensor> = run.inspect(step, false).unwrap().tensors.into_iter().collect();
        check_batch(&torch, step, &seen);
        let metrics = run.step().unwrap();
        let what = format!("{name}, step {step}");
        assert_near(metrics.loss, torch.metric(step, "loss"), LOSS, &what);
        let grad_norm = torch.metric(step, "grad_norm");
        assert_near(metrics.grad_norm, grad_norm, GRAD_NORM * grad_norm, &what);
        if metrics.step == 1 || metrics.step == torch.steps() {
            torch.check_weights(run.params(), metrics.step);
        }
    }
}

/// Weights and configuration of one model with the tokenizer of text/llama, from which torch's token ids came.
fn lay_model(folder: &Path, weights: &str) {
    std::fs::create_dir(folder).unwrap();
    for (model, file) in [
        (weights, "config.json"),
        (weights, "model.safetensors"),
        ("llama", "tokenizer.json"),
        ("llama", "tokenizer_config.json"),
    ] {
        std::fs::copy(fixture("text").join(model).join(file), folder.join(file)).unwrap();
    }
}

/// Tokens and masks are TRL's, log-probabilities torch's.
fn check_batch(torch: &TorchRun, step: u64, seen: &BTreeMap<String, Tensor>) {
    for part in ["input_ids", "attention_mask", "completion_mask"] {
        let name = format!("step{step}.{part}");
        assert_eq!(largest_distance(&seen[part], &torch.batches[&name]), 0.0, "{name}");
    }
    for part in ["policy_logps", "reference_logps"] {
        let name = format!("step{step}.{part}");
        let distance = largest_distance(&seen[part], &torch.outputs[&name]);
        assert!(distance <= LOGPS, "{name}: off by {distance:e}");
    }
}
