//! Completions in one column, and their scores or ranks in another.

use serde_json::Value;

use super::{Format, Meaning};
use crate::error::{DataError, Result};
use crate::read::dataset_info::Tags;
use crate::read::ranking::Ranking;
use crate::read::row::{Row, Text};
use crate::record::Message;

const COLUMNS: &str = "a row has the columns `prompt`, `responses` or `completions`, and `scores` or `ranks`";
const LISTS: [&str; 2] = ["responses", "completions"];
/// Columns of numbers, and the sign that makes more of it better.
const NUMBERS: [(&str, f64); 4] = [("scores", 1.0), ("ranks", -1.0), ("rankings", -1.0), ("ratings", 1.0)];

pub(super) const FORMAT: Format = Format {
    name: "ranked",
    origin: "lists of completions with numbers",
    columns: "`prompt`: a string or messages; `responses` or `completions`: strings or lists of messages; `scores` or `ratings` (more is better), or `ranks` or `rankings` (less is better)",
    yields: "pairs, as `data.pairs` says; the margin is the difference of the numbers",
    recognizes: |row| {
        LISTS.iter().any(|list| row.peek(list).is_some_and(Value::is_array))
            && NUMBERS.iter().any(|(numbers, _)| row.peek(numbers).is_some_and(Value::is_array))
    },
    read,
};

fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let prompt = row.text("prompt", COLUMNS)?;
    let list = LISTS.into_iter().find(|list| row.has(list)).unwrap_or(LISTS[0]);
    let (numbers, sign) = NUMBERS.into_iter().find(|(name, _)| row.has(name)).unwrap_or(NUMBERS[0]);
    let texts = row.list(list, COLUMNS)?;
    let scores = row.list(numbers, COLUMNS)?;
    if texts.len() != scores.len() {
        let found = format!("{} for {} {list}", scores.len(), texts.len());
        let (place, expected) = (row.place(numbers), "a number for each completion");
        return Err(DataError::WrongField { place, expected, found });
    }
    let mut completions = Vec::with_capacity(texts.len());
    for (idx, (text, number)) in texts.into_iter().zip(&scores).enumerate() {
        let text = row.as_text(&format!("{list}[{idx}]"), text)?;
        let score = score(row, &format!("{numbers}[{idx}]"), Some(number))?;
        completions.push((text, score.map(|score| sign * score)));
    }
    let (prompt, completions) = alike(prompt, completions);
    Ok(Meaning::Ranked(Ranking { prompt, options: row.chat_options()?, completions }))
}

/// Makes messages of strings where the row has both.
fn alike(prompt: Text, completions: Vec<(Text, Option<f64>)>) -> (Text, Vec<(Text, Option<f64>)>) {
    let is_chat = |text: &Text| matches!(text, Text::Chat(_));
    if !is_chat(&prompt) && !completions.iter().any(|(text, _)| is_chat(text)) {
        return (prompt, completions);
    }
    let prompt = match prompt {
        Text::Plain(text) => Text::Chat(vec![Message::new("user", &text)]),
        turns => turns,
    };
    let turns = |text| match text {
        Text::Plain(text) => answer(&text),
        turns => turns,
    };
    (prompt, completions.into_iter().map(|(text, score)| (turns(text), score)).collect())
}

/// A turn of the assistant.
pub(super) fn answer(text: &str) -> Text {
    Text::Chat(vec![Message::new("assistant", text)])
}

/// A finite number, as JSON or as text of one; nothing if it is missing or says that there is none.
pub(in crate::read) fn score(row: &Row, field: &str, value: Option<&Value>) -> Result<Option<f64>> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() || text.trim().eq_ignore_ascii_case("n/a") => {
            return Ok(None);
        }
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(other) => other.as_f64(),
    };
    let found = value.unwrap_or(&Value::Null);
    match number.filter(|number: &f64| number.is_finite()) {
        Some(number) => Ok(Some(number)),
        None => Err(row.wrong(field, "a finite number", found)),
    }
}

/// Whether a column is a list of objects, the first of which has a field.
pub(super) fn holds_objects(row: &Row, column: &str, field: &str) -> bool {
    row.peek(column).and_then(|list| list.get(0)).is_some_and(|first| first.get(field).is_some())
}
