//! A grade by a yes or a no: P(yes) / (P(yes) + P(no)) of the answer's beginning.
//!
//! # Source
//! "Implicit preference": a language model as a preference classifier, by one forward pass (its authors' code). Theirs sums
//! the probabilities of all tokens of " Yes"; here an answer of several tokens has the product.

use super::{Read, Reading, Reply, options};
use crate::judgment::Finding;
use crate::question::Form;
use crate::speaker::{Sampling, Silence, Speaker, Talk};
use serde::Deserialize;

pub(super) const READING: Reading = Reading {
    id: "yes_no",
    form: Form::Grade,
    summary: "probability of a yes against a no, without a word written",
    build: |table| options::<YesNo>(table).map(|reading| Box::new(reading) as _),
};

/// Spellings of either answer; the probabilities of several add up.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct YesNo {
    yes: Vec<String>,
    no: Vec<String>,
}

impl Default for YesNo {
    fn default() -> Self {
        Self { yes: vec!["Yes".to_owned()], no: vec!["No".to_owned()] }
    }
}

impl Read for YesNo {
    fn read(&self, speaker: &dyn Speaker, talk: &Talk, _: &Sampling) -> Result<Reply, Silence> {
        let answers: Vec<String> = self.yes.iter().chain(&self.no).cloned().collect();
        let weighed = speaker.weigh(talk, &answers)?;
        let (yes, no) = weighed.log_probs.split_at(self.yes.len());
        let probability = share(log_sum(yes), log_sum(no));
        let words = describe(&answers, &weighed.log_probs);
        Ok(Reply { words, finding: Finding::Grade(probability), cost: weighed.cost })
    }
}

/// log Σ exp, nats; −∞ of none.
pub(super) fn log_sum(log_probs: &[f64]) -> f64 {
    let most = log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + log_probs.iter().map(|log_prob| (log_prob - most).exp()).sum::<f64>().ln()
}

/// The share of the first of two probabilities, given by their logarithms; ½ if both are 0.
pub(super) fn share(first: f64, second: f64) -> f64 {
    if first == second { 0.5 } else { 1.0 / (1.0 + (second - first).exp()) }
}

/// What was weighed, in words.
pub(super) fn describe(answers: &[String], log_probs: &[f64]) -> String {
    let each = answers.iter().zip(log_probs).map(|(answer, log_prob)| format!("{answer:?} {log_prob:.4}"));
    format!("log-probabilities: {}", each.collect::<Vec<_>>().join(", "))
}
