//! Human Preference Dataset v2: choices between two images, and rankings of several.
//!
//! Source: Wu et al., "Human Preference Score v2", arXiv:2306.09341; the README of tgxs002/HPSv2, `train.json` and
//! `test.json`. Ranks are averages over annotators, 1 the best.

use std::path::Path;

use super::{Compared, ImageFormat, are_lists, scored_list};
use crate::error::Result;
use crate::read::row::Row;

const CHOICE: &str =
    "a row has the columns `prompt`, `file_path` (paths) and `human_preference` (1 for the preferred image)";
const RANKING: &str = "a row has the columns `prompt`, `image_path` (paths) and `rank` (1 is the best)";
/// Columns of the images and of their numbers, by what the row is.
const CHOSEN: [&str; 2] = ["file_path", "human_preference"];
const CHOSEN_BY_OTHER_NAME: [&str; 2] = ["image_path", "human_preference"];
const RANKED: [&str; 2] = ["image_path", "rank"];

pub(super) const CHOICES: ImageFormat = ImageFormat {
    name: "hpdv2",
    origin: "HPD v2: train.json",
    columns: "`prompt`: a string; `file_path` or `image_path`: paths, below the folder that is called as the file if there is one; `human_preference`: 1 for the preferred image, 0 for the other",
    yields: "a pair",
    own_folder: true,
    recognizes: |row| are_lists(row, CHOSEN) || are_lists(row, CHOSEN_BY_OTHER_NAME),
    read: read_choice,
};

pub(super) const RANKS: ImageFormat = ImageFormat {
    name: "hpdv2-ranks",
    origin: "HPD v2: test.json",
    columns: "`prompt`: a string; `image_path`: paths, as in `hpdv2`; `rank`: numbers, less is better",
    yields: "pairs, as `data.pairs` says; the margin is the difference of the ranks",
    own_folder: true,
    recognizes: |row| are_lists(row, RANKED),
    read: |row, folder| scored_list(row, folder, RANKED, -1.0, RANKING),
};

fn read_choice(row: &mut Row, folder: &Path) -> Result<Compared> {
    let columns = if row.has(CHOSEN[0]) { CHOSEN } else { CHOSEN_BY_OTHER_NAME };
    let choice = scored_list(row, folder, columns, 1.0, CHOICE)?;
    Ok(Compared { is_graded: false, ..choice })
}
