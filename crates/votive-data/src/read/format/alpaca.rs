//! LLaMA-Factory's alpaca layout: an instruction with an input, earlier rounds, and two answers or one with a tag.
//!
//! Source: LLaMA-Factory, `data/README.md` and `src/llamafactory/data/converter.py` (`AlpacaDatasetConverter`).

use serde_json::Value;

use super::{Format, Meaning, has_sides};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::pairing::{answers, score_margin};
use crate::read::row::Row;
use crate::record::{Completion, Message};

const COLUMNS: &str =
    "a row has the columns `instruction`, and `chosen` and `rejected`, or `output` and `kto_tag`";

pub(super) const FORMAT: Format = Format {
    name: "alpaca",
    origin: "LLaMA-Factory: alpaca",
    columns: "`instruction`, [`input`, `system`, `history`, `tools`], and `chosen`, `rejected`: strings; or `output` and `kto_tag`",
    yields: "a pair of conversations, or a completion with a label",
    recognizes: |row| row.has("instruction") && (has_sides(row) || row.has("output") && row.has("kto_tag")),
    read,
};

fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let margin = score_margin(row)?;
    let prompt = prompt(row)?;
    if !row.has("kto_tag") {
        let (chosen, rejected) = (row.string("chosen", COLUMNS)?, row.string("rejected", COLUMNS)?);
        return Ok(Meaning::Pair(answers(prompt, &chosen, &rejected, row.chat_options()?), margin));
    }
    let completion = vec![Message::new("assistant", &row.string("output", COLUMNS)?)];
    let label = row.boolean("kto_tag", COLUMNS)?;
    Ok(Meaning::Unpaired(Completion::Chat { prompt, completion, options: row.chat_options()? }, label))
}

/// System, earlier rounds, and instruction and input as one turn of the user.
fn prompt(row: &mut Row) -> Result<Vec<Message>> {
    let mut turns = Vec::new();
    turns.extend(row.optional_string("system")?.map(|text| Message::new("system", &text)));
    if row.has("history") {
        for (idx, round) in row.list("history", COLUMNS)?.iter().enumerate() {
            let texts = round.as_array().map(|texts| texts.iter().map(Value::as_str).collect::<Vec<_>>());
            let Some([Some(user), Some(assistant)]) = texts.as_deref() else {
                return Err(row.wrong(&format!("history[{idx}]"), "a list of question and answer", round));
            };
            turns.extend([Message::new("user", user), Message::new("assistant", assistant)]);
        }
    }
    let parts = [row.optional_string("instruction")?, row.optional_string("input")?];
    let asked: Vec<_> = parts.into_iter().flatten().collect();
    turns.push(Message::new("user", &asked.join("\n")));
    Ok(turns)
}
