//! `dataset_info.json`: where LLaMA-Factory lists its data sets, with the names of their columns and tags.
//!
//! Source: LLaMA-Factory, `data/README.md` and `src/llamafactory/data/parser.py`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::row::MessageTags;
use crate::error::{DataError, Result};

pub(super) const FILE_NAME: &str = "dataset_info.json";

/// The names that LLaMA-Factory has for columns, and the columns that they stand for if nothing else is said.
///
/// A column that is called otherwise in the file is given this name before the row is read.
const COLUMNS: [(&str, &str); 10] = [
    ("prompt", "instruction"),
    ("query", "input"),
    ("response", "output"),
    ("history", "history"),
    ("messages", "conversations"),
    ("system", "system"),
    ("tools", "tools"),
    ("chosen", "chosen"),
    ("rejected", "rejected"),
    ("kto_tag", "kto_tag"),
];
/// Columns that are read only if the entry names them, even where the file has one of that name.
const ONLY_IF_NAMED: [&str; 3] = ["history", "system", "tools"];
/// Keys of an entry that change which rows are meant, and are not supported.
const REFUSED: [&str; 6] =
    ["hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", "num_samples"];
const MEDIA: [&str; 3] = ["images", "videos", "audios"];

/// What a conversation calls its fields and speakers.
pub(super) struct Tags {
    pub(super) fields: MessageTags,
    /// The names of system, user, assistant, tool call and tool.
    pub(super) roles: [String; 5],
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            fields: MessageTags { role: "from".to_owned(), content: "value".to_owned() },
            roles: ["system", "human", "gpt", "function_call", "observation"].map(str::to_owned),
        }
    }
}

/// One entry.
pub(super) struct Entry {
    /// File or folder with the rows.
    pub(super) path: PathBuf,
    /// `alpaca` or `sharegpt`.
    pub(super) formatting: String,
    pub(super) tags: Tags,
    /// The column in the file for each of [`COLUMNS`].
    pub(super) columns: Vec<(String, &'static str)>,
}

/// Reads the entry `name` of a file.
///
/// # Errors
/// If there is no such entry, or it is not a local file of preferences; all names are listed.
pub(super) fn read(file: &Path, name: Option<&str>) -> Result<Entry> {
    let wrong = |message: String| DataError::Settings { file: file.to_owned(), message };
    let text = std::fs::read_to_string(file).map_err(DataError::read(file))?;
    let entries: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| wrong(format!("not a JSON object: {error}")))?;
    let names = || entries.keys().cloned().collect::<Vec<_>>().join(", ");
    let Some(name) = name else {
        return Err(wrong(format!("say which data set is meant, with `name`; known: {}", names())));
    };
    let entry = entries.get(name).and_then(Value::as_object);
    let entry = entry.ok_or_else(|| wrong(format!("no data set `{name}`; known: {}", names())))?;
    parse(file, entry).map_err(|message| wrong(format!("{name}: {message}")))
}

fn parse(file: &Path, entry: &Map<String, Value>) -> Result<Entry, String> {
    let given = |key: &str| entry.get(key).filter(|value| !value.is_null());
    if let Some(key) = REFUSED.iter().find(|key| given(key).is_some()) {
        return Err(format!("`{key}` is not supported; put the rows into a local file and give `file_name`"));
    }
    let path = given("file_name").and_then(Value::as_str).ok_or("`file_name` is missing")?;
    let formatting = given("formatting").map_or(Some("alpaca"), Value::as_str).unwrap_or_default();
    if !["alpaca", "sharegpt"].contains(&formatting) {
        return Err("`formatting` is neither \"alpaca\" nor \"sharegpt\"".to_owned());
    }
    let columns = strings(given("columns"), "columns")?;
    if let Some((key, _)) = columns.iter().find(|(key, _)| MEDIA.contains(&key.as_str())) {
        return Err(format!("the column `{key}` is not supported: only text is read"));
    }
    let named = |key: &str| columns.iter().find(|(name, _)| name == key).map(|(_, column)| column.clone());
    let column = |key: &str| named(key).or_else(|| ONLY_IF_NAMED.contains(&key).then(String::new));
    let is_ranking = given("ranking").and_then(Value::as_bool).unwrap_or(false);
    if !is_ranking && named("kto_tag").is_none() {
        return Err("no preferences: an entry has \"ranking\": true, or a column `kto_tag`".to_owned());
    }
    Ok(Entry {
        path: file.parent().unwrap_or(Path::new("")).join(path),
        formatting: formatting.to_owned(),
        tags: tags(&strings(given("tags"), "tags")?)?,
        columns: COLUMNS.iter().filter_map(|(key, standard)| Some((column(key)?, *standard))).collect(),
    })
}

/// An object whose values are strings, or nothing; null values are left out.
fn strings(value: Option<&Value>, what: &str) -> Result<Vec<(String, String)>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let wrong = || format!("`{what}` is not an object of names");
    let fields = value.as_object().ok_or_else(wrong)?;
    let fields = fields.iter().filter(|(_, value)| !value.is_null());
    fields.map(|(key, value)| Ok((key.clone(), value.as_str().ok_or_else(wrong)?.to_owned()))).collect()
}

fn tags(given: &[(String, String)]) -> Result<Tags, String> {
    let mut tags = Tags::default();
    for (key, value) in given {
        let [system, user, assistant, function, observation] = &mut tags.roles;
        let tag = match key.as_str() {
            "role_tag" => &mut tags.fields.role,
            "content_tag" => &mut tags.fields.content,
            "system_tag" => system,
            "user_tag" => user,
            "assistant_tag" => assistant,
            "function_tag" => function,
            "observation_tag" => observation,
            other => return Err(format!("the tag `{other}` is not known")),
        };
        tag.clone_from(value);
    }
    Ok(tags)
}
