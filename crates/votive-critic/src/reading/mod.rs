//! How an answer is got and read: one file a reading, one row in [`READINGS`].

mod behind;
mod critique;
mod follow_up;
mod letter;
mod ranking;
mod rubric;
mod score;
mod verdict;
mod words;
mod yes_no;

use crate::judgment::{Abstention, Cost, Finding};
use crate::question::Form;
use crate::revision::Critique;
use crate::speaker::{Role, Said, Sampling, Silence, Speaker, Talk};
use serde::de::DeserializeOwned;

/// A way to read an answer, as templates name it.
pub struct Reading {
    /// Its name in templates.
    pub id: &'static str,
    /// The form of question that it answers.
    pub form: Form,
    /// What it does, in a sentence.
    pub summary: &'static str,
    pub(crate) build: fn(toml::Table) -> Result<Box<dyn Read>, String>,
}

/// All readings, sorted by name.
pub const READINGS: &[Reading] = &[
    critique::READING,
    follow_up::READING,
    letter::READING,
    ranking::READING,
    rubric::READING,
    score::READING,
    verdict::READING,
    yes_no::READING,
];

/// The name of the reading whose answers are critiques.
pub(crate) const CRITIQUE: &str = critique::READING.id;

pub(crate) fn find(id: &str) -> Option<&'static Reading> {
    READINGS.iter().find(|reading| reading.id == id)
}

/// Gets an answer and reads it.
pub(crate) trait Read: Send + Sync {
    /// # Errors
    /// If there is no answer. One that cannot be read is an abstention.
    fn read(&self, speaker: &dyn Speaker, talk: &Talk, sampling: &Sampling) -> Result<Reply, Silence>;

    /// Marks that the reading looks for: they are taken out of what is judged.
    fn marks(&self) -> &[&'static str] {
        &[]
    }

    /// What words say of their candidate, where they are more than a verdict.
    fn critique(&self, _words: &str) -> Option<Result<Critique, String>> {
        None
    }

    /// Whose turn is read.
    fn speaks(&self) -> Role {
        Role::Assistant
    }
}

/// An answer and what was read in it.
pub(crate) struct Reply {
    pub(crate) words: String,
    pub(crate) finding: Finding,
    pub(crate) cost: Cost,
}

impl Reply {
    /// A reply in words, of which an unfinished one is not read: its verdict may still have been to come.
    fn of(said: Said, read: impl FnOnce(&str) -> Result<Finding, String>) -> Self {
        let finding = if said.is_finished {
            read(&said.words)
        } else {
            Err("it was cut off at the limit of tokens".to_owned())
        };
        let finding = finding.unwrap_or_else(|why| Finding::Abstention(Abstention::Malformed(why)));
        Self { words: said.words, finding, cost: said.cost }
    }
}

/// The options of a reading, of which none is unknown.
fn options<T: DeserializeOwned>(table: toml::Table) -> Result<T, String> {
    T::deserialize(table).map_err(|error| format!("options: {error}"))
}
