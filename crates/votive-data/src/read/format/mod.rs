//! Layouts of columns that data sets of preferences come in: one file each, one row of [`FORMATS`] each.

mod alpaca;
mod argilla;
mod helpsteer3;
mod hh_rlhf;
mod nectar;
mod nemo;
mod orca;
mod ranked;
mod sharegpt;
mod trl;
mod trl_unpaired;
mod two_prompts;
mod ultrafeedback;
mod ultrafeedback_binarized;

use super::dataset_info::Tags;
use super::ranking::Ranking;
use super::row::Row;
use crate::error::Result;
use crate::record::{Completion, PairText};
use crate::report::RowProblem;

/// A layout of columns, and how its rows are read.
pub struct Format {
    /// Its name in a recipe's `data.format`.
    pub name: &'static str,
    /// Who publishes data in it.
    pub origin: &'static str,
    /// The columns that a row needs, and those that it may have in brackets.
    pub columns: &'static str,
    /// What becomes of a row.
    pub yields: &'static str,
    recognizes: fn(&Row) -> bool,
    read: fn(&mut Row, &Tags) -> Result<Meaning>,
}

/// Every layout, in the order in which they are tried: the first that recognizes the first row is taken.
pub static FORMATS: &[Format] = &[
    sharegpt::FORMAT,
    alpaca::FORMAT,
    argilla::FORMAT,
    ultrafeedback::FORMAT,
    orca::FORMAT,
    helpsteer3::FORMAT,
    nectar::FORMAT,
    nemo::FORMAT,
    ranked::FORMAT,
    hh_rlhf::FORMAT,
    hh_rlhf::AS_CHAT,
    ultrafeedback_binarized::FORMAT,
    two_prompts::FORMAT,
    trl_unpaired::FORMAT,
    trl::FORMAT,
];

/// What a row says.
pub(super) enum Meaning {
    /// A pair, with the difference of the scores of its sides if they have scores.
    Pair(PairText, Option<f64>),
    /// The same with a third completion of the prompt, better than both.
    Triple(PairText, Option<f64>, Completion),
    /// A completion with its label.
    Unpaired(Completion, bool),
    /// Completions to make pairs of.
    Ranked(Ranking),
    /// Nothing to learn from.
    Nothing(RowProblem, &'static str),
}

impl Format {
    /// The layout called `name`.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        FORMATS.iter().find(|format| format.name == name)
    }

    /// The layout of a row, by its columns.
    pub(super) fn of(row: &Row) -> Option<&'static Self> {
        FORMATS.iter().find(|format| format.recognizes(row))
    }

    /// The layout that a row was probably meant to have, although a column is missing.
    pub(super) fn nearest(row: &Row) -> Option<&'static Self> {
        match () {
            () if row.has("completion") => Some(&trl_unpaired::FORMAT),
            () if row.has("chosen") || row.has("rejected") => Some(&trl::FORMAT),
            () => None,
        }
    }

    /// Whether a row has the columns of this layout.
    pub(super) fn recognizes(&self, row: &Row) -> bool {
        (self.recognizes)(row)
    }

    /// What a row of this layout says.
    pub(super) fn read(&self, row: &mut Row, tags: &Tags) -> Result<Meaning> {
        (self.read)(row, tags)
    }
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

pub(super) use ranked::score;
pub(super) use trl::COLUMNS as PAIR_COLUMNS;
pub(super) use trl_unpaired::COLUMNS as UNPAIRED_COLUMNS;

/// Whether a row has both sides of a pair.
fn has_sides(row: &Row) -> bool {
    row.has("chosen") && row.has("rejected")
}
