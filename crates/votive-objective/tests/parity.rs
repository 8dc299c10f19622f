//! Losses, rewards and gradients of trl, row by row (tests/fixtures/objectives, written by tools/parity/objectives.py).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use candle_core::{DType, Device, Tensor, Var};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use votive_objective::{Denoised, Objective, PairInputs, Tokens, UnpairedInputs, find};

/// Both sides compute in f64 by different formulas for the same function, so only rounding remains: errors are
/// absolute below 1 and relative above.
const TOLERANCE: f64 = 1e-9;

/// Options that trl's cases have and no method here has yet. A case with one is passed over until its method has it.
const TO_COME: [&str; 1] = ["label_smoothing"];

#[derive(Deserialize)]
struct Case {
    file: String,
    objective: String,
    options: BTreeMap<String, Value>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Case {
    /// Options of this case that its method does not have.
    fn unknown_options(&self) -> Vec<&str> {
        let known = find(&self.objective).unwrap().options;
        let is_known = |name: &&String| known.iter().any(|option| option.name == **name);
        self.options.keys().filter(|name| !is_known(name)).map(String::as_str).collect()
    }

    fn objective(&self) -> Objective {
        let spec = find(&self.objective).unwrap();
        (spec.build)(serde_json::to_value(&self.options).unwrap()).unwrap()
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let file = candle_core::safetensors::load(folder().join(&self.file), &Device::Cpu).unwrap();
        file.into_iter().collect()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/objectives")
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(folder().join("cases.json")).unwrap()).unwrap()
}

/// The outputs that trl's file has, computed here.
fn evaluate(objective: &Objective, inputs: &BTreeMap<String, Var>) -> BTreeMap<String, Tensor> {
    let get = |name: &str| inputs[name].as_tensor().clone();
    let side = |side: &str| Tokens {
        mask: get(&format!("{side}_token_mask")),
        policy_logps: Some(get(&format!("policy_{side}_token_logps"))),
        reference_logps: Some(get(&format!("reference_{side}_token_logps"))),
        kl: Some(get(&format!("{side}_token_kl"))),
    };
    let denoised = |side: &str| Denoised {
        policy_errors: get(&format!("policy_{side}_errors")),
        reference_errors: Some(get(&format!("reference_{side}_errors"))),
        distances: Some(get(&format!("{side}_distances"))),
    };
    let (loss, mut outputs) = match objective {
        Objective::Pair(objective) => {
            let mut pairs = PairInputs::new(get("policy_chosen_logps"), get("policy_rejected_logps"))
                .with_reference(get("reference_chosen_logps"), get("reference_rejected_logps"));
            if inputs.contains_key("chosen_lengths") {
                pairs = pairs.with_lengths(get("chosen_lengths"), get("rejected_lengths"));
            }
            if inputs.contains_key("margins") {
                pairs = pairs.with_denoised(denoised("chosen"), denoised("rejected"));
                pairs = pairs.with_margins(get("margins"));
            }
            if inputs.contains_key("chosen_token_mask") {
                pairs = pairs.with_tokens(side("chosen"), side("rejected"));
            }
            let loss = objective.evaluate(&pairs).unwrap();
            let rewards =
                [("chosen_rewards", loss.chosen_rewards), ("rejected_rewards", loss.rejected_rewards)];
            (loss.per_pair, Vec::from(rewards))
        }
        Objective::Unpaired(objective) => {
            let mut completions = UnpairedInputs::new(get("policy_logps"), get("labels"))
                .with_reference(get("reference_logps"));
            if inputs.contains_key("kl") {
                completions = completions.with_kl(get("kl"));
            }
            if inputs.contains_key("lengths") {
                completions = completions.with_lengths(get("lengths"));
            }
            let loss = objective.evaluate(&completions).unwrap();
            (loss.per_example, loss.rewards.map(|rewards| ("rewards", rewards)).into_iter().collect())
        }
        Objective::List(_) => panic!("trl has no loss of lists"),
    };
    let gradients = loss.sum_all().unwrap().backward().unwrap();
    outputs.push(("per_pair_loss", loss));
    let mut outputs: BTreeMap<String, Tensor> =
        outputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    for (name, input) in inputs {
        // What an objective does not read has no gradient; trl's file says 0.
        let gradient = gradients.get(input).cloned().unwrap_or_else(|| input.zeros_like().unwrap());
        outputs.insert(format!("grad.{name}"), gradient);
    }
    outputs
}

#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!((found.dims(), found.dtype()), (expected.dims(), DType::F64), "{what}");
    let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (found, expected) = (numbers(found), numbers(expected));
    for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let error = (found - expected).abs() / expected.abs().max(1.0);
        assert!(error <= TOLERANCE, "{what}, row {row}: {found}, trl has {expected}");
    }
}

#[test]
fn losses_rewards_and_gradients_are_trls() {
    let mut checked = 0;
    for case in cases() {
        let unknown = case.unknown_options();
        if let Some(name) = unknown.first() {
            assert!(TO_COME.contains(name), "{}: `{}` has no option `{name}`", case.file, case.objective);
            continue;
        }
        let tensors = case.tensors();
        let inputs = case.inputs.iter().map(|name| (name.clone(), Var::from_tensor(&tensors[name]).unwrap()));
        let outputs = evaluate(&case.objective(), &inputs.collect());
        for name in &case.outputs {
            let Some(found) = outputs.get(name) else { panic!("{}: no output `{name}`", case.file) };
            assert_close(found, &tensors[name], &format!("{}, {name}", case.file));
        }
        checked += 1;
    }
    assert!(checked >= 26, "only {checked} cases were checked");
}

#[test]
fn every_file_is_a_case_and_every_case_has_its_file() {
    let listed: BTreeSet<String> = cases().into_iter().map(|case| case.file).collect();
    let files = std::fs::read_dir(folder()).unwrap();
    let files = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let found: BTreeSet<String> = files.filter(|name| name.ends_with(".safetensors")).collect();
    assert_eq!(listed, found);
}
