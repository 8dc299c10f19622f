//! Answers that are known to be right: read with the prompts, kept with the items, and shown by templates that ask for them.

use crate::cli::judges::Chosen;
use crate::cli::prompts::{Fields, read_texts, wrong};
use crate::cli::{Failure, Outcome};
use serde_json::{Value, json};
use std::path::Path;
use votive_critic::{Candidate, Picture, Question, Store};

/// Most rows or items that a message names.
const NAMED: usize = 5;
/// Columns of a reference: a text, or the path of an image below the file's folder.
const TEXT: &str = "reference";
const IMAGE: &str = "reference_image";

/// A prompt, and an answer to it that is known to be right.
pub(super) struct Referenced {
    pub(super) prompt: String,
    /// Its row in the file, from 1.
    row: usize,
    reference: Option<Candidate>,
}

impl Referenced {
    /// A question with the reference beside it.
    pub(super) fn beside_reference(&self, question: Question) -> Question {
        match &self.reference {
            Some(reference) => question.with_reference(reference.clone()),
            None => question,
        }
    }

    /// How candidates of this prompt are drawn: with another reference they are others to the store, of which nothing is changed.
    pub(super) fn drawn_so(&self, drawn: &Value) -> Value {
        let mut drawn = drawn.clone();
        if let Some(reference) = &self.reference {
            drawn["reference"] = json!(reference.sha256());
        }
        drawn
    }
}

/// The prompts of a file; rows of a .jsonl may have a `reference` or a `reference_image`.
///
/// # Errors
/// As [`read_texts`]; if a reference is no text, an image cannot be read, or a row has both.
pub(super) fn read(file: &Path) -> Outcome<Vec<Referenced>> {
    let rows = read_texts(file)?.into_iter();
    rows.map(|(row, prompt, fields)| {
        Ok(Referenced { prompt, row, reference: reference(file, row, &fields)? })
    })
    .collect()
}

fn reference(file: &Path, row: usize, fields: &Fields) -> Outcome<Option<Candidate>> {
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(file, row, &format!("expected a string in field `{name}`, found {other}"))),
    };
    match (text(TEXT)?, text(IMAGE)?) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(Candidate::Text(text.clone()))),
        (None, Some(path)) => {
            let path = file.parent().unwrap_or(Path::new("")).join(path);
            let bytes = std::fs::read(&path)
                .map_err(|error| wrong(file, row, &format!("`{IMAGE}`: {}: {error}", path.display())))?;
            Ok(Some(Candidate::Image(Picture::new(bytes, &path.display().to_string())?)))
        }
        (Some(_), Some(_)) => Err(wrong(file, row, &format!("`{TEXT}` and `{IMAGE}` are both given"))),
    }
}

/// Refuses prompts without a reference for a judge who is shown one.
///
/// # Errors
/// If there are any: how many, and in which rows the first are.
pub(super) fn require_in_file(chosen: &Chosen, file: &Path, prompts: &[Referenced]) -> Outcome {
    let Some(template) = chosen.template_with_reference() else { return Ok(()) };
    let rows: Vec<String> =
        prompts.iter().filter(|one| one.reference.is_none()).map(|one| one.row.to_string()).collect();
    let of = format!("{} prompts of {}", prompts.len(), file.display());
    refuse(template, (&rows, "row"), &of)
}

/// Refuses what is in a store without a reference, for a judge who is shown one.
///
/// # Errors
/// If there is any: how many, and which items the first are.
pub(crate) fn require_in_store(chosen: &Chosen, store: &Store) -> Outcome {
    let Some(template) = chosen.template_with_reference() else { return Ok(()) };
    let items: Vec<String> =
        store.pairs_without_reference()?.into_iter().map(|item| item.to_string()).collect();
    let of = format!("{} pairs of {}", store.pair_numbers()?.len(), store.path().display());
    refuse(template, (&items, "item"), &of)
}

fn refuse(template: &str, (without, what): (&[String], &str), of: &str) -> Outcome {
    if without.is_empty() {
        return Ok(());
    }
    let named = without.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let (plural, more) =
        (if without.len() == 1 { "" } else { "s" }, if without.len() > NAMED { " and others" } else { "" });
    let message = format!(
        "the template {template} shows {{reference}}, and {} of {of} have none: {what}{plural} {named}{more}",
        without.len()
    );
    Err(Failure::data(message)
        .hint("write it beside `prompt` in the file of prompts, as `reference` or `reference_image`"))
}
