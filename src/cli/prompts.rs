//! Prompts from the command line or from a file.

use crate::cli::{Failure, Outcome};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use votive_data::{ChatOptions, Message, TextTokenizer};

/// Where prompts come from.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Prompts {
    /// A prompt; repeat the option for several.
    #[arg(long = "prompt", value_name = "TEXT")]
    given: Vec<String>,
    /// A file of prompts: one a line, or the column `prompt` of a .jsonl file.
    #[arg(long = "prompts", alias = "prompts-file", value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What a row of a file holds, by columns.
pub(crate) type Fields = Map<String, Value>;

/// What a completion follows.
#[derive(Clone, Debug)]
pub(crate) enum Prompt {
    /// A text.
    Text(String),
    /// The turns of a conversation, and what its row gives the chat template besides.
    Conversation(Vec<Message>, ChatOptions),
}

impl Prompts {
    /// The prompts, in order, each a text.
    ///
    /// # Errors
    /// If the file cannot be read, a row has no prompt or a conversation for one, or there is none at all.
    pub(crate) fn read(&self) -> Outcome<Vec<String>> {
        match &self.file {
            None => Ok(self.given.clone()),
            Some(file) => read_file(file),
        }
    }

    /// The prompts, in order; rows may be conversations.
    ///
    /// # Errors
    /// If the file cannot be read, a row has no prompt, or there is none at all.
    pub(crate) fn read_any(&self) -> Outcome<Vec<Prompt>> {
        match &self.file {
            None => Ok(self.given.iter().cloned().map(Prompt::Text).collect()),
            Some(file) => Ok(read_rows(file)?.into_iter().map(|row| row.prompt).collect()),
        }
    }
}

impl Prompt {
    /// Its tokens: as it stands, or as turns of the model's chat template, a text then being a user's turn; `vectors` are as
    /// many as each of the images has that it shows.
    ///
    /// # Errors
    /// If the template refuses it, it is a conversation and no template is to be used, or it has not as many places for images.
    pub(crate) fn encode(
        &self,
        tokenizer: &TextTokenizer,
        is_chat: bool,
        vectors: &[usize],
    ) -> Outcome<Vec<u32>> {
        Ok(match (self, is_chat) {
            (Self::Text(text), false) => tokenizer.encode_showing(text, vectors)?,
            (Self::Text(text), true) => {
                let turn = [Message::new("user", text)];
                tokenizer.encode_chat_showing(&turn, &ChatOptions::default(), vectors)?
            }
            (Self::Conversation(turns, options), true) => {
                tokenizer.encode_chat_showing(turns, options, vectors)?
            }
            (Self::Conversation(..), false) => {
                let error = Failure::usage("a prompt of the file is a conversation");
                return Err(error.hint("add --chat, which renders it with the model's chat template"));
            }
        })
    }

    /// As it stood on the command line or in the file.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Conversation(turns, _) => serde_json::to_value(turns).unwrap_or_default(),
        }
    }

    /// For people: the text, or the last turn's.
    pub(crate) fn last_words(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Conversation(turns, _) => turns.last().and_then(Message::content).unwrap_or_default(),
        }
    }
}

/// The prompts of a file, in order, each a text.
pub(crate) fn read_file(file: &Path) -> Outcome<Vec<String>> {
    Ok(read_texts(file)?.into_iter().map(|(_, text, _)| text).collect())
}

/// The same with the number of each row, and what it holds besides.
pub(crate) fn read_texts(file: &Path) -> Outcome<Vec<(usize, String, Fields)>> {
    let text = |Row { number, prompt, fields }: Row| match prompt {
        Prompt::Text(text) => Ok((number, text, fields)),
        Prompt::Conversation(..) => Err(wrong(file, number, "expected a string in field `prompt`")),
    };
    read_rows(file)?.into_iter().map(text).collect()
}

/// A row of a file.
struct Row {
    /// Counted from 1.
    number: usize,
    prompt: Prompt,
    /// All that it holds; nothing if it is a line of text.
    fields: Fields,
}

/// The rows of a file with their prompts.
fn read_rows(file: &Path) -> Outcome<Vec<Row>> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::file(file, error))?;
    let is_jsonl = file.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let prompts = lines
        .map(|(number, line)| {
            if !is_jsonl {
                return Ok(Row { number, prompt: Prompt::Text(line.to_owned()), fields: Map::new() });
            }
            let fields: Fields = serde_json::from_str(line)
                .map_err(|error| wrong(file, number, &format!("not a JSON object: {error}")))?;
            Ok(Row { number, prompt: prompt_of_row(file, number, &fields)?, fields })
        })
        .collect::<Outcome<Vec<_>>>()?;
    if prompts.is_empty() {
        return Err(Failure::data(format!("{}: there is no prompt in this file", file.display())));
    }
    Ok(prompts)
}

/// A mistake in a row of a file of prompts.
pub(crate) fn wrong(file: &Path, row: usize, what: &str) -> Failure {
    Failure::data(format!("{}: row {row}: {what}", file.display()))
}

fn prompt_of_row(file: &Path, row: usize, fields: &Fields) -> Outcome<Prompt> {
    match fields.get("prompt") {
        Some(Value::String(prompt)) => Ok(Prompt::Text(prompt.clone())),
        Some(turns @ Value::Array(_)) => {
            let turns: Vec<Message> = serde_json::from_value(turns.clone())
                .map_err(|error| wrong(file, row, &format!("field `prompt` is no conversation: {error}")))?;
            if let Some(turn) = turns.iter().position(|turn| turn.role().is_empty()) {
                return Err(wrong(file, row, &format!("turn {} of `prompt` has no role", turn + 1)));
            }
            Ok(Prompt::Conversation(turns, options(file, row, fields)?))
        }
        _ => {
            let columns: Vec<&str> = fields.keys().map(String::as_str).collect();
            let what = format!(
                "expected a string or a list of turns in field `prompt`; the row has the columns {}",
                columns.join(", ")
            );
            Err(wrong(file, row, &what))
        }
    }
}

/// What a row gives the chat template: `tools` and `chat_template_kwargs`, as TRL names them.
fn options(file: &Path, row: usize, fields: &Fields) -> Outcome<ChatOptions> {
    let tools = match fields.get("tools") {
        Some(Value::String(json)) => Some(
            serde_json::from_str(json)
                .map_err(|error| wrong(file, row, &format!("field `tools` is not JSON: {error}")))?,
        ),
        other => other.filter(|tools| !tools.is_null()).cloned(),
    };
    let variables = match fields.get("chat_template_kwargs") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(variables)) => variables.clone(),
        Some(_) => return Err(wrong(file, row, "expected an object in field `chat_template_kwargs`")),
    };
    Ok(ChatOptions { tools, variables })
}
