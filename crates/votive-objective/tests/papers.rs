//! Losses, rewards and gradients of the papers' formulas, row by row (tests/fixtures/objectives_papers, written by
//! tools/parity/objectives_papers.py).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod close;

use candle_core::{Device, Tensor, Var};
use close::assert_close;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use votive_objective::{
    ListInputs, ListObjective, Objective, PairInputs, PairObjective, TokenWeights, Tokens, UnpairedInputs,
    UnpairedObjective, find,
};

#[derive(Deserialize)]
struct Case {
    file: String,
    objective: String,
    options: Value,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/objectives_papers")
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(folder().join("cases.json")).unwrap()).unwrap()
}

type Outputs = (Tensor, Vec<(&'static str, Tensor)>);

/// The inputs of a case, as variables.
struct Given(BTreeMap<String, Var>);

impl Given {
    fn get(&self, name: &str) -> Tensor {
        self.0[name].as_tensor().clone()
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The two sides of a name.
    fn sides(&self, name: &str) -> [Tensor; 2] {
        ["chosen", "rejected"].map(|side| self.get(&name.replace("{}", side)))
    }

    fn tokens(&self, side: &str) -> Tokens {
        Tokens {
            mask: self.get(&format!("{side}token_mask")),
            policy_logps: Some(self.get(&format!("policy_{side}token_logps"))),
            reference_logps: Some(self.get(&format!("reference_{side}token_logps"))),
            kl: Some(self.get(&format!("{side}token_kl"))),
        }
    }

    fn pairs(&self, objective: &dyn PairObjective) -> Outputs {
        let [chosen, rejected] = self.sides("policy_{}_logps");
        let mut pairs = PairInputs::new(chosen, rejected);
        let [chosen, rejected] = self.sides("reference_{}_logps");
        pairs = pairs.with_reference(chosen, rejected);
        let two = |name: &str, present: &str| self.has(present).then(|| self.sides(name));
        if let Some([chosen, rejected]) = two("{}_lengths", "chosen_lengths") {
            pairs = pairs.with_lengths(chosen, rejected);
        }
        if let Some([chosen, rejected]) = two("base_{}_logps", "base_chosen_logps") {
            pairs = pairs.with_base(chosen, rejected);
        }
        if let Some([chosen, rejected]) = two("{}_scores", "chosen_scores") {
            pairs = pairs.with_scores(chosen, rejected);
        }
        if let Some([chosen, rejected]) = two("{}_values", "chosen_values") {
            pairs = pairs.with_values(chosen, rejected);
        }
        if self.has("chosen_token_mask") {
            pairs = pairs.with_tokens(self.tokens("chosen_"), self.tokens("rejected_"));
        }
        if self.has("chosen_token_weights") {
            let [chosen, rejected] = ["chosen", "rejected"].map(|side| TokenWeights {
                logratio: self.get(&format!("{side}_token_weights")),
                kl: self.get(&format!("{side}_token_kl_weights")),
            });
            pairs = pairs.with_token_weights(chosen, rejected);
        }
        if self.has("policy_gold_logps") {
            pairs = pairs.with_gold(self.get("policy_gold_logps"), self.get("gold_lengths"));
        }
        if self.has("margins") {
            pairs = pairs.with_margins(self.get("margins"));
        }
        if self.has("uncertainties") {
            pairs = pairs.with_uncertainties(self.get("uncertainties"));
        }
        if self.has("degree_logps") {
            pairs = pairs.with_degree_logps(self.get("degree_logps"));
        }
        let loss = objective.evaluate(&pairs).unwrap();
        let rewards = [("chosen_rewards", loss.chosen_rewards), ("rejected_rewards", loss.rejected_rewards)];
        (loss.per_pair, rewards.into())
    }

    fn unpaired(&self, objective: &dyn UnpairedObjective) -> Outputs {
        let mut completions = UnpairedInputs::new(self.get("policy_logps"), self.get("labels"))
            .with_reference(self.get("reference_logps"));
        if self.has("kl") {
            completions = completions.with_kl(self.get("kl"));
        }
        if self.has("scores") {
            completions = completions.with_scores(self.get("scores"));
        }
        if self.has("token_mask") {
            completions = completions.with_tokens(self.tokens(""));
        }
        let loss = objective.evaluate(&completions).unwrap();
        (loss.per_example, loss.rewards.map(|rewards| ("rewards", rewards)).into_iter().collect())
    }

    fn lists(&self, objective: &dyn ListObjective) -> Outputs {
        let mut lists = ListInputs::new(self.get("policy_logps")).with_reference(self.get("reference_logps"));
        lists = lists.with_scores(self.get("scores"));
        if self.has("draws") {
            lists = lists.with_draws(self.get("draws"));
        }
        let loss = objective.evaluate(&lists).unwrap();
        (loss.per_list, vec![("rewards", loss.rewards)])
    }

    /// The outputs that a case's file has, computed here.
    fn evaluate(&self, objective: &Objective) -> BTreeMap<String, Tensor> {
        let (loss, mut outputs) = match objective {
            Objective::Pair(objective) => self.pairs(objective.as_ref()),
            Objective::Unpaired(objective) => self.unpaired(objective.as_ref()),
            Objective::List(objective) => self.lists(objective.as_ref()),
        };
        let gradients = loss.sum_all().unwrap().backward().unwrap();
        outputs.push(("per_pair_loss", loss));
        let mut outputs: BTreeMap<String, Tensor> =
            outputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
        for (name, input) in &self.0 {
            // What an objective does not read has no gradient; the file says 0.
            let gradient = gradients.get(input).cloned().unwrap_or_else(|| input.zeros_like().unwrap());
            outputs.insert(format!("grad.{name}"), gradient);
        }
        outputs
    }
}

#[test]
fn losses_rewards_and_gradients_are_those_of_the_formulas() {
    for case in cases() {
        let tensors = candle_core::safetensors::load(folder().join(&case.file), &Device::Cpu).unwrap();
        let inputs = case.inputs.iter().map(|name| (name.clone(), Var::from_tensor(&tensors[name]).unwrap()));
        let objective = (find(&case.objective).unwrap().build)(case.options.clone()).unwrap();
        let outputs = Given(inputs.collect()).evaluate(&objective);
        for name in &case.outputs {
            let Some(found) = outputs.get(name) else { panic!("{}: no output `{name}`", case.file) };
            assert_close(found, &tensors[name], &format!("{}, {name}", case.file), "the formula");
        }
    }
}

#[test]
fn every_file_is_a_case_and_every_case_has_its_file() {
    let listed: BTreeSet<String> = cases().into_iter().map(|case| case.file).collect();
    let files = std::fs::read_dir(folder()).unwrap();
    let files = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let found: BTreeSet<String> = files.filter(|name| name.ends_with(".safetensors")).collect();
    assert_eq!(listed, found);
}
