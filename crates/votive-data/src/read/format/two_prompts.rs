//! One completion after two prompts: it does what the one says, and not all that the other says.
//!
//! Source: the pairs of Sun et al., MAPL, arXiv:2505.12845; the columns are this project's.

use super::{Format, Meaning};
use crate::error::Result;
use crate::read::dataset_info::Tags;
use crate::read::pairing::completion_text;
use crate::read::row::Row;
use crate::record::PairText;

const COLUMNS: &str = "a row has the columns `prompt_chosen`, `prompt_rejected` and `completion`";

pub(super) const FORMAT: Format = Format {
    name: "two-prompts",
    origin: "pairs of prompts, as MAPL's",
    columns: "`prompt_chosen`, `prompt_rejected`, `completion`: strings or lists of messages; [`tools`, `chat_template_kwargs`]",
    yields: "a pair of the completion after the one prompt and after the other; what both prompts begin with is the pair's prompt, \
             and what follows of each is read and not trained",
    recognizes: |row| row.has("prompt_chosen") && row.has("prompt_rejected") && row.has("completion"),
    read,
};

fn read(row: &mut Row, _: &Tags) -> Result<Meaning> {
    let prompts = [row.text("prompt_chosen", COLUMNS)?, row.text("prompt_rejected", COLUMNS)?];
    let completion = row.text("completion", COLUMNS)?;
    let [chosen, rejected] = prompts;
    let chosen = completion_text(chosen, completion.clone(), row)?;
    let mut rejected = completion_text(rejected, completion, row)?;
    rejected.options_of(&chosen);
    Ok(Meaning::Pair(PairText::TwoPrompts { chosen, rejected }, None))
}
