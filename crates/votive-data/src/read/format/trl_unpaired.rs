//! TRL's unpaired preferences: a completion and whether it is desirable, for KTO.
//!
//! Source: TRL 1.16, `docs/source/dataset_formats.md`.

use super::{Format, Meaning};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::pairing::completion_text;
use crate::read::row::Row;

pub(in crate::read) const COLUMNS: &str =
    "an unpaired example has the columns `prompt`, `completion` and `label` (true or false)";

pub(super) const FORMAT: Format = Format {
    name: "trl-unpaired",
    origin: "TRL: unpaired preferences, such as KTO-mix",
    columns: "`prompt`, `completion`: strings or lists of messages; `label`; [`tools`, `chat_template_kwargs`]",
    yields: "a completion with a label",
    recognizes: |row| row.has("completion") && row.has("label"),
    read,
};

fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let prompt = row.text("prompt", COLUMNS)?;
    let completion = row.text("completion", COLUMNS)?;
    let label = row.boolean("label", COLUMNS)?;
    Ok(Meaning::Unpaired(completion_text(prompt, completion, row)?, label))
}
