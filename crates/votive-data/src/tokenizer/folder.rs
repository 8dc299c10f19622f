//! The files of a hub folder beside `tokenizer.json`: settings and chat templates.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{DataError, Result};
use crate::template::{ChatTemplate, UtcTime};

/// A JSON object in a file; empty if there is no such file.
pub(crate) fn read_settings(file: &Path) -> Result<Map<String, Value>> {
    if !file.is_file() {
        return Ok(Map::new());
    }
    let text = fs::read_to_string(file).map_err(DataError::read(file))?;
    serde_json::from_str(&text).map_err(|error| DataError::Settings {
        file: file.to_owned(),
        message: format!("not a JSON object: {error}"),
    })
}

/// A length in tokens. Folders without a limit state 10³⁰ or the largest integer there is, which is none.
pub(crate) fn as_length(value: Option<&Value>) -> Option<usize> {
    const LARGEST: u64 = 1 << 24;
    value?
        .as_u64()
        .filter(|length| (1..LARGEST).contains(length))
        .and_then(|length| usize::try_from(length).ok())
}

/// Token ids under `name`: a number or a list of numbers.
pub(super) fn token_ids(settings: &Map<String, Value>, name: &str) -> Vec<u32> {
    let values = match settings.get(name) {
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
        None => &[],
    };
    values.iter().filter_map(|value| u32::try_from(value.as_u64()?).ok()).collect()
}

/// Chat templates by name; a folder with a single one calls it `default`.
#[derive(Debug, Default)]
pub(super) struct Templates(BTreeMap<String, ChatTemplate>);

impl Templates {
    /// Template files win over the field `chat_template` of the settings, which holds one template or a list.
    pub(super) fn read(folder: &Path, settings: &Map<String, Value>) -> Result<Self> {
        let mut sources = file_sources(folder)?;
        if sources.is_empty() {
            // Where processors of transformers 4 keep it.
            let file = folder.join("chat_template.json");
            sources = field_sources(&file, &read_settings(&file)?)?;
        }
        if sources.is_empty() {
            sources = field_sources(&folder.join("tokenizer_config.json"), settings)?;
        }
        let compile = |(name, (source, origin)): (String, (String, PathBuf))| {
            Ok((name, ChatTemplate::compile(&source, &origin)?))
        };
        sources.into_iter().map(compile).collect::<Result<_>>().map(Self)
    }

    /// The template for a conversation: `tool_use` if there are tools and such a template, else `default`.
    pub(super) fn select(&self, with_tools: bool) -> Option<&ChatTemplate> {
        let tool_use = self.0.get("tool_use").filter(|_| with_tools);
        tool_use.or_else(|| self.0.get("default"))
    }

    pub(super) fn with_time(self, time: UtcTime) -> Self {
        Self(self.0.into_iter().map(|(name, template)| (name, template.with_time(time))).collect())
    }
}

/// Template sources by name, with the file each stands in.
type Sources = BTreeMap<String, (String, PathBuf)>;

fn file_sources(folder: &Path) -> Result<Sources> {
    let mut sources = Sources::new();
    let mut add = |name: &str, file: PathBuf| -> Result<()> {
        let source = fs::read_to_string(&file).map_err(DataError::read(&file))?;
        sources.insert(name.to_owned(), (source, file));
        Ok(())
    };
    let default = folder.join("chat_template.jinja");
    if default.is_file() {
        add("default", default)?;
    }
    let more = folder.join("additional_chat_templates");
    if more.is_dir() {
        for entry in fs::read_dir(&more).map_err(DataError::read(&more))? {
            let file = entry.map_err(DataError::read(&more))?.path();
            let is_template = file.extension().is_some_and(|extension| extension == "jinja");
            let name = file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
            if let (true, Some(name)) = (is_template, name) {
                add(&name, file)?;
            }
        }
    }
    Ok(sources)
}

fn field_sources(file: &Path, settings: &Map<String, Value>) -> Result<Sources> {
    let named = |entry: &Value| {
        let name = entry.get("name")?.as_str()?.to_owned();
        Some((name, (entry.get("template")?.as_str()?.to_owned(), file.to_owned())))
    };
    match settings.get("chat_template") {
        None | Some(Value::Null) => Ok(Sources::new()),
        Some(Value::String(source)) => {
            Ok(Sources::from([("default".to_owned(), (source.clone(), file.to_owned()))]))
        }
        Some(Value::Array(entries)) => entries.iter().map(named).collect::<Option<_>>().ok_or_else(|| {
            let message = "chat_template: a list holds objects with `name` and `template`".to_owned();
            DataError::Settings { file: file.to_owned(), message }
        }),
        Some(_) => Err(DataError::Settings {
            file: file.to_owned(),
            message: "chat_template: expected a string or a list of named templates".to_owned(),
        }),
    }
}
