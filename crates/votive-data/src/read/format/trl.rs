//! TRL's preference pairs: explicit (`prompt`, `chosen`, `rejected`), implicit (two texts that begin with the same
//! prompt), and both as conversations.
//!
//! Source: TRL 1.16, `docs/source/dataset_formats.md`.

use super::{Format, Meaning, has_sides};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::pairing::{pair_text, score_margin};
use crate::read::row::{Row, Text};
use crate::record::{Completion, PairText};
use serde_json::Value;

/// The column of gold completions, as TRL's TPO trainer calls it.
const GOLD: &str = "reference";

pub(in crate::read) const COLUMNS: &str = "a pair has the columns `prompt`, `chosen` and `rejected`, or `chosen` and `rejected` that share their prompt";

pub(super) const FORMAT: Format = Format {
    name: "trl",
    origin: "TRL: preference data, explicit or implicit",
    columns: "[`prompt`], `chosen`, `rejected`, [`reference`]: strings or lists of messages; [`tools`, `chat_template_kwargs`]",
    yields: "a pair; without `prompt` it is what both sides begin with, whole words or turns; `reference` is a third, gold completion",
    recognizes: has_sides,
    read,
};

/// A pair in the columns of TRL, with the scores of its sides if there are any.
pub(super) fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let margin = score_margin(row)?;
    let prompt = row.has("prompt").then(|| row.text("prompt", COLUMNS)).transpose()?;
    let chosen = row.text("chosen", COLUMNS)?;
    let rejected = row.text("rejected", COLUMNS)?;
    if !row.has(GOLD) {
        return Ok(Meaning::Pair(pair_text(prompt, chosen, rejected, row)?, margin));
    }
    let gold = row.text(GOLD, "a gold completion: a string or a list of messages, as `chosen` is")?;
    let text = pair_text(prompt, chosen, rejected, row)?;
    let gold = match (&text, gold) {
        (PairText::Plain { prompt, .. }, Text::Plain(completion)) => {
            Completion::Plain { prompt: prompt.clone(), completion }
        }
        (PairText::Chat { prompt, options, .. }, Text::Chat(mut completion)) => {
            if completion.starts_with(prompt) {
                completion.drain(..prompt.len());
            }
            Completion::Chat { prompt: prompt.clone(), completion, options: options.clone() }
        }
        (_, gold) => {
            let (expected, found) = match (&text, gold) {
                (PairText::Implicit { .. }, _) => {
                    ("a row with a `prompt`, which a gold completion needs", Value::Null)
                }
                (_, Text::Plain(text)) => ("a list of messages, as `chosen` is", Value::String(text)),
                (_, Text::Chat(_)) => ("a string, as `chosen` is", Value::Array(Vec::new())),
            };
            return Err(row.wrong(GOLD, expected, &found));
        }
    };
    Ok(Meaning::Triple(text, margin, gold))
}
