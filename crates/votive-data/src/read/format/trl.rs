//! TRL's preference pairs: explicit (`prompt`, `chosen`, `rejected`), implicit (two texts that begin with the same
//! prompt), and both as conversations.
//!
//! Source: TRL 1.16, `docs/source/dataset_formats.md`.

use super::{Format, Meaning, has_sides};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::pairing::{pair_text, score_margin};
use crate::read::row::Row;

pub(in crate::read) const COLUMNS: &str = "a pair has the columns `prompt`, `chosen` and `rejected`, or `chosen` and `rejected` that share their prompt";

pub(super) const FORMAT: Format = Format {
    name: "trl",
    origin: "TRL: preference data, explicit or implicit",
    columns: "[`prompt`], `chosen`, `rejected`: strings or lists of messages; [`tools`, `chat_template_kwargs`]",
    yields: "a pair; without `prompt` it is what both sides begin with, whole words or turns",
    recognizes: has_sides,
    read,
};

/// A pair in the columns of TRL, with the scores of its sides if there are any.
pub(super) fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let margin = score_margin(row)?;
    let prompt = row.has("prompt").then(|| row.text("prompt", COLUMNS)).transpose()?;
    let chosen = row.text("chosen", COLUMNS)?;
    let rejected = row.text("rejected", COLUMNS)?;
    Ok(Meaning::Pair(pair_text(prompt, chosen, rejected, row)?, margin))
}
