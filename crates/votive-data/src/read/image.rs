//! Image pairs: where they stand, and the tables or folders that they are read from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::image_folders;
use super::image_format::{Candidate, Compared, IMAGE_COLUMNS, IMAGE_FORMATS, ImageFormat};
use super::ranking::{PairChoice, choose};
use super::records::{Records, Refused};
use super::row::Row;
use super::shards::files_of;
use super::table::visit_rows_beside_images;
use crate::error::{DataError, Place, Result};
use crate::record::{ImageOrigin, ImagePair, RowNumbers};
use crate::report::RowProblem;

pub(super) const WHAT: &str = "image preference data";

/// What becomes of two images of which neither is preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ties {
    /// They are left out and counted, as the code of Diffusion-DPO does.
    #[default]
    Drop,
    /// The first image counts as chosen, as in the script of diffusers.
    Keep,
}

impl Ties {
    /// The choices with their names in a recipe.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Drop, "drop"), (Self::Keep, "keep")];
}

/// What a pair's loss is multiplied by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PairWeights {
    /// The column `weight`, where there is one.
    #[default]
    Column,
    /// One over the comparisons of its prompt, column `num_example_per_prompt`, as PickScore is trained: every prompt
    /// counts as much as any other.
    Prompt,
}

impl PairWeights {
    /// The choices with their names in a recipe.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Column, "column"), (Self::Prompt, "prompt")];
}

/// Where image pairs stand, and how they are read.
#[derive(Clone, Debug, Default)]
pub struct ImageDataSource {
    /// Files and folders of shards, or a folder with the folders `chosen` and `rejected`.
    pub paths: Vec<PathBuf>,
    /// The split meant in a folder of several.
    pub split: Option<String>,
    /// The layout of the columns; recognized from the first row if not given.
    pub format: Option<&'static ImageFormat>,
    /// The pairs to make of ranked lists.
    pub pairs: PairChoice,
    /// What becomes of ties.
    pub ties: Ties,
    /// What weights pairs have.
    pub weights: PairWeights,
    /// The folder below which paths of images lie; if not given, that of the table.
    pub images: Option<PathBuf>,
}

impl ImageDataSource {
    /// A file or folder, read in the layout that its columns show.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { paths: vec![path.into()], ..Self::default() }
    }

    /// Reads every row. The images themselves are not opened.
    ///
    /// # Errors
    /// If a path cannot be read, is of an unknown kind, or is a folder of several splits; if the columns are of no known
    /// layout; if a row lacks a column or holds the wrong kind of value; if an image of one folder has no partner in the
    /// other, or no caption.
    pub fn read(&self) -> Result<Records<ImagePair>> {
        if let [path] = self.paths.as_slice()
            && image_folders::is_pair_of_folders(path)
        {
            return image_folders::read(path);
        }
        let mut gathered = Gathered::new(self);
        for file in self.files()? {
            let before = gathered.start_file(&file);
            let read =
                visit_rows_beside_images(&file, WHAT, before, &IMAGE_COLUMNS, &mut |row| gathered.add(row))?;
            gathered.position = read;
        }
        Ok(gathered.records)
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        files_of(&self.paths, self.split.as_deref(), WHAT).map_err(|error| match error {
            // A folder may be meant to hold images.
            DataError::UnsupportedFormat { path, what, supported, .. } if path.is_dir() => {
                let found = "a folder without `chosen` and `rejected` and without tables".to_owned();
                DataError::UnsupportedFormat { path, what, found, supported }
            }
            other => other,
        })
    }
}

/// What is known after some rows.
struct Gathered<'a> {
    source: &'a ImageDataSource,
    records: Records<ImagePair>,
    format: Option<&'static ImageFormat>,
    /// The folder below which the paths of the current file lie, once its layout is known.
    folder: Option<PathBuf>,
    /// The names of models, each kept once.
    models: BTreeMap<Arc<str>, Arc<str>>,
    /// Rows of the files that are read, blank ones included.
    position: usize,
}

impl<'a> Gathered<'a> {
    fn new(source: &'a ImageDataSource) -> Self {
        let mut records = Records::new(source.paths.first().cloned().unwrap_or_default(), Vec::new());
        records.format = source.format.map(|format| format.name);
        let (folder, models) = (None, BTreeMap::new());
        Self { source, records, format: source.format, folder, models, position: 0 }
    }

    /// Begins a file, and returns the number of rows before it.
    fn start_file(&mut self, file: &Path) -> usize {
        self.folder = None;
        self.records.shards.push((file.to_owned(), self.position));
        self.position
    }

    /// Takes a row in.
    fn add(&mut self, mut row: Row) -> Result<()> {
        self.records.rows_read += 1;
        let format = self.format_of(&row)?;
        let source = self.source;
        let folder = self.folder.get_or_insert_with(|| {
            source.images.clone().unwrap_or_else(|| format.folder_of(&row.place("").file))
        });
        let other = if format.recognizes(&row) { None } else { ImageFormat::of(&row) };
        let compared = format.read(&mut row, folder).map_err(|error| match other {
            Some(other) => mixed_formats(&row, format, other),
            None => error,
        })?;
        let numbers = self.numbers(&mut row, &compared)?;
        match compared.nothing {
            Some(problem) => self.refuse(&row, problem),
            None => self.add_pairs(&row, compared, numbers),
        }
        for name in row.unread_columns() {
            *self.records.ignored_columns.entry(name).or_default() += 1;
        }
        Ok(())
    }

    /// The settled layout; the first row settles it.
    fn format_of(&mut self, row: &Row) -> Result<&'static ImageFormat> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let found = ImageFormat::of(row).or_else(|| ImageFormat::nearest(row));
        let format = found.ok_or_else(|| row.of_no_layout(IMAGE_FORMATS.iter().map(|format| format.name)))?;
        (self.format, self.records.format) = (Some(format), Some(format.name));
        Ok(format)
    }

    fn numbers(&self, row: &mut Row, compared: &Compared) -> Result<RowNumbers> {
        let column = row.optional_weight("weight")?;
        let margin = row.optional_number("margin")?.or(compared.margin);
        let weight = match (self.source.weights, compared.comparisons) {
            (PairWeights::Column, _) => column,
            (PairWeights::Prompt, Some(comparisons)) if comparisons > 0.0 => Some(1.0 / comparisons),
            (PairWeights::Prompt, comparisons) => {
                let place = row.place("num_example_per_prompt");
                let expected =
                    "the comparisons of a prompt, a number above 0, by which its pairs are weighed";
                return Err(match comparisons {
                    None => DataError::MissingField { place, expected },
                    Some(found) => DataError::WrongField { place, expected, found: found.to_string() },
                });
            }
        };
        Ok(RowNumbers { weight, margin, ..RowNumbers::default() })
    }

    /// Makes the pairs of a row; an image without a score and a tie are counted.
    fn add_pairs(&mut self, row: &Row, compared: Compared, numbers: RowNumbers) {
        let scores: Vec<_> = compared.images.iter().map(|image| image.score).collect();
        let made = choose(&scores, self.source.pairs);
        for _ in scores.iter().filter(|score| score.is_none()) {
            self.refuse(row, RowProblem::Unscored);
        }
        if scores.iter().flatten().count() < 2 {
            self.refuse(row, RowProblem::NoRival);
        }
        for (better, worse, difference) in made.pairs {
            let margin = numbers.margin.or(compared.is_graded.then_some(difference));
            self.add_pair(row, &compared, [better, worse], RowNumbers { margin, ..numbers }, false);
        }
        for (first, second) in made.ties {
            match self.source.ties {
                Ties::Drop => self.refuse(row, RowProblem::Tie),
                Ties::Keep => self.add_pair(row, &compared, [first, second], numbers, true),
            }
        }
    }

    fn add_pair(
        &mut self,
        row: &Row,
        compared: &Compared,
        places: [usize; 2],
        numbers: RowNumbers,
        is_tie: bool,
    ) {
        let [chosen, rejected] = places.map(|place| &compared.images[place]);
        let mut name = |candidate: &Candidate| {
            let model = candidate.model.as_ref()?;
            Some(Arc::clone(self.models.entry(Arc::clone(model)).or_insert_with(|| Arc::clone(model))))
        };
        let models = [name(chosen), name(rejected)];
        let places = (!compared.is_decided).then_some(places);
        self.records.rows.push(ImagePair {
            row: row.number,
            prompt: compared.prompt.clone(),
            chosen: chosen.image.clone(),
            rejected: rejected.image.clone(),
            numbers,
            origin: ImageOrigin { places, models, is_tie },
        });
    }

    fn refuse(&mut self, row: &Row, problem: RowProblem) {
        self.records.refused.push(Refused { row: row.number, problem, detail: "" });
    }
}

fn mixed_formats(row: &Row, settled: &ImageFormat, found: &ImageFormat) -> DataError {
    let Place { file, row: number, .. } = row.place("");
    let words = |format: &ImageFormat| format!("the format `{}`", format.name);
    DataError::MixedRows {
        file,
        row: number,
        found: words(found),
        first: format!("the first row has {}", words(settled)),
    }
}
