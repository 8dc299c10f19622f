//! HH-RLHF: two whole dialogues as text, which are the same up to some turn of the assistant.
//!
//! Source: Bai et al., arXiv:2204.05862; the data set Anthropic/hh-rlhf on the hub.
//!
//! The prompt ends behind the mark of the first turn that differs, never inside a turn.

use super::{Format, Meaning};
use crate::error::Result;
use crate::read::dialogue::{Turn, is_dialogue, turns};
use crate::read::row::{Row, Text};
use crate::record::{ChatOptions, PairText};
use crate::report::RowProblem;

const COLUMNS: &str = "a row has the columns `chosen` and `rejected`, two dialogues as text";
const DIALOGUE: &str = "a dialogue that begins with \"\\n\\nHuman:\"";

pub(super) const FORMAT: Format = Format {
    name: "hh-rlhf",
    origin: "Anthropic/hh-rlhf",
    columns: "`chosen`, `rejected`: strings of turns that begin with \"\\n\\nHuman:\" and \"\\n\\nAssistant:\"",
    yields: "a pair of strings; the prompt ends with the mark of the first turn that differs",
    recognizes: |row| {
        !row.has("prompt") && ["chosen", "rejected"].iter().all(|side| holds_dialogue(row, side))
    },
    read: |row, _| read(row, as_text),
};

pub(super) const AS_CHAT: Format = Format {
    name: "hh-rlhf-chat",
    origin: "Anthropic/hh-rlhf, for models with a chat template; only by name",
    columns: "as `hh-rlhf`",
    yields: "a pair of conversations",
    recognizes: |_| false,
    read: |row, _| read(row, as_chat),
};

fn holds_dialogue(row: &Row, column: &str) -> bool {
    row.peek(column).and_then(serde_json::Value::as_str).is_some_and(is_dialogue)
}

/// Turns that both dialogues begin with, then the turns of each.
type Parts<'a> = (&'a [Turn<'a>], &'a [Turn<'a>], &'a [Turn<'a>]);

fn read(row: &mut Row, pair: fn(Parts) -> PairText) -> Result<Meaning> {
    let chosen = row.string("chosen", COLUMNS)?;
    let rejected = row.string("rejected", COLUMNS)?;
    let (chosen, rejected) = (parsed(row, "chosen", &chosen)?, parsed(row, "rejected", &rejected)?);
    let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a.text == b.text).count();
    let answers = |turns: &[Turn]| turns.get(shared).is_some_and(|turn| turn.role == "assistant");
    if shared == chosen.len() && shared == rejected.len() {
        return Ok(Meaning::Nothing(RowProblem::ChosenEqualsRejected, ""));
    }
    if shared == 0 || !answers(&chosen) || !answers(&rejected) {
        let detail = " (the dialogues do not part in a turn of the assistant)";
        return Ok(Meaning::Nothing(RowProblem::NoSharedPrompt, detail));
    }
    Ok(Meaning::Pair(pair((&chosen[..shared], &chosen[shared..], &rejected[shared..])), None))
}

fn parsed<'a>(row: &Row, column: &str, text: &'a str) -> Result<Vec<Turn<'a>>> {
    turns(text).ok_or_else(|| row.wrong(column, DIALOGUE, &text.into()))
}

fn as_text((prompt, chosen, rejected): Parts) -> PairText {
    let text = |turns: &[Turn]| turns.iter().map(|turn| turn.text).collect::<String>();
    let mark = &chosen[0].text[..chosen[0].mark];
    let answer = |turns: &[Turn]| text(turns)[turns[0].mark..].to_owned();
    PairText::Plain { prompt: text(prompt) + mark, chosen: answer(chosen), rejected: answer(rejected) }
}

fn as_chat((prompt, chosen, rejected): Parts) -> PairText {
    let messages = |turns: &[Turn]| turns.iter().map(Turn::message).collect();
    PairText::Chat {
        prompt: messages(prompt),
        chosen: messages(chosen),
        rejected: messages(rejected),
        options: ChatOptions::default(),
    }
}

/// A prompt that may be a dialogue: its turns, without an empty one of the assistant at the end; else one of the user.
pub(super) fn prompt_of(text: &str) -> Text {
    let messages = match turns(text) {
        Some(turns) => {
            let opens_answer = |turn: &Turn| turn.role == "assistant" && turn.said().trim().is_empty();
            let kept = turns.len() - usize::from(turns.last().is_some_and(opens_answer));
            turns[..kept].iter().map(Turn::message).collect()
        }
        None => vec![crate::record::Message::new("user", text)],
    };
    Text::Chat(messages)
}
