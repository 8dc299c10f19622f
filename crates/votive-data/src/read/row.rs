//! A row of a table with typed access to its columns; every failure names file, row and field.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{DataError, Place, Result};
use crate::record::{ChatOptions, EmbeddedImage, ImageSource, Message};

/// Where a row stands.
#[derive(Clone, Copy)]
pub(super) struct Position<'a> {
    /// The file.
    pub(super) file: &'a Path,
    /// Number in the file, counted from 1.
    pub(super) in_file: usize,
    /// Rows of the files before it.
    pub(super) before: usize,
}

/// A row whose columns are taken out as they are read, so that what is left was not read by anybody.
pub(super) struct Row {
    /// Number in the data set, counted from 1 through all of its files.
    pub(super) number: usize,
    in_file: usize,
    file: PathBuf,
    columns: Map<String, Value>,
    binary: BTreeSet<String>,
    embedded: BTreeMap<String, EmbeddedImage>,
}

/// A column that holds text: a string, or the turns of a conversation.
#[derive(Clone)]
pub(super) enum Text {
    Plain(String),
    Chat(Vec<Message>),
}

/// What messages call their fields.
pub(super) struct MessageTags {
    pub(super) role: String,
    pub(super) content: String,
}

impl Default for MessageTags {
    fn default() -> Self {
        Self { role: "role".to_owned(), content: "content".to_owned() }
    }
}

impl Row {
    pub(super) fn new(position: Position, columns: Map<String, Value>) -> Self {
        let Position { file, in_file, before } = position;
        let (binary, embedded) = (BTreeSet::new(), BTreeMap::new());
        Self { number: before + in_file, in_file, file: file.to_owned(), columns, binary, embedded }
    }

    /// Names columns whose values are bytes that are no text; in `columns` they are null.
    pub(super) fn with_binary_columns(self, binary: BTreeSet<String>) -> Self {
        Self { binary, ..self }
    }

    /// Names columns whose values are images that were not read; `columns` holds what stands beside the bytes, if
    /// anything.
    pub(super) fn with_embedded_images(self, embedded: BTreeMap<String, EmbeddedImage>) -> Self {
        Self { embedded, ..self }
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.peek(column).is_some()
    }

    /// The value of a column that is there and not null, which stays unread.
    pub(super) fn peek(&self, column: &str) -> Option<&Value> {
        self.columns.get(column).filter(|value| !value.is_null())
    }

    /// Whether the file has the column, be it null in this row.
    pub(super) fn names_column(&self, column: &str) -> bool {
        self.columns.contains_key(column) || self.holds_image(column)
    }

    /// Whether the bytes of an image stand in the column.
    pub(super) fn holds_image(&self, column: &str) -> bool {
        self.embedded.contains_key(column)
    }

    /// The images whose bytes were not read.
    pub(super) fn embedded_images(&self) -> impl Iterator<Item = &EmbeddedImage> {
        self.embedded.values()
    }

    /// Names of the columns, in their order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let embedded = self.embedded.keys().filter(|name| !self.columns.contains_key(*name));
        self.columns.keys().chain(embedded).map(String::as_str)
    }

    pub(super) fn unread_columns(self) -> impl Iterator<Item = String> {
        self.columns.into_iter().map(|(name, _)| name)
    }

    /// Calls the column `from` by the name `to`, whose own value, if there is one, is set aside as unread.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if from == to {
            return;
        }
        if let Some(other) = self.columns.shift_remove(to) {
            self.columns.insert(format!("{to} (as the file calls it)"), other);
        }
        if let Some(value) = self.columns.shift_remove(from) {
            self.columns.insert(to.to_owned(), value);
        }
    }

    /// The value of `column` if it is there and not null.
    pub(super) fn take_optional(&mut self, column: &str) -> Option<Value> {
        self.columns.shift_remove(column).filter(|value| !value.is_null())
    }

    /// The value of `column`; `expected` describes the columns of a complete row.
    pub(super) fn take(&mut self, column: &str, expected: &'static str) -> Result<Value> {
        if self.binary.contains(column) {
            let found = "bytes that are no text".to_owned();
            return Err(DataError::WrongField { place: self.place(column), expected: "text", found });
        }
        self.take_optional(column)
            .ok_or_else(|| DataError::MissingField { place: self.place(column), expected })
    }

    pub(super) fn string(&mut self, column: &str, expected: &'static str) -> Result<String> {
        match self.take(column, expected)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(column, "a string", &other)),
        }
    }

    /// A string that may be missing; an empty one counts as missing.
    pub(super) fn optional_string(&mut self, column: &str) -> Result<Option<String>> {
        match self.take_optional(column) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(other) => Err(self.wrong(column, "a string", &other)),
        }
    }

    pub(super) fn boolean(&mut self, column: &str, expected: &'static str) -> Result<bool> {
        match self.take(column, expected)? {
            Value::Bool(value) => Ok(value),
            other => Err(self.wrong(column, "true or false", &other)),
        }
    }

    pub(super) fn optional_boolean(&mut self, column: &str) -> Result<Option<bool>> {
        match self.take_optional(column) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(column, "true or false", &other)),
        }
    }

    /// A finite number that may be missing.
    pub(super) fn optional_number(&mut self, column: &str) -> Result<Option<f64>> {
        self.optional(column, "a finite number", |number| number.is_finite())
    }

    /// What a loss is multiplied by.
    pub(super) fn optional_weight(&mut self, column: &str) -> Result<Option<f64>> {
        self.optional(column, "a finite number of at least 0", |number| number.is_finite() && number >= 0.0)
    }

    fn optional(
        &mut self,
        column: &str,
        expected: &'static str,
        is_right: fn(f64) -> bool,
    ) -> Result<Option<f64>> {
        let Some(value) = self.take_optional(column) else { return Ok(None) };
        match value.as_f64().filter(|number| is_right(*number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(column, expected, &value)),
        }
    }

    /// The image of a column: bytes in the file, a path below `folder`, or an object that has either.
    pub(super) fn image(
        &mut self,
        column: &str,
        folder: &Path,
        expected: &'static str,
    ) -> Result<ImageSource> {
        if let Some(mut embedded) = self.embedded.remove(column) {
            let beside = self.take_optional(column);
            let path = beside.as_ref().and_then(|value| value.get("path")).and_then(Value::as_str);
            embedded.or_file = path.filter(|path| !path.is_empty()).map(|path| folder.join(path));
            return Ok(ImageSource::Embedded(embedded));
        }
        let value = self.take(column, expected)?;
        self.as_image(column, folder, &value)
    }

    /// A value as the path of an image below `folder`; `field` is where it stood.
    pub(super) fn as_image(&self, field: &str, folder: &Path, value: &Value) -> Result<ImageSource> {
        let path = match value {
            Value::Object(fields) => fields.get("path").and_then(Value::as_str),
            other => other.as_str(),
        };
        match path.filter(|path| !path.is_empty()) {
            Some(path) => Ok(ImageSource::File(folder.join(path))),
            None => Err(self.wrong(field, "the path of an image", value)),
        }
    }

    /// The images that the text of the row shows: a list in the column `images`, or one in `image`. Paths are relative to the
    /// file.
    pub(super) fn shown_images(&mut self) -> Result<Vec<ImageSource>> {
        const EXPECTED: &str = "images are a list of paths or of `{bytes, path}`";
        let folder = self.file.parent().unwrap_or(Path::new("")).to_owned();
        if self.has("image") || (self.holds_image("image") && !self.columns.contains_key("image")) {
            return Ok(vec![self.image("image", &folder, EXPECTED)?]);
        }
        let embedded = self.embedded.remove("images");
        let Some(value) = self.take_optional("images") else { return Ok(Vec::new()) };
        let Value::Array(items) = value else {
            return Err(self.wrong("images", "a list of images", &value));
        };
        let image = |(index, item): (usize, &Value)| match &embedded {
            Some(embedded) => {
                let path = item.get("path").and_then(Value::as_str).filter(|path| !path.is_empty());
                let or_file = path.map(|path| folder.join(path));
                Ok(ImageSource::Embedded(EmbeddedImage { index, or_file, ..embedded.clone() }))
            }
            None => self.as_image(&format!("images[{index}]"), &folder, item),
        };
        items.iter().enumerate().map(image).collect()
    }

    pub(super) fn list(&mut self, column: &str, expected: &'static str) -> Result<Vec<Value>> {
        match self.take(column, expected)? {
            Value::Array(items) => Ok(items),
            other => Err(self.wrong(column, "a list", &other)),
        }
    }

    pub(super) fn text(&mut self, column: &str, expected: &'static str) -> Result<Text> {
        let value = self.take(column, expected)?;
        self.as_text(column, value)
    }

    /// A value as text; `field` is where it stood.
    pub(super) fn as_text(&self, field: &str, value: Value) -> Result<Text> {
        match value {
            Value::String(text) => Ok(Text::Plain(text)),
            Value::Array(turns) => Ok(Text::Chat(self.messages(field, turns, &MessageTags::default())?)),
            other => Err(self.wrong(field, "a string or a list of messages", &other)),
        }
    }

    /// Turns of a conversation, in which `tags` name the role and the content.
    pub(super) fn messages(
        &self,
        field: &str,
        turns: Vec<Value>,
        tags: &MessageTags,
    ) -> Result<Vec<Message>> {
        let turns = turns.into_iter().enumerate();
        turns.map(|(idx, turn)| self.message(&format!("{field}[{idx}]"), turn, tags)).collect()
    }

    /// One turn of a conversation; fields that are null are absent.
    pub(super) fn message(&self, field: &str, turn: Value, tags: &MessageTags) -> Result<Message> {
        let Value::Object(fields) = turn else {
            return Err(self.wrong(field, "a message (an object with `role` and `content`)", &turn));
        };
        match fields.get(&tags.role) {
            Some(Value::String(_)) => {}
            Some(other) => return Err(self.wrong(&format!("{field}.{}", tags.role), "a string", other)),
            None => {
                let place = self.place(&format!("{field}.{}", tags.role));
                let expected = "a message is an object with `role` and `content`";
                return Err(DataError::MissingField { place, expected });
            }
        }
        let standard = |name: String| match name {
            _ if name == tags.role => "role".to_owned(),
            _ if name == tags.content => "content".to_owned(),
            _ => name,
        };
        let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
        Ok(Message(fields.map(|(name, value)| (standard(name), value)).collect()))
    }

    /// The columns that a chat template reads besides the messages; `tools` may be a list or JSON text of one.
    pub(super) fn chat_options(&mut self) -> Result<ChatOptions> {
        let tools = match self.take_optional("tools") {
            None => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => Some(
                serde_json::from_str(&text)
                    .map_err(|_| self.wrong("tools", "a list of JSON schemas", &Value::String(text)))?,
            ),
            Some(list @ Value::Array(_)) => Some(list),
            Some(other) => return Err(self.wrong("tools", "a list of JSON schemas", &other)),
        };
        let variables = match self.take_optional("chat_template_kwargs") {
            None => Map::new(),
            Some(Value::Object(variables)) => variables,
            Some(other) => return Err(self.wrong("chat_template_kwargs", "an object", &other)),
        };
        Ok(ChatOptions { tools, variables })
    }

    /// The columns are of no layout; the known ones are `known`.
    pub(super) fn of_no_layout(&self, known: impl Iterator<Item = &'static str>) -> DataError {
        let columns = self.names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        DataError::UnknownColumns {
            file: self.file.clone(),
            row: self.in_file,
            columns: if columns.is_empty() { "none".to_owned() } else { columns },
            known: known.collect::<Vec<_>>().join(", "),
        }
    }

    pub(super) fn wrong(&self, field: &str, expected: &'static str, found: &Value) -> DataError {
        DataError::WrongField { place: self.place(field), expected, found: describe(found) }
    }

    pub(super) fn place(&self, field: &str) -> Place {
        Place::new(&self.file, self.in_file, field)
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
