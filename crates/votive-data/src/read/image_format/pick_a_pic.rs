//! Pick-a-Pic: two images of a caption and which of them a user took, one comparison a row.
//!
//! Source: Kirstain et al., "Pick-a-Pic: an open dataset of user preferences for text-to-image generation",
//! arXiv:2305.01569; yuvalkirstain/pickapic_v1 and pickapic_v2. Labels are 1 and 0, or ½ and ½ for a tie.

use std::path::Path;

use super::{Candidate, Compared, ImageFormat, caption, model};
use crate::error::Result;
use crate::read::row::Row;
use crate::report::RowProblem;

const COLUMNS: &str = "a row has the columns `caption`, `jpg_0`, `jpg_1` (bytes of an image, or its path), `label_0` and \
                       `label_1`; the data set without images has none to train on";
/// What the columns of the images are called, in the order in which they are tried.
const IMAGES: [&str; 2] = ["jpg", "image"];

pub(super) const FORMAT: ImageFormat = ImageFormat {
    name: "pick-a-pic",
    origin: "yuvalkirstain/pickapic_v1, pickapic_v2 and their subsets",
    columns: "`caption`; `jpg_0`, `jpg_1`: bytes, `{bytes, path}` or paths; `label_0`, `label_1`: 1 and 0, or 0.5 and 0.5; [`has_label`, `are_different`, `model_0`, `model_1`, `num_example_per_prompt`]",
    yields: "a pair: the image whose label is higher is chosen; equal labels are a tie; rows with `has_label` or `are_different` false are left out and counted",
    own_folder: false,
    recognizes: |row| row.names_column("label_0") && row.names_column("label_1"),
    read,
};

fn read(row: &mut Row, folder: &Path) -> Result<Compared> {
    let prompt = caption(row, COLUMNS)?;
    let has_label = row.optional_boolean("has_label")?.unwrap_or(true);
    let are_different = row.optional_boolean("are_different")?.unwrap_or(true);
    let nothing = match (has_label, are_different) {
        (false, _) => Some(RowProblem::Unlabelled),
        (true, false) => Some(RowProblem::NotDifferent),
        (true, true) => None,
    };
    let comparisons = row.optional_number("num_example_per_prompt")?;
    let kind = IMAGES.into_iter().find(|kind| row.names_column(&format!("{kind}_0"))).unwrap_or(IMAGES[0]);
    let mut images = Vec::with_capacity(2);
    for side in 0..2 {
        images.push(Candidate {
            image: row.image(&format!("{kind}_{side}"), folder, COLUMNS)?,
            score: row.optional_number(&format!("label_{side}"))?,
            model: model(row, &format!("model_{side}"))?,
        });
    }
    Ok(Compared { prompt, images, nothing, comparisons, ..Compared::default() })
}
