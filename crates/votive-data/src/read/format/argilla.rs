//! Argilla's pairs: an instruction and two responses, with the mean rating of each.
//!
//! Source: the data set argilla/ultrafeedback-binarized-preferences on the hub.

use super::{Format, Meaning};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::pairing::{answers, question, score_margin};
use crate::read::row::Row;

const COLUMNS: &str = "a row has the columns `instruction`, `chosen_response` and `rejected_response`";

pub(super) const FORMAT: Format = Format {
    name: "argilla",
    origin: "argilla/ultrafeedback-binarized-preferences",
    columns: "`instruction`, `chosen_response`, `rejected_response`: strings; [`chosen_avg_rating`, `rejected_avg_rating`]",
    yields: "a pair of conversations; the margin is the difference of the ratings",
    recognizes: |row| row.has("chosen_response") && row.has("rejected_response"),
    read,
};

fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let margin = score_margin(row)?;
    let user = row.string("instruction", COLUMNS)?;
    let chosen = row.string("chosen_response", COLUMNS)?;
    let rejected = row.string("rejected_response", COLUMNS)?;
    Ok(Meaning::Pair(answers(question(None, &user), &chosen, &rejected, row.chat_options()?), margin))
}
