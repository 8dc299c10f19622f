//! A caption with a chosen and a rejected image: what Votive writes itself, tables of the `Image` feature of `datasets`,
//! and the `metadata.jsonl` of its image folders.

use std::path::Path;

use serde_json::Value;

use super::{Candidate, Compared, ImageFormat, caption, model};
use crate::error::Result;
use crate::read::pairing::score_margin;
use crate::read::row::Row;
use crate::read::{IMAGE_ENDINGS, extension};

const COLUMNS: &str = "an image pair has the columns `prompt`, `chosen` and `rejected`; the last two are paths relative \
                       to the file, or bytes";
/// What the columns of the two sides are called.
pub(super) const SIDES: [[&str; 2]; 2] = [["chosen", "rejected"], ["chosen_file_name", "rejected_file_name"]];

pub(super) const FORMAT: ImageFormat = ImageFormat {
    name: "image-pairs",
    origin: "Votive; `datasets` with two columns of images, and `metadata.jsonl` of its image folders",
    columns: "`prompt`, `caption` or `text`: a string; `chosen`, `rejected`: paths, bytes or `{bytes, path}`; or `chosen_file_name`, `rejected_file_name`; [`chosen_model`, `rejected_model`, and scores as in `ultrafeedback-binarized`]",
    yields: "a pair; the margin is the difference of the scores",
    own_folder: false,
    recognizes: |row| SIDES.iter().any(|sides| sides.iter().all(|column| is_image(row, column))),
    read,
};

/// Whether a column holds an image, not the text of a completion.
fn is_image(row: &Row, column: &str) -> bool {
    let is_path = |path: &str| {
        extension(Path::new(path)).is_some_and(|ending| IMAGE_ENDINGS.contains(&ending.as_str()))
    };
    row.holds_image(column)
        || match row.peek(column) {
            Some(Value::Object(fields)) => fields.contains_key("path"),
            Some(Value::String(path)) => is_path(path) && !path.contains('\n'),
            _ => false,
        }
}

fn read(row: &mut Row, folder: &Path) -> Result<Compared> {
    let margin = score_margin(row)?;
    let prompt = caption(row, COLUMNS)?;
    let named = |sides: &&[&str; 2]| sides.iter().any(|column| row.names_column(column));
    let sides = SIDES.iter().find(named).unwrap_or(&SIDES[0]);
    let mut images = Vec::with_capacity(2);
    for (column, score, of) in [(sides[0], 1.0, "chosen_model"), (sides[1], 0.0, "rejected_model")] {
        let image = row.image(column, folder, COLUMNS)?;
        images.push(Candidate { image, score: Some(score), model: model(row, of)? });
    }
    Ok(Compared { prompt, images, is_decided: true, margin, ..Compared::default() })
}
