//! Text records: preference pairs and unpaired examples, in the column layouts that TRL documents.
//!
//! - explicit: `prompt`, `chosen`, `rejected`, each a string or a list of messages;
//! - implicit: `chosen` and `rejected` that begin with the same prompt;
//! - a string `prompt` beside conversations that repeat it as their first turns (UltraFeedback's layout);
//! - unpaired: `prompt`, `completion`, `label`.

use std::path::Path;

use serde_json::Value;

use super::row::{Row, Text};
use super::{Records, interpret, read_rows};
use crate::error::Result;
use crate::record::{Completion, Message, PairText, PreferencePair, UnpairedExample};

const WHAT: &str = "preference data";
const PAIR_COLUMNS: &str = "a pair has the columns `prompt`, `chosen` and `rejected`, or `chosen` and `rejected` that share their prompt";
const UNPAIRED_COLUMNS: &str =
    "an unpaired example has the columns `prompt`, `completion` and `label` (true or false)";

/// Text records of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum TextRecords {
    /// Two completions a row.
    Pairs(Records<PreferencePair>),
    /// One completion a row, with a label.
    Unpaired(Records<UnpairedExample>),
}

/// Reads text records of the kind that the first row has: with the column `completion` they are unpaired.
///
/// # Errors
/// As [`read_pairs`] and [`read_unpaired`].
pub fn read_text(file: &Path) -> Result<TextRecords> {
    let rows = read_rows(file, WHAT)?;
    if rows.first().is_some_and(|row| row.has("completion")) {
        interpret(file, rows, unpaired).map(TextRecords::Unpaired)
    } else {
        interpret(file, rows, pair).map(TextRecords::Pairs)
    }
}

/// Reads preference pairs.
///
/// # Errors
/// If the file cannot be read or is of an unknown kind; if a row is not a JSON object, lacks a column or holds the
/// wrong kind of value.
pub fn read_pairs(file: &Path) -> Result<Records<PreferencePair>> {
    interpret(file, read_rows(file, WHAT)?, pair)
}

/// Reads completions with a label.
///
/// # Errors
/// As [`read_pairs`].
pub fn read_unpaired(file: &Path) -> Result<Records<UnpairedExample>> {
    interpret(file, read_rows(file, WHAT)?, unpaired)
}

fn pair(row: &mut Row) -> Result<PreferencePair> {
    let prompt = row.has("prompt").then(|| row.text("prompt", PAIR_COLUMNS)).transpose()?;
    let chosen = row.text("chosen", PAIR_COLUMNS)?;
    let rejected = row.text("rejected", PAIR_COLUMNS)?;
    let text = match (prompt, chosen, rejected) {
        (Some(Text::Plain(prompt)), Text::Plain(chosen), Text::Plain(rejected)) => {
            PairText::Plain { prompt, chosen, rejected }
        }
        (None, Text::Plain(chosen), Text::Plain(rejected)) => PairText::Implicit { chosen, rejected },
        (prompt, Text::Chat(chosen), Text::Chat(rejected)) => chat_pair(prompt, chosen, rejected, row)?,
        (Some(Text::Chat(_)), Text::Plain(text), _) => return Err(mixed(row, "chosen", text)),
        (_, Text::Chat(_), Text::Plain(text)) => return Err(mixed(row, "rejected", text)),
        (_, Text::Plain(text), Text::Chat(_)) => return Err(mixed(row, "chosen", text)),
    };
    Ok(PreferencePair { row: row.number, text })
}

fn mixed(row: &Row, field: &str, text: String) -> crate::DataError {
    row.wrong(field, "a list of messages, as the other columns of the row hold", &Value::String(text))
}

/// Splits two conversations into the turns before the completion and the turns of the completion.
fn chat_pair(
    prompt: Option<Text>,
    mut chosen: Vec<Message>,
    mut rejected: Vec<Message>,
    row: &mut Row,
) -> Result<PairText> {
    let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    let repeated = match &prompt {
        None => shared,
        Some(Text::Plain(prompt)) => repeated_prompt(prompt, &chosen[..shared]),
        // TRL would render the prompt twice here; no data set means that.
        Some(Text::Chat(prompt)) if chosen[..shared].starts_with(prompt) => prompt.len(),
        Some(Text::Chat(_)) => 0,
    };
    rejected.drain(..repeated);
    let leading: Vec<_> = chosen.drain(..repeated).collect();
    let prompt = match prompt {
        Some(Text::Plain(text)) if repeated == 0 => vec![Message::new("user", &text)],
        Some(Text::Chat(turns)) => turns,
        _ => leading,
    };
    Ok(PairText::Chat { prompt, chosen, rejected, options: row.chat_options()? })
}

/// The number of leading turns up to the one that says `prompt`; 0 if none does.
fn repeated_prompt(prompt: &str, shared: &[Message]) -> usize {
    shared.iter().rposition(|turn| turn.content() == Some(prompt)).map_or(0, |idx| idx + 1)
}

fn unpaired(row: &mut Row) -> Result<UnpairedExample> {
    let prompt = row.text("prompt", UNPAIRED_COLUMNS)?;
    let completion = row.text("completion", UNPAIRED_COLUMNS)?;
    let label = row.boolean("label", UNPAIRED_COLUMNS)?;
    let text = match (prompt, completion) {
        (Text::Plain(prompt), Text::Plain(completion)) => Completion::Plain { prompt, completion },
        (Text::Chat(prompt), Text::Chat(completion)) => {
            Completion::Chat { prompt, completion, options: row.chat_options()? }
        }
        (Text::Plain(prompt), Text::Chat(completion)) => {
            let prompt = vec![Message::new("user", &prompt)];
            Completion::Chat { prompt, completion, options: row.chat_options()? }
        }
        (Text::Chat(_), Text::Plain(text)) => return Err(mixed(row, "completion", text)),
    };
    Ok(UnpairedExample { row: row.number, text, label })
}
