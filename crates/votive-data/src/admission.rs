//! Which tokenized rows are admitted, what is cut from them, and the count of both.
//!
//! Source: TRL 1.16 drops rows whose prompt alone fills the context and cuts prompt and completion together at the end
//! (`keep_start`); this is [`LongRows::Truncate`].
//!
//! Departures: TRL does so in silence; here it must be asked for and is counted. Rows with nothing to learn from are
//! refused or counted, where TRL trains on them.

use std::path::Path;

use crate::error::{DataError, Result};
use crate::read::Records;
use crate::report::{DataReport, FaultyRows, LongRows, RowPolicy, RowProblem};
use crate::tokenize::common_prefix_length;
use crate::tokenizer::TextTokenizer;

/// What can be said of completions before they are tokenized.
pub(crate) fn problem_of<T: PartialEq>(
    completions: &[T],
    is_empty: impl Fn(&T) -> bool,
) -> Option<RowProblem> {
    if completions.windows(2).any(|two| two[0] == two[1]) {
        Some(RowProblem::ChosenEqualsRejected)
    } else {
        completions.iter().any(is_empty).then_some(RowProblem::EmptyCompletion)
    }
}

/// A problem with the numbers behind it.
pub(crate) struct Fault {
    problem: RowProblem,
    detail: String,
}

impl Fault {
    pub(crate) fn new(problem: RowProblem, detail: impl Into<String>) -> Self {
        Self { problem, detail: detail.into() }
    }
}

impl From<RowProblem> for Fault {
    fn from(problem: RowProblem) -> Self {
        Self::new(problem, "")
    }
}

pub(crate) type Verdict<const N: usize> = std::result::Result<Split<N>, Fault>;

/// A prompt and N completions that follow it.
pub(crate) struct Split<const N: usize> {
    pub(crate) prompt: Vec<u32>,
    pub(crate) completions: [Vec<u32>; N],
    /// Tokens at the end of the tokenized prompt that are in no sequence.
    left_out: usize,
}

impl<const N: usize> Split<N> {
    /// Splits N sequences of prompt and completion where the first of them departs from the prompt.
    pub(crate) fn at_boundary(mut prompt: Vec<u32>, full: [Vec<u32>; N]) -> Verdict<N> {
        let boundary =
            full.iter().map(|ids| common_prefix_length(&prompt, ids)).min().unwrap_or(prompt.len());
        let left_out = prompt.len() - boundary;
        prompt.truncate(boundary);
        let completions = full.map(|mut ids| ids.split_off(boundary));
        if let Some(problem) = problem_of(&completions, Vec::is_empty) {
            return Err(problem.into());
        }
        if prompt.is_empty() {
            return Err(RowProblem::EmptyPrompt.into());
        }
        Ok(Self { prompt, completions, left_out })
    }

    fn longest(&self) -> usize {
        self.prompt.len() + self.completions.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Cuts every sequence to `max_length` tokens and returns how many were lost.
    fn truncate(&mut self, max_length: usize) -> usize {
        let room = max_length - self.prompt.len();
        let cut = |ids: &mut Vec<u32>| {
            let lost = ids.len().saturating_sub(room);
            ids.truncate(room);
            lost
        };
        self.completions.iter_mut().map(cut).sum()
    }
}

/// Applies the policy to every row, in order, and makes a `U` of each row that is admitted.
pub(crate) fn admit<T, U, const N: usize>(
    tokenizer: &TextTokenizer,
    policy: RowPolicy,
    records: &Records<T>,
    verdicts: Vec<Result<Verdict<N>>>,
    row_of: impl Fn(&T) -> usize,
    make: impl Fn(&T, Split<N>) -> U,
) -> Result<(Vec<U>, DataReport)> {
    let report = DataReport::new(&records.file, records.rows.len(), &records.ignored_columns);
    let mut admission = Admission { tokenizer, policy, report };
    let mut admitted = Vec::with_capacity(verdicts.len());
    for (record, verdict) in records.rows.iter().zip(verdicts) {
        let row = row_of(record);
        let verdict = verdict.map_err(|error| error.in_row(&records.file, row))?;
        admitted.extend(admission.admit(&records.file, row, verdict)?.map(|split| make(record, split)));
    }
    admission.report.rows_kept = admitted.len();
    admission.report.require_rows()?;
    Ok((admitted, admission.report))
}

/// The policy at work, row after row.
struct Admission<'a> {
    tokenizer: &'a TextTokenizer,
    policy: RowPolicy,
    report: DataReport,
}

impl Admission<'_> {
    fn admit<const N: usize>(
        &mut self,
        file: &Path,
        row: usize,
        verdict: Verdict<N>,
    ) -> Result<Option<Split<N>>> {
        let mut split = match verdict {
            Ok(split) => split,
            Err(fault) => return self.reject(file, row, fault, self.policy.faulty_rows == FaultyRows::Drop),
        };
        let stops = self.stops(&split);
        if let Some(max_length) = self.policy.max_length {
            let (prompt, longest) = (split.prompt.len(), split.longest());
            let may_drop = self.policy.long_rows != LongRows::Error;
            if prompt >= max_length {
                let detail = format!(" ({prompt} tokens, the context holds {max_length})");
                return self.reject(file, row, Fault::new(RowProblem::PromptTooLong, detail), may_drop);
            }
            if longest > max_length && self.policy.long_rows == LongRows::Truncate {
                let lost = split.truncate(max_length);
                if problem_of(&split.completions, Vec::is_empty).is_some() {
                    return self.reject(file, row, RowProblem::EqualAfterTruncation.into(), true);
                }
                self.report.truncated.push(row);
                self.report.truncated_tokens += lost;
            } else if longest > max_length {
                let detail = format!(" ({longest} tokens, the context holds {max_length})");
                return self.reject(file, row, Fault::new(RowProblem::TooLong, detail), may_drop);
            }
        }
        self.count(row, &split, stops);
        Ok(Some(split))
    }

    fn reject<const N: usize>(
        &mut self,
        file: &Path,
        row: usize,
        Fault { problem, detail }: Fault,
        may_drop: bool,
    ) -> Result<Option<Split<N>>> {
        if !may_drop {
            return Err(DataError::Row { file: file.to_owned(), row, problem, detail });
        }
        self.report.drop_row(problem, row);
        Ok(None)
    }

    /// True if every completion holds a token at which generation stops.
    fn stops<const N: usize>(&self, split: &Split<N>) -> bool {
        let stop_ids = self.tokenizer.stop_ids();
        split.completions.iter().all(|ids| ids.iter().any(|id| stop_ids.contains(id)))
    }

    fn count<const N: usize>(&mut self, row: usize, split: &Split<N>, stops: bool) {
        let report = &mut self.report;
        if split.left_out > 0 {
            report.boundary_repairs.push(row);
            report.boundary_tokens += split.left_out;
        }
        if self.tokenizer.bos_id().is_some_and(|bos| split.prompt.starts_with(&[bos, bos])) {
            report.doubled_bos.push(row);
        }
        if !stops {
            report.without_stop_token.push(row);
        }
        for completion in &split.completions {
            report.lengths.add(split.prompt.len(), completion.len(), row);
        }
    }
}
