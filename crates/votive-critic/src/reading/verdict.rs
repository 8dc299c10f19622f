//! A preference by a written verdict, with the reasons beside it.
//!
//! A verdict is one of: a JSON object with a field `better`, `better answer`, `winner`, `verdict`, `preferred`, `preference`
//! or `choice`; a mark `[[A]]`; a line `Verdict: A` (or `Winner:`, `Better:`, `Answer:`); an answer of one word. Where there are
//! several, all must agree. Anything else is malformed, and never a guess.
//!
//! # Source
//! Con-J (JSON with `reason` and `better answer`), MT-Bench (`[[A]]`), GenRM (a verdict after a chain of thought).

use super::words::{fields, label_of, label_of_value, lines_after, marked, mentions};
use super::{Read, Reading, Reply, options};
use crate::judgment::{Finding, Winner};
use crate::question::Form;
use crate::speaker::{Sampling, Silence, Speaker, Talk};
use serde::Deserialize;

pub(super) const READING: Reading = Reading {
    id: "verdict",
    form: Form::Pair,
    summary: "a verdict that is written after its reasons",
    build: |table| options::<Verdict>(table).map(|reading| Box::new(reading) as _),
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verdict {}

const FIELDS: &[&str] =
    &["better", "better answer", "better_answer", "winner", "verdict", "preferred", "preference", "choice"];
const LINES: &[&str] =
    &["verdict", "winner", "better", "answer", "final verdict", "final answer", "better answer"];
/// Lines that count wherever they begin: who writes them in the middle of a sentence may be quoting somebody.
const MENTIONED: &[&str] = &["verdict", "winner"];
const MARKS: &[&str] = &["[[A]]", "[[B]]", "[[C]]", "[[1]]", "[[2]]", "[[tie]]", "[[Tie]]"];

impl Read for Verdict {
    fn read(&self, speaker: &dyn Speaker, talk: &Talk, sampling: &Sampling) -> Result<Reply, Silence> {
        Ok(Reply::of(speaker.say(talk, sampling)?, |words| {
            Ok(Finding::Preference(verdict(words)?.probability()))
        }))
    }

    fn marks(&self) -> &[&'static str] {
        MARKS
    }
}

/// The winner that all verdicts of a text name.
///
/// # Errors
/// What is wrong, in words: none, several that differ, one that names nobody.
pub(super) fn verdict(words: &str) -> Result<Winner, String> {
    let mut winners = Vec::new();
    for value in fields(words, FIELDS)? {
        winners.push(label_of_value(&value).ok_or_else(|| format!("its verdict is {value}"))?);
    }
    for mark in marked(words) {
        winners.push(label_of(mark).ok_or_else(|| format!("its verdict is [[{mark}]]"))?);
    }
    let lines = lines_after(words, LINES).chain(MENTIONED.iter().flat_map(|name| mentions(words, name)));
    for line in lines {
        winners.push(label_of(line).ok_or_else(|| format!("its verdict is \"{line}\""))?);
    }
    if winners.is_empty() {
        winners.extend(label_of(words));
    }
    let winner = *winners.first().ok_or("it holds no verdict")?;
    match winners.iter().all(|other| *other == winner) {
        true => Ok(winner),
        false => Err("it holds verdicts that contradict each other".to_owned()),
    }
}
