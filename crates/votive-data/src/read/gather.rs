//! From rows to records: the layout is settled by the first row, and every other row must be of the same kind.

use std::path::{Path, PathBuf};

use super::dataset_info::Tags;
use super::format::{FORMATS, Format, Meaning};
use super::pairing::{completion_text, pair_text, scores_of_sides};
use super::ranking::{PairChoice, Pairs, Ranking, choose};
use super::records::{Records, Refused};
use super::row::Row;
use super::text::TextRecords;
use crate::error::{DataError, Place, Result};
use crate::record::{
    Completion, ImageSource, PairText, PreferencePair, RowNumbers, ScoredList, UnpairedExample,
};
use crate::report::RowProblem;

/// What is known after some rows.
pub(super) struct Gathered {
    records: Records<()>,
    pairs: Vec<PreferencePair>,
    unpaired: Vec<UnpairedExample>,
    lists: Vec<ScoredList>,
    format: Option<&'static Format>,
    /// The kind of the first record, with its row.
    kind: Option<(Kind, Place)>,
    choice: Lists,
    tags: Tags,
    /// Rows of the files that are read, blank ones included.
    position: usize,
}

/// What becomes of several completions of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lists {
    /// Pairs.
    Pairs(PairChoice),
    /// They stay together, and a pair is a list of two.
    Whole,
}

/// Kinds of records that one data set does not mix.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Strings,
    Implicit,
    Chat,
    TwoPrompts,
    LabelledStrings,
    LabelledChat,
}

impl Kind {
    fn of_pair(text: &PairText) -> Self {
        match text {
            PairText::Plain { .. } => Self::Strings,
            PairText::Implicit { .. } => Self::Implicit,
            PairText::Chat { .. } => Self::Chat,
            PairText::TwoPrompts { .. } => Self::TwoPrompts,
        }
    }

    fn of_completion(text: &Completion) -> Self {
        match text {
            Completion::Plain { .. } => Self::LabelledStrings,
            Completion::Chat { .. } => Self::LabelledChat,
        }
    }

    /// Of a completion among several.
    fn of_list(text: &Completion) -> Self {
        match text {
            Completion::Plain { .. } => Self::Strings,
            Completion::Chat { .. } => Self::Chat,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Strings => "strings with a prompt",
            Self::Implicit => "strings without a prompt",
            Self::Chat => "conversations",
            Self::TwoPrompts => "one completion after two prompts",
            Self::LabelledStrings => "strings with a label",
            Self::LabelledChat => "conversations with a label",
        }
    }
}

impl Gathered {
    /// Nothing yet; `format` settles the layout beforehand.
    pub(super) fn new(file: PathBuf, format: Option<&'static Format>, choice: Lists, tags: Tags) -> Self {
        let mut records = Records::new(file, Vec::new());
        records.format = format.map(|format| format.name);
        let (pairs, unpaired, lists, kind) = (Vec::new(), Vec::new(), Vec::new(), None);
        Self { records, pairs, unpaired, lists, format, kind, choice, tags, position: 0 }
    }

    /// Begins a file, and returns the number of rows before it.
    pub(super) fn start_file(&mut self, file: &Path) -> usize {
        self.records.shards.push((file.to_owned(), self.position));
        self.position
    }

    /// Ends a file, after which so many rows are read.
    pub(super) fn end_file(&mut self, position: usize) {
        self.position = position;
    }

    /// Takes a row in.
    pub(super) fn add(&mut self, mut row: Row) -> Result<()> {
        self.records.rows_read += 1;
        let format = self.format_of(&row)?;
        let other = if format.recognizes(&row) { None } else { Format::of(&row) };
        let images = row.shown_images()?;
        // Before the format takes them for its margin.
        let scores = scores_of_sides(&row);
        let meaning = format.read(&mut row, &self.tags).map_err(|error| match other {
            Some(other) => self.mixed_formats(&row, format, other),
            None => error,
        })?;
        let weight = row.optional_weight("weight")?;
        let margin = row.optional_number("margin")?;
        let uncertainty = row.optional_number("uncertainty")?;
        let numbers = |difference: Option<f64>, scores| RowNumbers {
            weight,
            margin: margin.or(difference),
            scores,
            uncertainty,
        };
        match meaning {
            Meaning::Pair(text, difference) => {
                let numbers = numbers(difference, scores);
                self.add_pair(
                    &row,
                    PreferencePair { images, numbers, ..PreferencePair::new(row.number, text) },
                )?;
            }
            Meaning::Triple(text, difference, gold) => {
                let (gold, numbers) = (Some(gold), numbers(difference, scores));
                self.add_pair(&row, PreferencePair { row: row.number, images, text, gold, numbers })?;
            }
            Meaning::Unpaired(..) if self.choice == Lists::Whole => {
                let (place, expected) =
                    (row.place("completions"), "a row has several completions with scores");
                return Err(DataError::MissingField { place, expected });
            }
            Meaning::Unpaired(text, label) => {
                self.require_kind(Kind::of_completion(&text), &row)?;
                let numbers = numbers(None, [row.optional_number("score")?, None]);
                self.unpaired.push(UnpairedExample { row: row.number, images, text, label, numbers });
            }
            Meaning::Ranked(ranking) => self.add_ranking(&mut row, &ranking, &images, numbers)?,
            Meaning::Nothing(problem, detail) => self.refuse(&row, problem, detail),
        }
        for name in row.unread_columns() {
            *self.records.ignored_columns.entry(name).or_default() += 1;
        }
        Ok(())
    }

    /// The settled layout; the first row settles it.
    fn format_of(&mut self, row: &Row) -> Result<&'static Format> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let found = Format::of(row).or_else(|| Format::nearest(row));
        let format = found.ok_or_else(|| row.of_no_layout(FORMATS.iter().map(|format| format.name)))?;
        (self.format, self.records.format) = (Some(format), Some(format.name));
        Ok(format)
    }

    fn add_pair(&mut self, row: &Row, pair: PreferencePair) -> Result<()> {
        self.require_kind(Kind::of_pair(&pair.text), row)?;
        if self.choice == Lists::Whole {
            let PreferencePair { text, images, numbers, .. } = pair;
            let scores = match numbers.scores {
                [Some(chosen), Some(rejected)] => [chosen, rejected],
                // Only the order is known.
                _ => [1.0, 0.0],
            };
            let Some(sides) = text.sides() else {
                let (place, expected) = (row.place("prompt"), "a list has its prompt in a column of its own");
                return Err(DataError::MissingField { place, expected });
            };
            let completions = sides.into_iter().zip(scores).collect();
            self.lists.push(ScoredList { row: row.number, images, completions, weight: numbers.weight });
            return Ok(());
        }
        self.pairs.push(pair);
        Ok(())
    }

    /// Makes the pairs of a ranked list; a completion without a score and a tie are counted.
    fn add_ranking(
        &mut self,
        row: &mut Row,
        ranking: &Ranking,
        images: &[ImageSource],
        numbers: impl Fn(Option<f64>, [Option<f64>; 2]) -> RowNumbers,
    ) -> Result<()> {
        let Ranking { prompt, completions, options } = ranking;
        let scores: Vec<_> = completions.iter().map(|(_, score)| *score).collect();
        let made = match self.choice {
            Lists::Pairs(choice) => choose(&scores, choice),
            Lists::Whole => Pairs::default(),
        };
        for _ in scores.iter().filter(|score| score.is_none()) {
            self.refuse(row, RowProblem::Unscored, "");
        }
        for _ in &made.ties {
            self.refuse(row, RowProblem::Tie, "");
        }
        if scores.iter().flatten().count() < 2 {
            self.refuse(row, RowProblem::NoRival, "");
        }
        if self.choice == Lists::Whole && scores.iter().flatten().count() > 1 {
            let scored = completions.iter().filter_map(|(text, score)| Some((text.clone(), (*score)?)));
            let mut list = Vec::new();
            for (text, score) in scored {
                let mut text = completion_text(prompt.clone(), text, row)?;
                if let Completion::Chat { options: found, .. } = &mut text {
                    found.clone_from(options);
                }
                self.require_kind(Kind::of_list(&text), row)?;
                list.push((text, score));
            }
            let weight = numbers(None, [None; 2]).weight;
            self.lists.push(ScoredList {
                row: row.number,
                images: images.to_vec(),
                completions: list,
                weight,
            });
        }
        for (better, worse, margin) in made.pairs {
            let side = |place: usize| completions[place].0.clone();
            let mut text = pair_text(Some(prompt.clone()), side(better), side(worse), row)?;
            if let PairText::Chat { options: found, .. } = &mut text {
                found.clone_from(options);
            }
            let numbers = numbers(Some(margin), [scores[better], scores[worse]]);
            let images = images.to_vec();
            self.add_pair(row, PreferencePair { images, numbers, ..PreferencePair::new(row.number, text) })?;
        }
        Ok(())
    }

    fn refuse(&mut self, row: &Row, problem: RowProblem, detail: &'static str) {
        self.records.refused.push(Refused { row: row.number, problem, detail });
    }

    /// A record must be of the kind of the first one.
    fn require_kind(&mut self, kind: Kind, row: &Row) -> Result<()> {
        let (first, place) = self.kind.get_or_insert_with(|| (kind, row.place("")));
        if *first == kind {
            return Ok(());
        }
        Err(mixed(row, kind.words().to_owned(), first.words().to_owned(), place))
    }

    fn mixed_formats(&self, row: &Row, settled: &Format, found: &Format) -> DataError {
        let words = |format: &Format| format!("the format `{}`", format.name);
        let here = row.place("");
        let first = self.kind.as_ref().map_or(&here, |(_, place)| place);
        mixed(row, words(found), words(settled), first)
    }

    /// The lists.
    pub(super) fn finish_lists(self) -> Records<ScoredList> {
        self.records.with_rows(self.lists)
    }

    /// The records.
    pub(super) fn finish(self) -> TextRecords {
        let Self { records, pairs, unpaired, .. } = self;
        if unpaired.is_empty() {
            TextRecords::Pairs(records.with_rows(pairs))
        } else {
            TextRecords::Unpaired(records.with_rows(unpaired))
        }
    }
}

fn mixed(row: &Row, found: String, expected: String, first: &Place) -> DataError {
    let Place { file, row: number, .. } = row.place("");
    let first = format!("row {} of {}", first.row, first.file.display());
    DataError::MixedRows { file, row: number, found, first: format!("{first} has {expected}") }
}
