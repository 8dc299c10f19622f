//! Losses, rewards and gradients of trl, row by row (tests/fixtures/objectives, written by tools/parity/objectives.py).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod close;

use candle_core::{Device, Tensor, Var};
use close::assert_close;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use votive_objective::{
    Denoised, METHODS, Objective, PairInputs, Tokens, UnpairedInputs, WITH, WRAPPERS, build, find,
};

#[derive(Deserialize)]
struct Case {
    file: String,
    objective: String,
    options: BTreeMap<String, Value>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Case {
    fn objective(&self) -> Objective {
        build(find(&self.objective).unwrap(), serde_json::to_value(&self.options).unwrap()).unwrap()
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
    let (loss, mut outputs) = match objective {
        Objective::Pair(objective) => {
            let loss = objective.evaluate(&pairs(inputs)).unwrap();
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
            if inputs.contains_key("mean_logratio") {
                completions = completions.with_mean_logratio(get("mean_logratio"));
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

/// What a file says of pairs.
fn pairs(inputs: &BTreeMap<String, Var>) -> PairInputs {
    let get = |name: &str| inputs[name].as_tensor().clone();
    let both = |before: &str, after: &str| {
        let names = ["chosen", "rejected"].map(|side| format!("{before}{side}{after}"));
        names.iter().all(|name| inputs.contains_key(name)).then(|| names.map(|name| get(&name)))
    };
    let tokens = |side: &str| Tokens {
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
    let mut pairs = match both("policy_", "_rewards") {
        Some([chosen, rejected]) => PairInputs::of_rewards(chosen, rejected).unwrap(),
        None => PairInputs::new(get("policy_chosen_logps"), get("policy_rejected_logps")),
    };
    if let Some([chosen, rejected]) = both("reference_", "_logps") {
        pairs = pairs.with_reference(chosen, rejected);
    }
    if let Some([chosen, rejected]) = both("", "_lengths") {
        pairs = pairs.with_lengths(chosen, rejected);
    }
    if let Some([chosen, rejected]) = both("", "_alignment") {
        pairs = pairs.with_alignment(chosen, rejected);
    }
    if inputs.contains_key("policy_chosen_errors") {
        pairs = pairs.with_denoised(denoised("chosen"), denoised("rejected"));
    }
    if inputs.contains_key("margins") {
        pairs = pairs.with_margins(get("margins"));
    }
    if inputs.contains_key("policy_gold_logps") {
        pairs = pairs.with_gold(get("policy_gold_logps"), get("gold_lengths"));
    }
    if inputs.contains_key("chosen_token_mask") {
        pairs = pairs.with_tokens(tokens("chosen"), tokens("rejected"));
    }
    pairs
}

#[test]
fn losses_rewards_and_gradients_are_trls() {
    for case in cases() {
        let tensors = case.tensors();
        let inputs = case.inputs.iter().map(|name| (name.clone(), Var::from_tensor(&tensors[name]).unwrap()));
        let outputs = evaluate(&case.objective(), &inputs.collect());
        for name in &case.outputs {
            let Some(found) = outputs.get(name) else { panic!("{}: no output `{name}`", case.file) };
            assert_close(found, &tensors[name], &format!("{}, {name}", case.file), "trl");
        }
    }
}

/// Every method and every wrapper is compared with something: here, or in a folder of cases beside this one.
#[test]
fn nothing_is_without_a_case() {
    let folders = std::fs::read_dir(folder().join("..")).unwrap().map(|entry| entry.unwrap().path());
    let lists = folders.map(|folder| folder.join("cases.json")).filter(|list| {
        let folder = list.parent().unwrap().file_name().unwrap().to_str().unwrap();
        folder.starts_with("objectives") && list.exists()
    });
    let all: Vec<Case> = lists
        .flat_map(|list| serde_json::from_slice::<Vec<Case>>(&std::fs::read(list).unwrap()).unwrap())
        .collect();
    let methods =
        METHODS.iter().map(|spec| spec.id).filter(|id| all.iter().all(|case| case.objective != *id));
    // A method that is another one in a wrapper is a case of both.
    let has = |wrapper: &str| {
        all.iter().any(|case| case.options.get(WITH).is_some_and(|with| with.get(wrapper).is_some()))
    };
    let composed = ["gold_nll", "token_weights"];
    let wrappers =
        WRAPPERS.iter().map(|spec| spec.name).filter(|name| !has(name) && !composed.contains(name));
    let missing: Vec<&str> = methods.chain(wrappers).collect();
    assert!(missing.is_empty(), "no case of {missing:?}");
}

#[test]
fn every_file_is_a_case_and_every_case_has_its_file() {
    let listed: BTreeSet<String> = cases().into_iter().map(|case| case.file).collect();
    let files = std::fs::read_dir(folder()).unwrap();
    let files = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let found: BTreeSet<String> = files.filter(|name| name.ends_with(".safetensors")).collect();
    assert_eq!(listed, found);
}
