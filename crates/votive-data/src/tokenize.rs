//! From records to token ids: where the completion starts, which rows are admitted, what is cut.
//!
//! Source: TRL 1.16, `DPOTrainer._prepare_dataset` and `KTOTrainer._prepare_dataset`. Prompt, prompt + chosen and
//! prompt + rejected are tokenized separately; the completion starts at the first token in which they differ, which is
//! the end of the prompt unless tokens merge across it. Plain strings get the end-of-text token appended unless they
//! end with it; conversations end as the template ends them.
//!
//! Departures: a pair of strings without a prompt is split at the last word that both begin with, where TRL splits
//! between two characters; rows with nothing to learn from are refused or counted, where TRL keeps them; rows that are
//! too long are an error unless the policy says otherwise, where TRL cuts them in silence.

use std::path::Path;

use rayon::prelude::*;

use crate::error::{DataError, Result};
use crate::read::Records;
use crate::record::{ChatOptions, Completion, Message, PairText, PreferencePair, UnpairedExample};
use crate::report::{DataReport, FaultyRows, LongRows, RowPolicy, RowProblem};
use crate::tokenizer::TextTokenizer;

/// Token ids of a preference pair; a sequence is the prompt followed by one of the completions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizedPair {
    /// x; never empty.
    pub prompt_ids: Vec<u32>,
    /// y_w; never empty.
    pub chosen_ids: Vec<u32>,
    /// y_l; never empty, never equal to y_w.
    pub rejected_ids: Vec<u32>,
    /// Number of the row in its file, counted from 1.
    pub row: usize,
}

impl TokenizedPair {
    /// The pair as a desirable and an undesirable example.
    #[must_use]
    pub fn unpair(self) -> [TokenizedUnpaired; 2] {
        let Self { prompt_ids, chosen_ids, rejected_ids, row } = self;
        let desirable =
            TokenizedUnpaired { prompt_ids: prompt_ids.clone(), completion_ids: chosen_ids, label: true, row };
        [desirable, TokenizedUnpaired { prompt_ids, completion_ids: rejected_ids, label: false, row }]
    }
}

/// Token ids of an unpaired example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizedUnpaired {
    /// x; never empty.
    pub prompt_ids: Vec<u32>,
    /// y; never empty.
    pub completion_ids: Vec<u32>,
    /// True if the completion is desirable.
    pub label: bool,
    /// Number of the row in its file, counted from 1.
    pub row: usize,
}

/// Number of leading tokens that two sequences share.
#[must_use]
pub fn common_prefix_length(ids: &[u32], other_ids: &[u32]) -> usize {
    ids.iter().zip(other_ids).take_while(|(id, other)| id == other).count()
}

impl TextTokenizer {
    /// Tokenizes preference pairs, in the order of the file, on all cores.
    ///
    /// # Errors
    /// If a row has a problem and the policy is to stop; if the tokenizer or the chat template fails on a row; if no
    /// row is left. The first such row is named.
    pub fn tokenize_pairs(
        &self,
        records: &Records<PreferencePair>,
        policy: RowPolicy,
    ) -> Result<(Vec<TokenizedPair>, DataReport)> {
        let verdicts = records.rows.par_iter().map(|pair| (pair.row, self.split_pair(pair))).collect();
        let (splits, report) = self.admit_rows(records, verdicts, policy)?;
        let pair = |(row, Split { prompt: prompt_ids, mut completions, .. }): (usize, Split<2>)| {
            let [chosen_ids, rejected_ids] = completions.each_mut().map(std::mem::take);
            TokenizedPair { prompt_ids, chosen_ids, rejected_ids, row }
        };
        Ok((splits.into_iter().map(pair).collect(), report))
    }

    /// Tokenizes unpaired examples, in the order of the file, on all cores.
    ///
    /// # Errors
    /// As [`tokenize_pairs`](Self::tokenize_pairs).
    pub fn tokenize_unpaired(
        &self,
        records: &Records<UnpairedExample>,
        policy: RowPolicy,
    ) -> Result<(Vec<TokenizedUnpaired>, DataReport)> {
        let verdicts = records.rows.par_iter().map(|one| (one.row, self.split_unpaired(one))).collect();
        let (splits, report) = self.admit_rows(records, verdicts, policy)?;
        let labels: std::collections::BTreeMap<_, _> = records.rows.iter().map(|one| (one.row, one.label)).collect();
        let example = |(row, Split { prompt: prompt_ids, completions: [completion_ids], .. }): (usize, Split<1>)| {
            let label = labels.get(&row).copied().unwrap_or_default();
            TokenizedUnpaired { prompt_ids, completion_ids, label, row }
        };
        Ok((splits.into_iter().map(example).collect(), report))
    }

    fn split_pair(&self, pair: &PreferencePair) -> Result<Verdict<2>> {
        match &pair.text {
            PairText::Plain { prompt, chosen, rejected } => self.split_plain(prompt, [chosen, rejected]),
            PairText::Implicit { chosen, rejected } => self.split_implicit(chosen, rejected),
            PairText::Chat { prompt, chosen, rejected, options } => {
                self.split_chat(prompt, [chosen, rejected], options)
            }
        }
    }

    fn split_unpaired(&self, example: &UnpairedExample) -> Result<Verdict<1>> {
        match &example.text {
            Completion::Plain { prompt, completion } => self.split_plain(prompt, [completion]),
            Completion::Chat { prompt, completion, options } => self.split_chat(prompt, [completion], options),
        }
    }

    fn split_plain<const N: usize>(&self, prompt: &str, completions: [&String; N]) -> Result<Verdict<N>> {
        if let Some(problem) = problem_of(&completions, |completion| completion.is_empty()) {
            return Ok(Err(problem.into()));
        }
        let eos = self.eos_token()?;
        let prompt_ids = self.encode(prompt, true)?;
        let mut full_ids = completions.map(|_| Vec::new());
        for (ids, completion) in full_ids.iter_mut().zip(completions) {
            *ids = self.encode(&with_eos(&format!("{prompt}{completion}"), completion, eos), true)?;
        }
        Ok(Split::at_boundary(prompt_ids, full_ids))
    }

    fn split_chat<const N: usize>(
        &self,
        prompt: &[Message],
        completions: [&Vec<Message>; N],
        options: &ChatOptions,
    ) -> Result<Verdict<N>> {
        if let Some(problem) = problem_of(&completions, |turns| turns.iter().all(Message::is_empty)) {
            return Ok(Err(problem.into()));
        }
        if prompt.is_empty() {
            return Ok(Err(Fault::new(RowProblem::EmptyPrompt, " (no turn stands before the completion)")));
        }
        let prompt_ids = self.encode_chat(prompt, true, options)?;
        let mut full_ids = completions.map(|_| Vec::new());
        for (ids, completion) in full_ids.iter_mut().zip(completions) {
            *ids = self.encode_chat(&[prompt, completion].concat(), false, options)?;
        }
        Ok(Split::at_boundary(prompt_ids, full_ids))
    }

    /// Splits two strings after the last whole word that both begin with.
    fn split_implicit(&self, chosen: &str, rejected: &str) -> Result<Verdict<2>> {
        if let Some(problem) = problem_of(&[chosen, rejected], |text| text.is_empty()) {
            return Ok(Err(problem.into()));
        }
        let eos = self.eos_token()?;
        let (chosen, rejected) = (with_eos(chosen, chosen, eos), with_eos(rejected, rejected, eos));
        let (chosen_ids, chosen_starts) = self.encode_with_starts(&chosen)?;
        let (rejected_ids, rejected_starts) = self.encode_with_starts(&rejected)?;
        let begins_word = |idx: &usize| {
            let at = |text: &str, starts: &[usize]| starts.get(*idx).is_some_and(|start| is_word_start(text, *start));
            at(&chosen, &chosen_starts) && at(&rejected, &rejected_starts)
        };
        let common = common_prefix_length(&chosen_ids, &rejected_ids);
        Ok(match (1..=common).rev().find(begins_word) {
            Some(boundary) => Split::at_boundary(chosen_ids[..boundary].to_vec(), [chosen_ids, rejected_ids]),
            None => Err(RowProblem::NoSharedPrompt.into()),
        })
    }

    /// Applies the policy to every row, in order.
    fn admit_rows<T, const N: usize>(
        &self,
        records: &Records<T>,
        verdicts: Vec<(usize, Result<Verdict<N>>)>,
        policy: RowPolicy,
    ) -> Result<(Vec<(usize, Split<N>)>, DataReport)> {
        let report = DataReport::new(&records.file, records.rows.len(), &records.ignored_columns);
        let mut admission = Admission { tokenizer: self, policy, report };
        let mut splits = Vec::with_capacity(verdicts.len());
        for (row, verdict) in verdicts {
            let verdict = verdict.map_err(|error| error.in_row(&records.file, row))?;
            splits.extend(admission.admit(&records.file, row, verdict)?.map(|split| (row, split)));
        }
        admission.report.rows_kept = splits.len();
        admission.report.require_rows()?;
        Ok((splits, admission.report))
    }
}

/// `text`, which ends with `completion`, with the end-of-text token unless the completion brings it.
fn with_eos(text: &str, completion: &str, eos: &str) -> String {
    if completion.ends_with(eos) { text.to_owned() } else { format!("{text}{eos}") }
}

/// True if a word begins at byte `at`, after something else.
fn is_word_start(text: &str, at: usize) -> bool {
    let (Some(before), Some(after)) = (text.get(..at), text.get(at..)) else { return false };
    !before.trim().is_empty() && (before.ends_with(char::is_whitespace) || after.starts_with(char::is_whitespace))
}

/// What can be said of completions before they are tokenized.
fn problem_of<T: PartialEq>(completions: &[T], is_empty: impl Fn(&T) -> bool) -> Option<RowProblem> {
    if completions.windows(2).any(|two| two[0] == two[1]) {
        Some(RowProblem::ChosenEqualsRejected)
    } else {
        completions.iter().any(is_empty).then_some(RowProblem::EmptyCompletion)
    }
}

/// A problem with the numbers behind it.
struct Fault {
    problem: RowProblem,
    detail: String,
}

impl Fault {
    fn new(problem: RowProblem, detail: impl Into<String>) -> Self {
        Self { problem, detail: detail.into() }
    }
}

impl From<RowProblem> for Fault {
    fn from(problem: RowProblem) -> Self {
        Self::new(problem, "")
    }
}

type Verdict<const N: usize> = std::result::Result<Split<N>, Fault>;

/// A prompt and N completions that follow it.
struct Split<const N: usize> {
    prompt: Vec<u32>,
    completions: [Vec<u32>; N],
    /// Tokens at the end of the tokenized prompt that are in no sequence.
    left_out: usize,
}

impl<const N: usize> Split<N> {
    /// Splits N sequences of prompt and completion where the first of them departs from the prompt.
    fn at_boundary(mut prompt: Vec<u32>, full: [Vec<u32>; N]) -> Verdict<N> {
        let boundary = full.iter().map(|ids| common_prefix_length(&prompt, ids)).min().unwrap_or(prompt.len());
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

/// The policy at work, row after row.
struct Admission<'a> {
    tokenizer: &'a TextTokenizer,
    policy: RowPolicy,
    report: DataReport,
}

impl Admission<'_> {
    fn admit<const N: usize>(&mut self, file: &Path, row: usize, verdict: Verdict<N>) -> Result<Option<Split<N>>> {
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
