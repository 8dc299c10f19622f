//! A preference by scores in several dimensions, which of every dimension sum to ten.
//!
//! The answer is a JSON object whose field `scores` has an object a dimension, `[first, second]`: `{"scores": {"faithful": [7, 3],
//! "clean": [5, 5]}, "winner": "A"}`. The preference is the first candidate's share of all points. A dimension whose scores do not
//! sum to ten is refused, and so is a written winner that loses by its own points.
//!
//! # Source
//! UnifiedReward-Flex: per-dimension scores of two images that sum to ten, dimensions grouped under fixed anchors and some of
//! the judge's own choice. Its nested groups are read as well: `{"semantic": {"colour": [6, 4]}, …}`.

use super::verdict::verdict;
use super::words::objects;
use super::{Read, Reading, Reply, options};
use crate::judgment::{Finding, Winner};
use crate::question::Form;
use crate::speaker::{Sampling, Silence, Speaker, Talk};
use serde::Deserialize;
use serde_json::Value;

pub(super) const READING: Reading = Reading {
    id: "rubric",
    form: Form::Pair,
    summary: "scores of both candidates that sum to ten in each of several dimensions",
    build: |table| options::<Rubric>(table).map(|reading| Box::new(reading) as _),
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rubric {
    /// Dimensions that must be among the scores.
    #[serde(default)]
    dimensions: Vec<String>,
}

const TOTAL: f64 = 10.0;
/// Scores may have been rounded.
const SLACK: f64 = 1e-6;

impl Read for Rubric {
    fn read(&self, speaker: &dyn Speaker, talk: &Talk, sampling: &Sampling) -> Result<Reply, Silence> {
        let said = speaker.say(talk, sampling)?;
        Ok(Reply::of(said, |words| Ok(Finding::Preference(preference(words, &self.dimensions)?))))
    }
}

/// The first candidate's share of all points.
pub(super) fn preference(words: &str, dimensions: &[String]) -> Result<f64, String> {
    let mut objects = objects(words)?.into_iter().filter_map(|object| object.get("scores").cloned());
    let scores = objects.next().ok_or("it holds no object with a field `scores`")?;
    if objects.next().is_some() {
        return Err("it holds several objects with a field `scores`".to_owned());
    }
    let mut found = Vec::new();
    gather("", &scores, &mut found)?;
    if let Some(missing) = dimensions.iter().find(|name| !found.iter().any(|(path, _)| names(path, name))) {
        return Err(format!("it scores no dimension \"{missing}\""));
    }
    if found.is_empty() {
        return Err("its `scores` are empty".to_owned());
    }
    let share = found.iter().map(|(_, first)| first / TOTAL).sum::<f64>() / found.len() as f64;
    let winner = Finding::Preference(share).winner();
    let written = verdict(words).ok();
    match (winner, written) {
        (Some(Winner::First), Some(Winner::Second)) | (Some(Winner::Second), Some(Winner::First)) => {
            Err("its written winner loses by its own points".to_owned())
        }
        _ => Ok(share),
    }
}

/// Whether a path of groups ends in, or goes through, a dimension of that name.
fn names(path: &str, name: &str) -> bool {
    path.split('/').any(|step| step.eq_ignore_ascii_case(name))
}

/// All dimensions below a value, with the first candidate's points.
fn gather(path: &str, value: &Value, found: &mut Vec<(String, f64)>) -> Result<(), String> {
    let of = |points: &[Value]| match points {
        [first, second] => first.as_f64().zip(second.as_f64()),
        _ => None,
    };
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            gather(&path, value, found)
        }),
        Value::Array(points) => {
            let (first, second) = of(points).ok_or_else(|| format!("\"{path}\" has not two numbers"))?;
            if first < 0.0 || second < 0.0 || (first + second - TOTAL).abs() > SLACK {
                return Err(format!("\"{path}\" has {first} and {second}, which are no shares of {TOTAL}"));
            }
            found.push((path.to_owned(), first));
            Ok(())
        }
        other => Err(format!("\"{path}\" is {other}, expected two numbers")),
    }
}
