//! A ranking that is written: a JSON object with a field `ranking`, or a line `Ranking: 2 > 1 > 3`.
//!
//! Candidates are numbered from 1, as the template shows them. Every candidate must be named once.

use super::words::{fields, lines_after};
use super::{Read, Reading, Reply, options};
use crate::judgment::Finding;
use crate::question::Form;
use crate::speaker::{Sampling, Silence, Speaker, Talk};
use serde::Deserialize;
use serde_json::Value;

pub(super) const READING: Reading = Reading {
    id: "ranking",
    form: Form::Rank,
    summary: "an order of merit that is written after its reasons",
    build: |table| options::<Ranking>(table).map(|reading| Box::new(reading) as _),
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ranking {}

const FIELDS: &[&str] = &["ranking", "order"];

impl Read for Ranking {
    fn read(&self, speaker: &dyn Speaker, talk: &Talk, sampling: &Sampling) -> Result<Reply, Silence> {
        Ok(Reply::of(speaker.say(talk, sampling)?, |words| Ok(Finding::Ranking(ranking(words)?))))
    }
}

/// The order that all rankings of a text give, counted from 0.
pub(super) fn ranking(words: &str) -> Result<Vec<usize>, String> {
    let mut orders = Vec::new();
    for value in fields(words, FIELDS)? {
        let places = value.as_array().and_then(|places| places.iter().map(place_of_value).collect());
        orders.push(places.ok_or_else(|| format!("its ranking is {value}"))?);
    }
    for line in lines_after(words, FIELDS) {
        let places: Option<Vec<usize>> = line.split(['>', ',']).map(place).collect();
        orders.push(places.ok_or_else(|| format!("its ranking is \"{line}\""))?);
    }
    let order = orders.first().cloned().ok_or("it holds no ranking")?;
    match orders.iter().all(|other| *other == order) {
        true => Ok(order),
        false => Err("it holds rankings that differ".to_owned()),
    }
}

fn place_of_value(value: &Value) -> Option<usize> {
    match value {
        Value::Number(number) => {
            number.as_u64().and_then(|number| usize::try_from(number).ok()?.checked_sub(1))
        }
        Value::String(text) => place(text),
        _ => None,
    }
}

fn place(text: &str) -> Option<usize> {
    let digits = text.trim().trim_start_matches(['[', '#']).trim_end_matches([']', '.']);
    digits.parse::<usize>().ok()?.checked_sub(1)
}
