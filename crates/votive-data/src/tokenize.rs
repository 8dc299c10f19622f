//! From records to token ids: where the completion starts.
//!
//! Source: TRL 1.16, `DPOTrainer._prepare_dataset` and `KTOTrainer._prepare_dataset`. Prompt, prompt + chosen and
//! prompt + rejected are tokenized separately; the completion starts at the first token in which they differ, which is
//! the end of the prompt unless tokens merge across it. Plain strings get the end-of-text token appended unless they
//! end with it; conversations end as the template ends them.
//!
//! Departures: a pair of strings without a prompt is split after the last whole word that both begin with, where TRL
//! splits between two characters, and refused if there is none.

use rayon::prelude::*;

use crate::admission::{self, Fault, Split, Verdict, problem_of};
use crate::error::Result;
use crate::read::Records;
use crate::record::{ChatOptions, Completion, Message, PairText, PreferencePair, UnpairedExample};
use crate::report::{DataReport, RowPolicy, RowProblem};
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
        let desirable = TokenizedUnpaired {
            prompt_ids: prompt_ids.clone(),
            completion_ids: chosen_ids,
            label: true,
            row,
        };
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
        let verdicts = records.rows.par_iter().map(|pair| self.split_pair(pair)).collect();
        admission::admit(
            self,
            policy,
            records,
            verdicts,
            |pair| pair.row,
            |pair, split| {
                let Split { prompt: prompt_ids, completions: [chosen_ids, rejected_ids], .. } = split;
                TokenizedPair { prompt_ids, chosen_ids, rejected_ids, row: pair.row }
            },
        )
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
        let verdicts = records.rows.par_iter().map(|one| self.split_unpaired(one)).collect();
        admission::admit(
            self,
            policy,
            records,
            verdicts,
            |one| one.row,
            |one, split| {
                let Split { prompt: prompt_ids, completions: [completion_ids], .. } = split;
                TokenizedUnpaired { prompt_ids, completion_ids, label: one.label, row: one.row }
            },
        )
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
            Completion::Chat { prompt, completion, options } => {
                self.split_chat(prompt, [completion], options)
            }
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
            let at = |text: &str, starts: &[usize]| {
                starts.get(*idx).is_some_and(|start| is_word_start(text, *start))
            };
            at(&chosen, &chosen_starts) && at(&rejected, &rejected_starts)
        };
        let common = common_prefix_length(&chosen_ids, &rejected_ids);
        Ok(match (1..=common).rev().find(begins_word) {
            Some(boundary) => Split::at_boundary(chosen_ids[..boundary].to_vec(), [chosen_ids, rejected_ids]),
            None => Err(RowProblem::NoSharedPrompt.into()),
        })
    }
}

/// `text`, which ends with `completion`, with the end-of-text token unless the completion brings it.
fn with_eos(text: &str, completion: &str, eos: &str) -> String {
    if completion.ends_with(eos) { text.to_owned() } else { format!("{text}{eos}") }
}

/// True if a word begins at byte `at`, after something else.
fn is_word_start(text: &str, at: usize) -> bool {
    let (Some(before), Some(after)) = (text.get(..at), text.get(at..)) else { return false };
    !before.trim().is_empty()
        && (before.ends_with(char::is_whitespace) || after.starts_with(char::is_whitespace))
}
