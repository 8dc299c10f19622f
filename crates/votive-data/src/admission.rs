//! Which tokenized rows are admitted, what is cut from them, and the count of both.
//!
//! Source: TRL 1.16 drops rows whose prompt alone fills the context and cuts prompt and completion together at the end
//! (`keep_start`); this is [`LongRows::Truncate`].
//!
//! Departures: TRL does so in silence; here it must be asked for and is counted. Rows with nothing to learn from are
//! refused or counted, where TRL trains on them.

use std::ops::Range;

use crate::error::{DataError, Result};
use crate::read::Records;
use crate::record::RowNumbers;
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
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) problem: RowProblem,
    pub(crate) detail: String,
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

/// The tokens of a prompt or of prompt and completion, with the spans that others than the assistant said.
#[derive(Clone, Default)]
pub(crate) struct Sequence {
    pub(crate) ids: Vec<u32>,
    pub(crate) untrained: Vec<Range<usize>>,
}

impl From<Vec<u32>> for Sequence {
    fn from(ids: Vec<u32>) -> Self {
        Self { ids, untrained: Vec::new() }
    }
}

impl Sequence {
    /// Tokens that are trained.
    pub(crate) fn trained(&self) -> usize {
        self.ids.len() - self.untrained.iter().map(Range::len).sum::<usize>()
    }

    /// The tokens from `start` on.
    fn starting_at(self, start: usize) -> Self {
        let untrained = self.untrained.into_iter();
        let shifted = untrained.map(|span| span.start.max(start) - start..span.end.max(start) - start);
        let untrained = shifted.filter(|span| !span.is_empty()).collect();
        Self { ids: self.ids[start..].to_vec(), untrained }
    }

    /// Keeps the first `length` tokens, and returns how many were lost.
    pub(crate) fn cut(&mut self, length: usize) -> usize {
        let lost = self.ids.len().saturating_sub(length);
        self.ids.truncate(length);
        self.untrained.iter_mut().for_each(|span| *span = span.start.min(length)..span.end.min(length));
        self.untrained.retain(|span| !span.is_empty());
        lost
    }
}

/// A prompt and N completions that follow it.
#[derive(Clone)]
pub(crate) struct Split<const N: usize> {
    pub(crate) prompt: Vec<u32>,
    pub(crate) completions: [Sequence; N],
    /// Tokens at the end of the tokenized prompt that are in no sequence.
    pub(crate) left_out: Vec<u32>,
}

impl Split<2> {
    /// One completion after two prompts: the prompt is what both begin with, and the rest of each is not trained.
    pub(crate) fn of_two_prompts(chosen: Split<1>, rejected: Split<1>) -> Verdict<2> {
        let shared = common_prefix_length(&chosen.prompt, &rejected.prompt);
        if chosen.prompt == rejected.prompt {
            return Err(RowProblem::ChosenEqualsRejected.into());
        }
        if shared == 0 {
            return Err(RowProblem::NoSharedPrompt.into());
        }
        let prompt = chosen.prompt[..shared].to_vec();
        let left_out = chosen.left_out.clone();
        let completions = [chosen, rejected].map(|Split { prompt, completions: [one], .. }| {
            let rest = &prompt[shared..];
            let before = (!rest.is_empty()).then_some(0..rest.len());
            let after = one.untrained.iter().map(|span| span.start + rest.len()..span.end + rest.len());
            Sequence { untrained: before.into_iter().chain(after).collect(), ids: [rest, &one.ids].concat() }
        });
        Ok(Self { prompt, completions, left_out })
    }
}

impl<const N: usize> Split<N> {
    /// Splits N sequences of prompt and completion where the first of them departs from the prompt.
    pub(crate) fn at_boundary(mut prompt: Vec<u32>, full: [Sequence; N]) -> Verdict<N> {
        let boundary =
            full.iter().map(|one| common_prefix_length(&prompt, &one.ids)).min().unwrap_or(prompt.len());
        let left_out = prompt.split_off(boundary);
        let completions = full.map(|one| one.starting_at(boundary));
        if let Some(problem) = problem_of(&completions.each_ref().map(|one| &one.ids), |ids| ids.is_empty()) {
            return Err(problem.into());
        }
        if completions.iter().any(|one| one.trained() == 0) {
            return Err(RowProblem::NothingTrained.into());
        }
        if prompt.is_empty() {
            return Err(RowProblem::EmptyPrompt.into());
        }
        Ok(Self { prompt, completions, left_out })
    }

    /// What is wrong with the length of the row under a policy that does not truncate; the prompt's is under any.
    pub(crate) fn length_fault(&self, policy: RowPolicy) -> Option<Fault> {
        let max_length = policy.max_length?;
        let prompt = self.prompt.len();
        if prompt >= max_length {
            let detail = format!(" ({prompt} tokens, the context holds {max_length})");
            return Some(Fault::new(RowProblem::PromptTooLong, detail));
        }
        let longest = prompt + self.completions.iter().map(|one| one.ids.len()).max().unwrap_or(0);
        let is_too_long = longest > max_length && policy.long_rows != LongRows::Truncate;
        let detail = format!(" ({longest} tokens, the context holds {max_length})");
        is_too_long.then(|| Fault::new(RowProblem::TooLong, detail))
    }

    /// Cuts every sequence to `max_length` tokens, which the prompt does not fill; returns how many were lost, or
    /// what is wrong with what is left.
    fn truncate(&mut self, max_length: usize) -> std::result::Result<usize, Fault> {
        let room = max_length - self.prompt.len();
        let lost = self.completions.iter_mut().map(|one| one.cut(room)).sum();
        let ids = self.completions.each_ref().map(|one| &one.ids);
        if lost > 0 && problem_of(&ids, |ids| ids.is_empty()).is_some() {
            return Err(RowProblem::EqualAfterTruncation.into());
        }
        if lost > 0 && self.completions.iter().any(|one| one.trained() == 0) {
            return Err(RowProblem::NothingTrained.into());
        }
        Ok(lost)
    }
}

/// Applies the policy to every row, in order, and makes a `U` of each row that is admitted.
pub(crate) fn admit<T, U, const N: usize>(
    tokenizer: &TextTokenizer,
    policy: RowPolicy,
    records: &Records<T>,
    verdicts: Vec<Result<Verdict<N>>>,
    about: impl Fn(&T) -> (usize, RowNumbers),
    make: impl Fn(&T, Split<N>) -> U,
) -> Result<(Vec<U>, DataReport)> {
    let mut admission = Admission { tokenizer, policy, records, report: DataReport::of(records) };
    admission.count_refused()?;
    let mut admitted = Vec::with_capacity(verdicts.len());
    for (record, verdict) in records.rows.iter().zip(verdicts) {
        let (row, numbers) = about(record);
        let verdict = verdict.map_err(|error| {
            let (file, row) = records.place(row);
            error.in_row(file, row)
        })?;
        if let Some(split) = admission.admit(row, verdict)? {
            admission.report.count_numbers(numbers);
            admitted.push(make(record, split));
        }
    }
    admission.report.rows_kept = admitted.len();
    admission.report.require_rows()?;
    Ok((admitted, admission.report))
}

/// The policy at work, row after row.
struct Admission<'a, T> {
    tokenizer: &'a TextTokenizer,
    policy: RowPolicy,
    records: &'a Records<T>,
    report: DataReport,
}

impl<T> Admission<'_, T> {
    /// Rows that gave no record when they were read.
    fn count_refused(&mut self) -> Result<()> {
        let may_drop = self.policy.faulty_rows == FaultyRows::Drop;
        for refused in &self.records.refused {
            let fault = Fault::new(refused.problem, refused.detail);
            self.reject(refused.row, fault, may_drop || refused.problem.is_expected())?;
        }
        Ok(())
    }

    fn admit<const N: usize>(&mut self, row: usize, verdict: Verdict<N>) -> Result<Option<Split<N>>> {
        let mut split = match verdict {
            Ok(split) => split,
            Err(fault) => {
                self.reject(row, fault, self.policy.faulty_rows == FaultyRows::Drop)?;
                return Ok(None);
            }
        };
        let stops = self.stops(&split);
        if let Some(fault) = split.length_fault(self.policy) {
            self.reject(row, fault, self.policy.long_rows != LongRows::Error)?;
            return Ok(None);
        }
        if let Some(max_length) = self.policy.max_length {
            match split.truncate(max_length) {
                Ok(0) => {}
                Ok(lost) => {
                    self.report.truncated.push(row);
                    self.report.truncated_tokens += lost;
                }
                Err(fault) => {
                    self.reject(row, fault, true)?;
                    return Ok(None);
                }
            }
        }
        self.count(row, &split, stops);
        Ok(Some(split))
    }

    fn reject(&mut self, row: usize, Fault { problem, detail }: Fault, may_drop: bool) -> Result<()> {
        if !may_drop {
            let (file, row) = self.records.place(row);
            return Err(DataError::Row { file: file.to_owned(), row, problem, detail });
        }
        self.report.drop_row(problem, row);
        Ok(())
    }

    /// True if every completion holds a token at which generation stops.
    fn stops<const N: usize>(&self, split: &Split<N>) -> bool {
        let stop_ids = self.tokenizer.stop_ids();
        split.completions.iter().all(|one| one.ids.iter().any(|id| stop_ids.contains(id)))
    }

    fn count<const N: usize>(&mut self, row: usize, split: &Split<N>, stops: bool) {
        let report = &mut self.report;
        if !split.left_out.is_empty() {
            report.boundary_repairs.push(row);
            report.boundary_tokens += split.left_out.len();
        }
        if self.tokenizer.bos_id().is_some_and(|bos| split.prompt.starts_with(&[bos, bos])) {
            report.doubled_bos.push(row);
        }
        if !stops {
            report.without_stop_token.push(row);
        }
        for completion in &split.completions {
            report.lengths.add(split.prompt.len(), completion, row);
        }
    }
}
