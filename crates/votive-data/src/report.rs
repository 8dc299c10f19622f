//! What to do with rows that cannot be used as they are, and the account of what was done.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};

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

/// How rows are admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowPolicy {
    /// Tokens of prompt and completion together that a row may have; `None` is no limit.
    pub max_length: Option<usize>,
    /// For rows over `max_length`.
    pub long_rows: LongRows,
    /// For rows with nothing to learn from.
    pub faulty_rows: FaultyRows,
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
            Self::EqualAfterTruncation => "raise max_length",
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
        }
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
    pub(crate) fn add(&mut self, prompt: usize, completion: usize, row: usize) {
        self.sequences += 1;
        self.prompt_tokens += prompt;
        self.completion_tokens += completion;
        if prompt + completion > self.longest {
            self.longest = prompt + completion;
            self.longest_row = row;
        }
    }
}

/// What became of every row of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataReport {
    /// The file.
    pub file: PathBuf,
    /// Rows in the file.
    pub rows_read: usize,
    /// Rows that will be trained on.
    pub rows_kept: usize,
    /// Rows left out, by reason.
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
    /// Columns that are not read, with the number of rows that have them.
    pub ignored_columns: BTreeMap<String, usize>,
    /// Lengths of the rows kept.
    pub lengths: LengthSummary,
}

impl DataReport {
    pub(crate) fn new(file: &Path, rows_read: usize, ignored_columns: &BTreeMap<String, usize>) -> Self {
        Self { file: file.to_owned(), rows_read, ignored_columns: ignored_columns.clone(), ..Self::default() }
    }

    /// Rows left out, for any reason.
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
        write!(f, "{}: {} rows read, {} kept", self.file.display(), self.rows_read, self.rows_kept)?;
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
        let mut report =
            DataReport::new(Path::new("pairs.jsonl"), 9, &BTreeMap::from([("score".to_owned(), 9)]));
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
