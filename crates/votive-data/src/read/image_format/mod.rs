//! Layouts of columns that image preferences come in: one file each, one row of [`IMAGE_FORMATS`] each.

mod hpdv2;
mod image_pairs;
mod pick_a_pic;
mod ranked_images;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::row::Row;
use crate::error::Result;
use crate::record::ImageSource;
use crate::report::RowProblem;

/// A layout of columns of image preferences, and how its rows are read.
pub struct ImageFormat {
    /// Its name in a recipe's `data.format`.
    pub name: &'static str,
    /// Who publishes data in it.
    pub origin: &'static str,
    /// The columns that a row needs, and those that it may have in brackets.
    pub columns: &'static str,
    /// What becomes of a row.
    pub yields: &'static str,
    /// Whether paths lie in a folder that is called as the file, if there is one: `train/` beside `train.json`.
    own_folder: bool,
    recognizes: fn(&Row) -> bool,
    read: fn(&mut Row, &Path) -> Result<Compared>,
}

/// Every layout, in the order in which they are tried: the first that recognizes the first row is taken.
pub static IMAGE_FORMATS: &[ImageFormat] =
    &[pick_a_pic::FORMAT, hpdv2::CHOICES, hpdv2::RANKS, ranked_images::FORMAT, image_pairs::FORMAT];

/// Columns that may hold the bytes of an image, in any layout.
pub(super) const IMAGE_COLUMNS: [&str; 6] = ["jpg_0", "jpg_1", "image_0", "image_1", "chosen", "rejected"];

/// What a row says: images of one prompt, and which of them are better.
#[derive(Default)]
pub(super) struct Compared {
    pub(super) prompt: String,
    pub(super) images: Vec<Candidate>,
    /// Whether the difference of two scores says by how much an image is better.
    pub(super) is_graded: bool,
    /// Whether the row calls its two images chosen and rejected.
    pub(super) is_decided: bool,
    /// By how much the chosen image is better, if the row has the scores of both in columns of their own.
    pub(super) margin: Option<f64>,
    /// Why the row says nothing, although it has the columns.
    pub(super) nothing: Option<RowProblem>,
    /// Comparisons of this prompt in the whole data set, if the row says so.
    pub(super) comparisons: Option<f64>,
}

/// An image with its score; a higher one is better, and none means that nobody scored it.
pub(super) struct Candidate {
    pub(super) image: ImageSource,
    pub(super) score: Option<f64>,
    pub(super) model: Option<Arc<str>>,
}

impl ImageFormat {
    /// The layout called `name`.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        IMAGE_FORMATS.iter().find(|format| format.name == name)
    }

    /// The layout of a row, by its columns.
    pub(super) fn of(row: &Row) -> Option<&'static Self> {
        IMAGE_FORMATS.iter().find(|format| format.recognizes(row))
    }

    /// The layout that a row was probably meant to have, although a column is missing.
    pub(super) fn nearest(row: &Row) -> Option<&'static Self> {
        let is_pair = image_pairs::SIDES.iter().flatten().any(|column| row.names_column(column));
        is_pair.then_some(&image_pairs::FORMAT)
    }

    /// Whether texts come in columns of the same names.
    pub(super) fn may_be_text(&self) -> bool {
        self.name == image_pairs::FORMAT.name
    }

    pub(super) fn recognizes(&self, row: &Row) -> bool {
        (self.recognizes)(row)
    }

    /// What a row of this layout says; paths are below `folder`.
    pub(super) fn read(&self, row: &mut Row, folder: &Path) -> Result<Compared> {
        (self.read)(row, folder)
    }

    /// The folder below which the paths of a file lie.
    pub(super) fn folder_of(&self, file: &Path) -> std::path::PathBuf {
        let own = file.with_extension("");
        let beside = file.parent().unwrap_or(Path::new("")).to_owned();
        if self.own_folder && own.is_dir() { own } else { beside }
    }
}

impl std::fmt::Debug for ImageFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The caption of a row, under one of the names that it goes by.
fn caption(row: &mut Row, expected: &'static str) -> Result<String> {
    const NAMES: [&str; 3] = ["prompt", "caption", "text"];
    let found = NAMES.into_iter().find(|name| row.has(name)).unwrap_or(NAMES[0]);
    row.string(found, expected)
}

/// The name of a model that may be missing.
fn model(row: &mut Row, column: &str) -> Result<Option<Arc<str>>> {
    Ok(row.optional_string(column)?.map(Arc::from))
}

/// Whether two columns hold lists.
fn are_lists(row: &Row, columns: [&str; 2]) -> bool {
    columns.iter().all(|column| row.peek(column).is_some_and(Value::is_array))
}

/// Images of one prompt with a number each, of which more or less is better, as `sign` says.
fn scored_list(
    row: &mut Row,
    folder: &Path,
    [images, numbers]: [&str; 2],
    sign: f64,
    expected: &'static str,
) -> Result<Compared> {
    use super::format::score;
    let prompt = caption(row, expected)?;
    let (paths, scores) = (row.list(images, expected)?, row.list(numbers, expected)?);
    if paths.len() != scores.len() {
        let found = format!("{} for {} {images}", scores.len(), paths.len());
        let (place, expected) = (row.place(numbers), "a number for each image");
        return Err(crate::DataError::WrongField { place, expected, found });
    }
    let mut candidates = Vec::with_capacity(paths.len());
    for (index, (path, number)) in paths.iter().zip(&scores).enumerate() {
        let image = row.as_image(&format!("{images}[{index}]"), folder, path)?;
        let score = score(row, &format!("{numbers}[{index}]"), Some(number))?;
        candidates.push(Candidate { image, score: score.map(|score| sign * score), model: None });
    }
    Ok(Compared { prompt, images: candidates, is_graded: true, ..Compared::default() })
}
