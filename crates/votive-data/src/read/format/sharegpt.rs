//! LLaMA-Factory's sharegpt layout: a conversation under tags, and two answers or one with a tag.
//!
//! Source: LLaMA-Factory, `data/README.md` and `src/llamafactory/data/converter.py` (`SharegptDatasetConverter`).

use serde_json::{Map, Value, json};

use super::{Format, Meaning, has_sides};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::pairing::score_margin;
use crate::read::row::Row;
use crate::record::{Completion, Message, PairText};
use crate::report::RowProblem;

const COLUMNS: &str = "a row has the columns `conversations`, and `chosen` and `rejected`, or `kto_tag`";
const ROLE: &str =
    "a speaker that dataset_info.json or the layout knows: system, human, gpt, function_call, observation";
/// The roles of chat templates for the five tags.
const ROLES: [&str; 5] = ["system", "user", "assistant", "assistant", "tool"];
const FUNCTION_CALL: usize = 3;

pub(super) const FORMAT: Format = Format {
    name: "sharegpt",
    origin: "LLaMA-Factory: sharegpt",
    columns: "`conversations`: objects with `from` and `value`; [`system`, `tools`]; and `chosen`, `rejected`: such an object; or `kto_tag`",
    yields: "a pair of conversations, or the last turn with a label",
    recognizes: |row| row.has("conversations") && (has_sides(row) || row.has("kto_tag")),
    read,
};

fn read(row: &mut Row, tags: &Tags) -> Result<Meaning> {
    let margin = score_margin(row)?;
    let mut prompt = Vec::new();
    prompt.extend(row.optional_string("system")?.map(|text| Message::new("system", &text)));
    for (idx, turn) in row.list("conversations", COLUMNS)?.into_iter().enumerate() {
        prompt.push(message(row, &format!("conversations[{idx}]"), turn, tags)?);
    }
    if !row.has("kto_tag") {
        let (chosen, rejected) = (side(row, "chosen", tags)?, side(row, "rejected", tags)?);
        let options = row.chat_options()?;
        return Ok(Meaning::Pair(PairText::Chat { prompt, chosen, rejected, options }, margin));
    }
    let label = row.boolean("kto_tag", COLUMNS)?;
    let options = row.chat_options()?;
    match prompt.pop() {
        Some(last) if last.role() == "assistant" => {
            Ok(Meaning::Unpaired(Completion::Chat { prompt, completion: vec![last], options }, label))
        }
        _ => Ok(Meaning::Nothing(RowProblem::EmptyCompletion, " (the last turn is not the assistant's)")),
    }
}

/// One side: a turn, a list of turns, or the text of one.
fn side(row: &mut Row, column: &str, tags: &Tags) -> Result<Vec<Message>> {
    match row.take(column, COLUMNS)? {
        Value::String(text) => Ok(vec![Message::new("assistant", &text)]),
        Value::Array(turns) => {
            let turns = turns.into_iter().enumerate();
            turns.map(|(idx, turn)| message(row, &format!("{column}[{idx}]"), turn, tags)).collect()
        }
        turn => Ok(vec![message(row, column, turn, tags)?]),
    }
}

/// A turn with the role that chat templates know it by.
fn message(row: &Row, field: &str, turn: Value, tags: &Tags) -> Result<Message> {
    let mut message = row.message(field, turn, &tags.fields)?;
    let Some(tag) = tags.roles.iter().position(|tag| tag == message.role()) else {
        return Err(row.wrong(&format!("{field}.{}", tags.fields.role), ROLE, &message.role().into()));
    };
    message.0.insert("role".to_owned(), ROLES[tag].into());
    if tag == FUNCTION_CALL {
        let calls = calls(row, &format!("{field}.{}", tags.fields.content), &message)?;
        message.0.shift_remove("content");
        message.0.insert("tool_calls".to_owned(), calls);
    }
    Ok(message)
}

/// The calls that a turn writes as JSON, one object or a list, in the shape that chat templates read.
fn calls(row: &Row, field: &str, message: &Message) -> Result<Value> {
    let text = message.content().unwrap_or_default();
    let wrong = || row.wrong(field, "JSON of a call, with `name` and `arguments`", &text.into());
    let calls = match serde_json::from_str(text).map_err(|_| wrong())? {
        Value::Array(calls) => calls,
        call => vec![call],
    };
    let call = |call: &Map<String, Value>| {
        let (name, arguments) = (call.get("name")?.as_str()?, call.get("arguments")?);
        Some(json!({"type": "function", "function": {"name": name, "arguments": arguments}}))
    };
    calls.iter().map(|value| value.as_object().and_then(call).ok_or_else(wrong)).collect()
}
