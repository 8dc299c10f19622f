//! A preference by a letter: P(A) / (P(A) + P(B)) of the answer's beginning, without a word written.
//!
//! # Source
//! AlpacaEval's weighted evaluator reads its preference from two tokens' log-probabilities; here the letters are the
//! template's, and a third one, for a tie, may take its share, which goes to both alike.

use super::yes_no::{describe, log_sum, share};
use super::{Read, Reading, Reply, options};
use crate::judgment::Finding;
use crate::question::Form;
use crate::speaker::{Sampling, Silence, Speaker, Talk};
use serde::Deserialize;

pub(super) const READING: Reading = Reading {
    id: "letter",
    form: Form::Pair,
    summary: "probability of the first candidate's letter against the second's, without a word written",
    build: |table| {
        let reading: Letter = options(table)?;
        if !(reading.temperature.is_finite() && reading.temperature > 0.0) {
            return Err(format!(
                "options: `temperature` is {}, expected a positive number",
                reading.temperature
            ));
        }
        Ok(Box::new(reading))
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Letter {
    first: String,
    second: String,
    /// The answer that calls them equal, if the template offers one.
    tie: Option<String>,
    /// What log-odds are divided by before they become a probability, fitted on labelled pairs.
    temperature: f64,
}

impl Default for Letter {
    fn default() -> Self {
        Self { first: "A".to_owned(), second: "B".to_owned(), tie: None, temperature: 1.0 }
    }
}

impl Read for Letter {
    fn read(&self, speaker: &dyn Speaker, talk: &Talk, _: &Sampling) -> Result<Reply, Silence> {
        let answers: Vec<String> =
            [&self.first, &self.second].into_iter().chain(&self.tie).cloned().collect();
        let weighed = speaker.weigh(talk, &answers)?;
        let weights: Vec<f64> =
            weighed.log_probs.iter().map(|log_prob| log_prob / self.temperature).collect();
        let [first, second] = [weights[0], weights[1]];
        let mut preference = share(first, second);
        if let Some(tie) = weights.get(2) {
            let decided = share(log_sum(&[first, second]), *tie);
            preference = decided * preference + (1.0 - decided) * 0.5;
        }
        let words = describe(&answers, &weighed.log_probs);
        Ok(Reply { words, finding: Finding::Preference(preference), cost: weighed.cost })
    }
}
