//! Prompt and completions of a row, as they were found, to the text of a record.

use serde_json::Value;

use super::row::{Row, Text};
use crate::error::{DataError, Result};
use crate::record::{ChatOptions, Completion, Message, PairText};

/// Columns that hold the scores of the two sides, chosen first, in the data sets that have them.
const SCORES: [(&str, &str); 5] = [
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("chosen_avg_rating", "rejected_avg_rating"),
];

/// The scores of the two sides, if the row has both; they stay unread.
pub(super) fn scores_of_sides(row: &Row) -> [Option<f64>; 2] {
    let both = SCORES
        .iter()
        .find_map(|(chosen, rejected)| Some([row.peek(chosen)?.as_f64()?, row.peek(rejected)?.as_f64()?]));
    both.map_or([None; 2], |scores| scores.map(Some))
}

/// By how much the chosen completion scores higher, if the row has the scores of both.
pub(super) fn score_margin(row: &mut Row) -> Result<Option<f64>> {
    let found = SCORES.iter().find(|(chosen, rejected)| row.has(chosen) && row.has(rejected));
    let Some((chosen, rejected)) = found else { return Ok(None) };
    Ok(row.optional_number(chosen)?.zip(row.optional_number(rejected)?).map(|(better, worse)| better - worse))
}

/// Two completions of a prompt, which they may repeat; without a prompt they begin with it.
pub(super) fn pair_text(
    prompt: Option<Text>,
    chosen: Text,
    rejected: Text,
    row: &mut Row,
) -> Result<PairText> {
    Ok(match (prompt, chosen, rejected) {
        (Some(Text::Plain(prompt)), Text::Plain(chosen), Text::Plain(rejected)) => {
            PairText::Plain { prompt, chosen, rejected }
        }
        (None, Text::Plain(chosen), Text::Plain(rejected)) => PairText::Implicit { chosen, rejected },
        (prompt, Text::Chat(chosen), Text::Chat(rejected)) => {
            chat_pair(prompt, chosen, rejected, row.chat_options()?)
        }
        (Some(Text::Chat(_)), Text::Plain(text), _) => return Err(mixed(row, "chosen", text)),
        (_, Text::Chat(_), Text::Plain(text)) => return Err(mixed(row, "rejected", text)),
        (_, Text::Plain(text), Text::Chat(_)) => return Err(mixed(row, "chosen", text)),
    })
}

fn mixed(row: &Row, field: &str, text: String) -> DataError {
    row.wrong(field, "a list of messages, as the other columns of the row hold", &Value::String(text))
}

/// Splits two conversations into the turns before the completion and the turns of the completion.
fn chat_pair(
    prompt: Option<Text>,
    mut chosen: Vec<Message>,
    mut rejected: Vec<Message>,
    options: ChatOptions,
) -> PairText {
    let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    let repeated = match &prompt {
        None => shared,
        Some(Text::Plain(prompt)) if says(prompt, &chosen[..shared]) => shared,
        Some(Text::Plain(_)) => 0,
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
    PairText::Chat { prompt, chosen, rejected, options }
}

/// Whether one of the turns says just that.
fn says(text: &str, turns: &[Message]) -> bool {
    turns.iter().any(|turn| turn.content() == Some(text))
}

/// Two answers of the assistant after some turns.
pub(super) fn answers(prompt: Vec<Message>, chosen: &str, rejected: &str, options: ChatOptions) -> PairText {
    let turn = |text| vec![Message::new("assistant", text)];
    PairText::Chat { prompt, chosen: turn(chosen), rejected: turn(rejected), options }
}

/// The turns of a question: the system's, if it says something, and the user's.
pub(super) fn question(system: Option<&str>, user: &str) -> Vec<Message> {
    system.map(|text| Message::new("system", text)).into_iter().chain([Message::new("user", user)]).collect()
}

/// One completion of a prompt.
pub(super) fn completion_text(prompt: Text, completion: Text, row: &mut Row) -> Result<Completion> {
    Ok(match (prompt, completion) {
        (Text::Plain(prompt), Text::Plain(completion)) => Completion::Plain { prompt, completion },
        (Text::Chat(prompt), Text::Chat(completion)) => {
            Completion::Chat { prompt, completion, options: row.chat_options()? }
        }
        (Text::Plain(prompt), Text::Chat(completion)) => {
            let prompt = vec![Message::new("user", &prompt)];
            Completion::Chat { prompt, completion, options: row.chat_options()? }
        }
        (Text::Chat(_), Text::Plain(text)) => return Err(mixed(row, "completion", text)),
    })
}
