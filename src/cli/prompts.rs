//! Prompts from the command line or from a file.

use crate::cli::{Failure, Outcome};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where prompts come from.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Prompts {
    /// A prompt; repeat the option for several.
    #[arg(long = "prompt", value_name = "TEXT")]
    given: Vec<String>,
    /// A file of prompts: one a line, or the column `prompt` of a .jsonl file.
    #[arg(long = "prompts-file", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Prompts {
    /// The prompts, in order.
    ///
    /// # Errors
    /// If the file cannot be read, a row has no prompt, or there is none at all.
    pub(crate) fn read(&self) -> Outcome<Vec<String>> {
        match &self.file {
            None => Ok(self.given.clone()),
            Some(file) => read_file(file),
        }
    }
}

/// The prompts of a file, in order.
pub(crate) fn read_file(file: &Path) -> Outcome<Vec<String>> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::file(file, error))?;
    let is_jsonl = file.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let prompts = lines
        .map(|(idx, line)| if is_jsonl { prompt_of_row(file, idx + 1, line) } else { Ok(line.to_owned()) })
        .collect::<Outcome<Vec<_>>>()?;
    if prompts.is_empty() {
        return Err(Failure::data(format!("{}: there is no prompt in this file", file.display())));
    }
    Ok(prompts)
}

fn prompt_of_row(file: &Path, row: usize, line: &str) -> Outcome<String> {
    let wrong = |what: String| Failure::data(format!("{}: row {row}: {what}", file.display()));
    let value: Value =
        serde_json::from_str(line).map_err(|error| wrong(format!("not a JSON object: {error}")))?;
    match value.get("prompt") {
        Some(Value::String(prompt)) => Ok(prompt.clone()),
        _ => Err(wrong("expected a string in field `prompt`".to_owned())),
    }
}
