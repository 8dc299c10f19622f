//! A row of a table with typed access to its columns; every failure names file, row and field.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{DataError, Place, Result};
use crate::record::{ChatOptions, Message};

/// A row whose columns are taken out as they are read, so that what is left was not read by anybody.
pub(super) struct Row {
    pub(super) number: usize,
    file: PathBuf,
    columns: Map<String, Value>,
}

/// A column that holds text: a string, or the turns of a conversation.
pub(super) enum Text {
    Plain(String),
    Chat(Vec<Message>),
}

impl Row {
    pub(super) fn new(file: &Path, number: usize, columns: Map<String, Value>) -> Self {
        Self { number, file: file.to_owned(), columns }
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.get(column).is_some_and(|value| !value.is_null())
    }

    pub(super) fn unread_columns(self) -> impl Iterator<Item = String> {
        self.columns.into_iter().map(|(name, _)| name)
    }

    /// The value of `column`; `expected` describes the columns of a complete row.
    fn take(&mut self, column: &str, expected: &'static str) -> Result<Value> {
        match self.columns.shift_remove(column) {
            None | Some(Value::Null) => Err(DataError::MissingField { place: self.place(column), expected }),
            Some(value) => Ok(value),
        }
    }

    pub(super) fn string(&mut self, column: &str, expected: &'static str) -> Result<String> {
        match self.take(column, expected)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(column, "a string", &other)),
        }
    }

    pub(super) fn boolean(&mut self, column: &str, expected: &'static str) -> Result<bool> {
        match self.take(column, expected)? {
            Value::Bool(value) => Ok(value),
            other => Err(self.wrong(column, "true or false", &other)),
        }
    }

    pub(super) fn text(&mut self, column: &str, expected: &'static str) -> Result<Text> {
        match self.take(column, expected)? {
            Value::String(text) => Ok(Text::Plain(text)),
            Value::Array(turns) => Ok(Text::Chat(self.messages(column, turns)?)),
            other => Err(self.wrong(column, "a string or a list of messages", &other)),
        }
    }

    fn messages(&self, column: &str, turns: Vec<Value>) -> Result<Vec<Message>> {
        let message = |(idx, turn)| match turn {
            Value::Object(fields) => match fields.get("role") {
                Some(Value::String(_)) => Ok(Message(fields)),
                Some(other) => Err(self.wrong(&format!("{column}[{idx}].role"), "a string", other)),
                None => Err(DataError::MissingField {
                    place: self.place(&format!("{column}[{idx}].role")),
                    expected: "a message is an object with `role` and `content`",
                }),
            },
            other => Err(self.wrong(
                &format!("{column}[{idx}]"),
                "a message (an object with `role` and `content`)",
                &other,
            )),
        };
        turns.into_iter().enumerate().map(message).collect()
    }

    /// The columns that a chat template reads besides the messages; `tools` may be a list or JSON text of one.
    pub(super) fn chat_options(&mut self) -> Result<ChatOptions> {
        let tools = match self.columns.shift_remove("tools") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(
                serde_json::from_str(&text)
                    .map_err(|_| self.wrong("tools", "a list of JSON schemas", &Value::String(text)))?,
            ),
            Some(list @ Value::Array(_)) => Some(list),
            Some(other) => return Err(self.wrong("tools", "a list of JSON schemas", &other)),
        };
        let variables = match self.columns.shift_remove("chat_template_kwargs") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(variables)) => variables,
            Some(other) => return Err(self.wrong("chat_template_kwargs", "an object", &other)),
        };
        Ok(ChatOptions { tools, variables })
    }

    pub(super) fn wrong(&self, field: &str, expected: &'static str, found: &Value) -> DataError {
        DataError::WrongField { place: self.place(field), expected, found: describe(found) }
    }

    pub(super) fn place(&self, field: &str) -> Place {
        Place::new(&self.file, self.number, field)
    }
}

/// The kind of a value, with the value itself where it is short.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => format!("the number {value}"),
        Value::String(text) if text.chars().count() <= 32 => format!("the string {text:?}"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
