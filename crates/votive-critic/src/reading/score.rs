//! A grade by a written number.
//!
//! A number is one of: a JSON object with a field `score`, `rating` or `grade`; a mark `[[7]]`; a line `Score: 7` (or `Rating:`,
//! `Grade:`), with `/10` behind it or without; an answer of nothing else. Where there are several, all must agree, and every
//! one must lie on the template's scale.

use super::words::{fields, lines_after, marked, number_of, number_of_value};
use super::{Read, Reading, Reply, options};
use crate::judgment::Finding;
use crate::question::Form;
use crate::speaker::{Sampling, Silence, Speaker, Talk};
use serde::Deserialize;

pub(super) const READING: Reading = Reading {
    id: "score",
    form: Form::Grade,
    summary: "a number on a scale that is written after its reasons",
    build: |table| {
        let reading: Score = options(table)?;
        if !(reading.low.is_finite() && reading.high.is_finite() && reading.low < reading.high) {
            return Err(format!("options: `low` is {} and `high` is {}", reading.low, reading.high));
        }
        Ok(Box::new(reading))
    },
};

/// Ends of the scale.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Score {
    low: f64,
    high: f64,
}

impl Default for Score {
    fn default() -> Self {
        Self { low: 1.0, high: 10.0 }
    }
}

const FIELDS: &[&str] = &["score", "rating", "grade"];
const LINES: &[&str] = &["score", "rating", "grade", "final score", "overall score"];

impl Read for Score {
    fn read(&self, speaker: &dyn Speaker, talk: &Talk, sampling: &Sampling) -> Result<Reply, Silence> {
        let said = speaker.say(talk, sampling)?;
        Ok(Reply::of(said, |words| Ok(Finding::Grade(score(words, self.low, self.high)?))))
    }
}

/// The number that all scores of a text give.
pub(super) fn score(words: &str, low: f64, high: f64) -> Result<f64, String> {
    let mut scores = Vec::new();
    for value in fields(words, FIELDS)? {
        scores.push(number_of_value(&value, high).ok_or_else(|| format!("its score is {value}"))?);
    }
    for text in marked(words).chain(lines_after(words, LINES)) {
        scores.push(number_of(text, high).ok_or_else(|| format!("its score is \"{text}\""))?);
    }
    if scores.is_empty() {
        scores.extend(number_of(words, high));
    }
    let score = *scores.first().ok_or("it holds no score")?;
    if scores.iter().any(|other| *other != score) {
        return Err("it holds scores that differ".to_owned());
    }
    if !(low..=high).contains(&score) {
        return Err(format!("its score is {score}, and the scale goes from {low} to {high}"));
    }
    Ok(score)
}
