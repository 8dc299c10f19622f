//! Orca-style pairs: a system prompt, a question, two answers.
//!
//! Source: the data set Intel/orca_dpo_pairs on the hub.

use super::{Format, Meaning, has_sides};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::pairing::{answers, question, score_margin};
use crate::read::row::Row;

const COLUMNS: &str = "a row has the columns `question`, `chosen` and `rejected`, and may have `system`";

pub(super) const FORMAT: Format = Format {
    name: "orca",
    origin: "Intel/orca_dpo_pairs",
    columns: "[`system`], `question`, `chosen`, `rejected`: strings",
    yields: "a pair of conversations",
    recognizes: |row| has_sides(row) && row.has("question"),
    read,
};

fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let margin = score_margin(row)?;
    let system = row.optional_string("system")?;
    let user = row.string("question", COLUMNS)?;
    let (chosen, rejected) = (row.string("chosen", COLUMNS)?, row.string("rejected", COLUMNS)?);
    let prompt = question(system.as_deref(), &user);
    Ok(Meaning::Pair(answers(prompt, &chosen, &rejected, row.chat_options()?), margin))
}
