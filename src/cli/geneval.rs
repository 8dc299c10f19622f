//! GenEval's layout: its prompts with what each asks for, and images where its scorer looks for them.
//!
//! Source: Ghosh et al., "GenEval", arXiv:2310.11513. Checked against: `generation/diffusers_generate.py` and
//! `evaluation/evaluate_images.py` of djghosh13/geneval. Departure: its script draws all prompts from one seed.

use crate::cli::{Failure, Outcome};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use votive_model::files;

/// Images of each prompt in the benchmark.
pub(crate) const IMAGES_PER_PROMPT: usize = 4;

/// A prompt with what its image is to show.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) prompt: String,
    /// The row as it stands in the file.
    line: String,
}

/// Reads the rows of a metadata file, a JSON object a line.
///
/// # Errors
/// If the file cannot be read or has no row, or a row lacks what the scorer reads of every row.
pub(crate) fn read(file: &Path) -> Outcome<Vec<Row>> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::file(file, error))?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let rows = lines.map(|(row, line)| row_of(file, row, line)).collect::<Outcome<Vec<_>>>()?;
    if rows.is_empty() {
        return Err(Failure::data(format!("{}: there is no prompt in this file", file.display())));
    }
    Ok(rows)
}

fn row_of(file: &Path, row: usize, line: &str) -> Outcome<Row> {
    let wrong = |what: String| Failure::data(format!("{}: row {row}: {what}", file.display()));
    let fields: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| wrong(format!("not a JSON object: {error}")))?;
    let text = |field: &str| {
        let found = fields.get(field).and_then(Value::as_str).map(str::to_owned);
        found.ok_or_else(|| {
            wrong(format!("expected a string in field `{field}`, which GenEval's scorer reads"))
        })
    };
    text("tag")?;
    Ok(Row { prompt: text("prompt")?, line: line.trim().to_owned() })
}

fn folder(out: &Path, prompt: usize) -> PathBuf {
    out.join(format!("{prompt:05}"))
}

/// Where an image of a prompt lies, both counted from 0.
pub(crate) fn image_file(out: &Path, prompt: usize, image: usize) -> PathBuf {
    folder(out, prompt).join("samples").join(format!("{image:05}.png"))
}

/// Writes what the images of a prompt are to show beside them.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write_metadata(out: &Path, prompt: usize, row: &Row) -> Outcome {
    Ok(files::write_bytes(&folder(out, prompt).join("metadata.jsonl"), row.line.as_bytes())?)
}
