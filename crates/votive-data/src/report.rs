//! What to do with rows that cannot be used as they are, and the account of what was done.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::admission::Sequence;
use crate::error::{DataError, Result};
use crate::read::Records;
use crate::record::RowNumbers;

/// What to do with a row that is longer than the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LongRows {
    /// Stop and name the row.
    #[default]
    Error,
    /// Leave the row out and count it.
    Drop,
    /// Keep the first `max_length` tokens of prompt and completion, as TRL's `keep_start` does, and count the rest.
    /// A row whose prompt alone fills the context is dropped.
    Truncate,
}

/// What to do with a row that has nothing to learn from, such as an empty completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultyRows {
    /// Stop and name the row.
    #[default]
    Error,
    /// Leave the row out and count it.
    Drop,
}

/// Which tokens of a completion of several turns are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainOn {
    /// All of them, as TRL's DPO does, which compares whole completions.
    #[default]
    Completion,
    /// Those of the assistant's turns; a row whose template does not let turns be told apart is faulty.
    Assistant,
}

/// How rows are admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowPolicy {
    /// Tokens of prompt and completion together that a row may have; `None` is no limit.
    pub max_length: Option<usize>,
    /// For rows over `max_length`.
    pub long_rows: LongRows,
    /// For rows with nothing to learn from.
    pub faulty_rows: FaultyRows,
    /// For completions of several turns.
    pub train_on: TrainOn,
}

/// Why a row cannot be trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowProblem {
    /// A completion is empty.
    EmptyCompletion,
    /// The two completions are the same.
    ChosenEqualsRejected,
    /// The prompt has no token, so the first token of the completion could not be scored.
    EmptyPrompt,
    /// `chosen` and `rejected` were to share a prompt, but their tokens have no common beginning that ends at a word.
    NoSharedPrompt,
    /// The prompt alone fills the context.
    PromptTooLong,
    /// Prompt and completion together exceed the context.
    TooLong,
    /// The two completions differ only in tokens that were cut off.
    EqualAfterTruncation,
    /// No token of a completion is trained: none is the assistant's, or those were cut off.
    NothingTrained,
    /// Only the assistant's turns are to be trained, but the template does not let them be told from the others.
    RolesUnknown,
    /// Completions with equal scores, of which none is preferred.
    Tie,
    /// A completion without a score.
    Unscored,
    /// Fewer than two completions with a score.
    NoRival,
    /// Images that nobody compared (column `has_label`).
    Unlabelled,
    /// Images that are said to be the same (column `are_different`).
    NotDifferent,
    /// An image that cannot be read or decoded.
    UnreadableImage,
    /// The text has more or fewer places for images than the row has images, or shows one in a completion.
    ImagePlaces,
    /// The row has images, and the model sees none.
    NoVision,
}

impl RowProblem {
    /// What the owner of the data can do.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::EmptyCompletion | Self::ChosenEqualsRejected | Self::EmptyPrompt => {
                "mend the row, or set faulty_rows to \"drop\""
            }
            Self::NoSharedPrompt => "give the prompt in a column of its own, or set faulty_rows to \"drop\"",
            Self::PromptTooLong => "raise max_length, shorten the prompt, or set long_rows to \"drop\"",
            Self::TooLong => "raise max_length, or set long_rows to \"drop\" or \"truncate\"",
            Self::EqualAfterTruncation | Self::NothingTrained => {
                "raise max_length, mend the row, or set faulty_rows to \"drop\""
            }
            Self::RolesUnknown => "set train_on to \"completion\", or faulty_rows to \"drop\"",
            Self::UnreadableImage => "mend the image, or set faulty_rows to \"drop\"",
            Self::ImagePlaces => "give the prompt a place for each image, or set faulty_rows to \"drop\"",
            Self::NoVision => "take a model that sees images, or set faulty_rows to \"drop\"",
            Self::Tie | Self::Unscored | Self::NoRival | Self::Unlabelled | Self::NotDifferent => {
                "nothing is to be done"
            }
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::EmptyCompletion => "empty completion",
            Self::ChosenEqualsRejected => "chosen and rejected are the same",
            Self::EmptyPrompt => "the prompt has no tokens",
            Self::NoSharedPrompt => "chosen and rejected share no prompt",
            Self::PromptTooLong => "the prompt fills the context",
            Self::TooLong => "longer than the context",
            Self::EqualAfterTruncation => "chosen and rejected are the same after truncation",
            Self::NothingTrained => "no token of a completion is trained",
            Self::RolesUnknown => "the template does not let the turns of a completion be told apart",
            Self::Tie => "the scores are equal",
            Self::Unscored => "a completion has no score",
            Self::NoRival => "fewer than two completions have a score",
            Self::Unlabelled => "has_label is false",
            Self::NotDifferent => "are_different is false",
            Self::UnreadableImage => "an image cannot be read",
            Self::ImagePlaces => "images and their places in the text do not match",
            Self::NoVision => "the row has images, and the model sees none",
        }
    }

    /// Whether this is what the data say, and no mistake: a list may hold ties, a row no label.
    pub(crate) fn is_expected(self) -> bool {
        matches!(self, Self::Tie | Self::Unscored | Self::NoRival | Self::Unlabelled | Self::NotDifferent)
    }
}

impl fmt::Display for RowProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// How many rows, and the first few of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowList {
    /// How many.
    pub count: usize,
    /// The numbers of the first five.
    pub first: Vec<usize>,
}

impl RowList {
    const SHOWN: usize = 5;

    /// Counts `row`.
    pub fn push(&mut self, row: usize) {
        self.count += 1;
        if self.first.len() < Self::SHOWN {
            self.first.push(row);
        }
    }
}

impl fmt::Display for RowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.first.iter().map(usize::to_string).collect();
        let more = if self.count > self.first.len() { ", …" } else { "" };
        write!(f, "{} (row {}{more})", self.count, rows.join(", "))
    }
}

/// Lengths of the rows that were kept, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthSummary {
    /// Sequences: two for a pair, one for an unpaired example.
    pub sequences: usize,
    /// Prompt tokens, counted once per sequence.
    pub prompt_tokens: usize,
    /// Completion tokens, the ones that are scored.
    pub completion_tokens: usize,
    /// Tokens of the longest sequence.
    pub longest: usize,
    /// The row of the longest sequence; 0 if there is none.
    pub longest_row: usize,
}

impl LengthSummary {
    pub(crate) fn add(&mut self, prompt: usize, completion: &Sequence, row: usize) {
        self.sequences += 1;
        self.prompt_tokens += prompt;
        self.completion_tokens += completion.trained();
        if prompt + completion.ids.len() > self.longest {
            self.longest = prompt + completion.ids.len();
            self.longest_row = row;
        }
    }
}

/// A column of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NumberSummary {
    /// How many there are.
    pub count: usize,
    /// The least.
    pub min: f64,
    /// Their mean.
    pub mean: f64,
    /// The greatest.
    pub max: f64,
}

impl NumberSummary {
    /// Takes a number in.
    pub fn add(&mut self, number: f64) {
        self.min = if self.count == 0 { number } else { self.min.min(number) };
        self.max = if self.count == 0 { number } else { self.max.max(number) };
        self.count += 1;
        self.mean += (number - self.mean) / self.count as f64;
    }
}

impl fmt::Display for NumberSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, min, mean, max } = self;
        write!(f, "{count} numbers from {min} to {max}, mean {mean:.4}")
    }
}

/// What the images of a data set are, and what is done to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// Pairs without a preference that were kept.
    pub ties_kept: RowList,
    /// Pairs whose two images have different sizes.
    pub mixed_sizes: RowList,
    /// Pairs with an image that has fewer pixels than it is trained at.
    pub enlarged: RowList,
    /// Pairs by the size that their images are cut to, `WIDTHxHEIGHT`.
    pub sizes: BTreeMap<String, usize>,
    /// Share of each image's pixels that is cut off when it is cut in the middle.
    pub lost: NumberSummary,
}

impl fmt::Display for ImageSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ties_kept, mixed_sizes, enlarged, sizes, lost } = self;
        let lists = [
            ("ties that are kept, the first image as chosen", ties_kept),
            ("images of different sizes in a pair", mixed_sizes),
            ("images that are enlarged", enlarged),
        ];
        for (what, rows) in lists.into_iter().filter(|(_, rows)| rows.count > 0) {
            write!(f, "\n  {what}: {rows}")?;
        }
        if !sizes.is_empty() {
            let sizes: Vec<_> = sizes.iter().map(|(size, pairs)| format!("{size} ({pairs})")).collect();
            write!(f, "\n  pairs by the size they are cut to: {}", sizes.join(", "))?;
        }
        if lost.max > 0.0 {
            let [mean, most] = [lost.mean, lost.max].map(|share| 100.0 * share);
            write!(f, "\n  of an image {mean:.1} % is cut off on average, {most:.1} % at most")?;
        }
        Ok(())
    }
}

/// What became of every row of a data set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataReport {
    /// The file, or what stands for several.
    pub file: PathBuf,
    /// Name of the layout that the rows were read in; none if they were made in this process.
    pub format: Option<String>,
    /// Rows in the files.
    pub rows_read: usize,
    /// Records made of them: pairs or labelled completions. A ranked list makes several, a tie none.
    pub records: usize,
    /// Records that will be trained on.
    pub rows_kept: usize,
    /// Rejected or undesirable completions of admitted records, if the objective reads none.
    pub completions_not_read: usize,
    /// Records left out, by reason.
    pub dropped: BTreeMap<RowProblem, RowList>,
    /// Rows that lost tokens at the end.
    pub truncated: RowList,
    /// Tokens they lost, both completions counted.
    pub truncated_tokens: usize,
    /// Rows whose prompt is not a token prefix of prompt and completion, so that the end of it was left out.
    pub boundary_repairs: RowList,
    /// Prompt tokens left out by those.
    pub boundary_tokens: usize,
    /// Rows whose prompt begins with the beginning-of-text token twice.
    pub doubled_bos: RowList,
    /// Rows with a completion that holds no token at which generation stops; a model trained on many of them does
    /// not learn to stop.
    pub without_stop_token: RowList,
    /// Weights of the records kept.
    pub weights: NumberSummary,
    /// Margins of the records kept.
    pub margins: NumberSummary,
    /// Columns that are not read, with the number of rows that have them.
    pub ignored_columns: BTreeMap<String, usize>,
    /// Lengths of the rows kept.
    pub lengths: LengthSummary,
    /// The images of the rows kept.
    #[serde(default)]
    pub images: ImageSummary,
}

impl DataReport {
    /// The report on records of which nothing is known yet but how they were read.
    pub(crate) fn of<T>(records: &Records<T>) -> Self {
        Self {
            file: records.file.clone(),
            format: records.format.map(str::to_owned),
            rows_read: records.rows_read,
            records: records.rows.len(),
            ignored_columns: records.ignored_columns.clone(),
            ..Self::default()
        }
    }

    /// The report on records that are not tokenized: only what reading them showed.
    ///
    /// # Errors
    /// If there is no record.
    pub fn untokenized<T>(records: &Records<T>) -> Result<Self> {
        let mut report = Self { rows_kept: records.rows.len(), ..Self::of(records) };
        records.refused.iter().for_each(|refused| report.drop_row(refused.problem, refused.row));
        report.require_rows()?;
        Ok(report)
    }

    pub(crate) fn count_numbers(&mut self, numbers: RowNumbers) {
        numbers.weight.into_iter().for_each(|weight| self.weights.add(weight));
        numbers.margin.into_iter().for_each(|margin| self.margins.add(margin));
    }

    /// Records left out, for any reason.
    #[must_use]
    pub fn rows_dropped(&self) -> usize {
        self.dropped.values().map(|rows| rows.count).sum()
    }

    pub(crate) fn drop_row(&mut self, problem: RowProblem, row: usize) {
        self.dropped.entry(problem).or_default().push(row);
    }

    /// Fails if no row was kept, naming the reasons.
    pub(crate) fn require_rows(&self) -> Result<()> {
        if self.rows_kept > 0 {
            return Ok(());
        }
        let reasons: Vec<_> =
            self.dropped.iter().map(|(problem, rows)| format!("{problem}: {rows}")).collect();
        Err(DataError::NoRows {
            file: self.file.clone(),
            read: self.rows_read,
            dropped: self.rows_dropped(),
            reasons: if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) },
        })
    }
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.format.as_ref().map_or_else(String::new, |format| format!(" as {format}"));
        let made = if self.records == self.rows_read {
            String::new()
        } else {
            format!("{} records made, ", self.records)
        };
        let (file, read, kept) = (self.file.display(), self.rows_read, self.rows_kept);
        write!(f, "{file}: {read} rows read{format}, {made}{kept} kept")?;
        for (problem, rows) in &self.dropped {
            write!(f, "\n  dropped, {problem}: {rows}")?;
        }
        if self.truncated.count > 0 {
            write!(f, "\n  truncated: {}, {} tokens lost", self.truncated, self.truncated_tokens)?;
        }
        if self.boundary_repairs.count > 0 {
            let (rows, tokens) = (&self.boundary_repairs, self.boundary_tokens);
            write!(
                f,
                "\n  prompt is no token prefix of prompt and completion: {rows}, {tokens} tokens left out"
            )?;
        }
        if self.doubled_bos.count > 0 {
            write!(f, "\n  beginning-of-text token twice: {}", self.doubled_bos)?;
        }
        if self.without_stop_token.count > 0 {
            write!(f, "\n  completion without a stop token: {}", self.without_stop_token)?;
        }
        if self.completions_not_read > 0 {
            let count = self.completions_not_read;
            write!(f, "\n  rejected or undesirable completions, which the objective does not read: {count}")?;
        }
        if self.weights.count > 0 {
            write!(f, "\n  weight: {}; a row's loss is multiplied by it", self.weights)?;
        }
        if self.margins.count > 0 {
            write!(f, "\n  margin: {}; carried with the rows, for objectives that read it", self.margins)?;
        }
        write!(f, "{}", self.images)?;
        if !self.ignored_columns.is_empty() {
            let names: Vec<_> =
                self.ignored_columns.iter().map(|(name, n)| format!("{name} ({n})")).collect();
            write!(f, "\n  columns not read: {}", names.join(", "))?;
        }
        if self.lengths.sequences > 0 {
            let LengthSummary { sequences, prompt_tokens, completion_tokens, longest, longest_row } =
                self.lengths;
            write!(
                f,
                "\n  {sequences} sequences: {prompt_tokens} prompt tokens, {completion_tokens} completion tokens, \
                 the longest {longest} tokens (row {longest_row})"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn report() -> DataReport {
        let mut records = Records::new("pairs.jsonl", vec![(); 9]);
        records.ignored_columns.insert("score".to_owned(), 9);
        let mut report = DataReport::of(&records);
        (1..=7).for_each(|row| report.drop_row(RowProblem::EmptyCompletion, row));
        report.truncated.push(8);
        report.truncated_tokens = 12;
        report.rows_kept = 2;
        report
    }

    #[test]
    fn the_text_names_every_count() {
        let text = report().to_string();
        assert_eq!(
            text,
            "pairs.jsonl: 9 rows read, 2 kept\n  dropped, empty completion: 7 (row 1, 2, 3, 4, 5, …)\n  \
             truncated: 1 (row 8), 12 tokens lost\n  columns not read: score (9)"
        );
    }

    #[test]
    fn a_report_survives_json() {
        let json = serde_json::to_string(&report()).unwrap();
        assert!(json.contains(r#""empty-completion":{"count":7"#), "{json}");
        assert_eq!(serde_json::from_str::<DataReport>(&json).unwrap(), report());
    }

    #[test]
    fn no_row_left_is_an_error_with_reasons() {
        let mut report = report();
        report.rows_kept = 0;
        let message = report.require_rows().unwrap_err().to_string();
        assert!(message.contains("9 read, 7 dropped (empty completion: 7"), "{message}");
    }
}
