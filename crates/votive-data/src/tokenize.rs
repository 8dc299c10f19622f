//! From records to token ids: where the completion starts.
//!
//! Source: TRL 1.16, `DPOTrainer._prepare_dataset` and `KTOTrainer._prepare_dataset`. Prompt, prompt + chosen and
//! prompt + rejected are tokenized separately; the completion starts at the first token in which they differ, which is
//! the end of the prompt unless tokens merge across it. Plain strings get the end-of-text token appended unless they
//! end with it; conversations end as the template ends them.
//!
//! Departures: a pair of strings without a prompt is split after the last whole word that both begin with, where TRL
//! splits between two characters, and refused if there is none. Where only the assistant's turns are to be trained,
//! the spans of the others are found by rendering the conversation up to each turn.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use crate::admission::{self, Fault, Sequence, Split, Verdict, problem_of};
use crate::error::Result;
use crate::read::Records;
use crate::record::{
    ChatOptions, Completion, ImageSource, Message, PairText, PreferencePair, RowNumbers, ScoredList,
    UnpairedExample,
};
use crate::report::{DataReport, LongRows, RowPolicy, RowProblem, TrainOn};
use crate::tokenizer::{Shown, TextTokenizer};

/// Token ids of a preference pair; a sequence is the prompt followed by one of the completions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenizedPair {
    /// x; never empty.
    pub prompt_ids: Vec<u32>,
    /// y_w; never empty.
    pub chosen_ids: Vec<u32>,
    /// y_l; never empty, never equal to y_w.
    pub rejected_ids: Vec<u32>,
    /// Spans of `chosen_ids` that others than the assistant said and that are not trained; usually none.
    pub chosen_untrained: Vec<Range<usize>>,
    /// The same of `rejected_ids`.
    pub rejected_untrained: Vec<Range<usize>>,
    /// The prompt with a third completion, better than both, if the row has one.
    pub gold: Option<TokenizedUnpaired>,
    /// The images that the prompt shows, in their order.
    pub images: Vec<ImageSource>,
    /// What else is known of the row, in numbers.
    pub numbers: RowNumbers,
    /// Number of the row in its data set, counted from 1.
    pub row: usize,
}

impl TokenizedPair {
    /// The pair with its sides exchanged.
    #[must_use]
    pub fn turned(self) -> Self {
        Self {
            chosen_ids: self.rejected_ids,
            rejected_ids: self.chosen_ids,
            chosen_untrained: self.rejected_untrained,
            rejected_untrained: self.chosen_untrained,
            numbers: self.numbers.turned(),
            ..self
        }
    }

    /// The pair as a desirable and an undesirable example.
    #[must_use]
    pub fn unpair(self) -> [TokenizedUnpaired; 2] {
        let Self { prompt_ids, images, row, .. } = self;
        let [of_chosen, of_rejected] = self.numbers.unpaired();
        let desirable = TokenizedUnpaired {
            prompt_ids: prompt_ids.clone(),
            completion_ids: self.chosen_ids,
            untrained: self.chosen_untrained,
            images: images.clone(),
            label: true,
            numbers: of_chosen,
            row,
        };
        let undesirable = TokenizedUnpaired {
            prompt_ids,
            completion_ids: self.rejected_ids,
            untrained: self.rejected_untrained,
            images,
            label: false,
            numbers: of_rejected,
            row,
        };
        [desirable, undesirable]
    }
}

/// A gold completion, or what is wrong with it.
type Gold = std::result::Result<TokenizedUnpaired, Fault>;

/// Token ids of an unpaired example.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenizedUnpaired {
    /// x; never empty.
    pub prompt_ids: Vec<u32>,
    /// y; never empty.
    pub completion_ids: Vec<u32>,
    /// Spans of `completion_ids` that others than the assistant said and that are not trained; usually none.
    pub untrained: Vec<Range<usize>>,
    /// True if the completion is desirable.
    pub label: bool,
    /// The images that the prompt shows, in their order.
    pub images: Vec<ImageSource>,
    /// What else is known of the row, in numbers.
    pub numbers: RowNumbers,
    /// Number of the row in its data set, counted from 1.
    pub row: usize,
}

/// Token ids of several completions of one prompt with their scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenizedList {
    /// The completions, two or more, of which the best has the label true. Each has its score as the first of its numbers.
    pub completions: Vec<TokenizedUnpaired>,
    /// How much the row counts.
    pub weight: Option<f64>,
    /// Number of the row in its data set, counted from 1.
    pub row: usize,
}

impl TokenizedList {
    /// A list of completions that were left of a row; none with what is wrong if they say nothing.
    fn of(
        completions: Vec<TokenizedUnpaired>,
        weight: Option<f64>,
    ) -> std::result::Result<Self, (RowProblem, usize)> {
        let row = completions.first().map_or(0, |one| one.row);
        let list = Self { completions, weight, row };
        let scores = list.scores();
        match scores.iter().copied().reduce(f64::max) {
            Some(_) if scores.len() < 2 => Err((RowProblem::NoRival, row)),
            Some(best) if scores.iter().all(|score| *score >= best) => Err((RowProblem::Tie, row)),
            _ => Ok(list.labelled()),
        }
    }

    /// The list with the label true on its best completion, the first if several are.
    fn labelled(mut self) -> Self {
        let scores = self.scores();
        let best = (0..scores.len()).reduce(|best, i| if scores[i] > scores[best] { i } else { best });
        self.completions.iter_mut().enumerate().for_each(|(i, one)| one.label = Some(i) == best);
        self
    }

    /// What each completion was given; more is better.
    #[must_use]
    pub fn scores(&self) -> Vec<f64> {
        self.completions.iter().map(|one| one.numbers.scores[0].unwrap_or_default()).collect()
    }

    /// The list with the worst completion as the best.
    #[must_use]
    pub fn turned(mut self) -> Self {
        let scores = self.completions.iter_mut().filter_map(|one| one.numbers.scores[0].as_mut());
        scores.for_each(|score| *score = -*score);
        self.labelled()
    }
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
        let shown = self.vectors(records.rows.iter().map(|pair| &*pair.images));
        let both: Vec<_> = records
            .rows
            .par_iter()
            .zip(&shown)
            .map(|(pair, shown)| {
                Ok((self.split_pair(pair, shown, policy.train_on)?, self.split_gold(pair, shown, policy)?))
            })
            .collect();
        // Rows by number: only rows of one pair each have a gold completion.
        let mut golds = BTreeMap::new();
        let verdicts = both.into_iter().zip(&records.rows).map(|(both, pair)| {
            let (verdict, gold) = both?;
            Ok(match gold.transpose() {
                Ok(gold) => {
                    golds.extend(gold.map(|gold| (pair.row, gold)));
                    verdict
                }
                Err(fault) => verdict.and(Err(fault)),
            })
        });
        let verdicts = verdicts.collect();
        admission::admit(
            self,
            policy,
            records,
            verdicts,
            |pair| (pair.row, pair.numbers),
            |pair, split| {
                let Split { prompt: prompt_ids, completions: [chosen, rejected], .. } = split;
                TokenizedPair {
                    prompt_ids,
                    chosen_ids: chosen.ids,
                    rejected_ids: rejected.ids,
                    chosen_untrained: chosen.untrained,
                    rejected_untrained: rejected.untrained,
                    gold: golds.get(&pair.row).cloned(),
                    images: pair.images.clone(),
                    numbers: pair.numbers,
                    row: pair.row,
                }
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
        let shown = self.vectors(records.rows.iter().map(|one| &*one.images));
        let rows = records.rows.par_iter().zip(&shown);
        let verdicts = rows.map(|(one, shown)| self.split_unpaired(one, shown, policy.train_on)).collect();
        admission::admit(
            self,
            policy,
            records,
            verdicts,
            |one| (one.row, one.numbers),
            |one, split| {
                let Split { prompt: prompt_ids, completions: [Sequence { ids, untrained }], .. } = split;
                TokenizedUnpaired {
                    prompt_ids,
                    completion_ids: ids,
                    untrained,
                    images: one.images.clone(),
                    label: one.label,
                    numbers: one.numbers,
                    row: one.row,
                }
            },
        )
    }

    /// Tokenizes lists of scored completions, in the order of the file, on all cores. The policy is for each completion: one
    /// that is dropped leaves the others.
    ///
    /// # Errors
    /// As [`tokenize_pairs`](Self::tokenize_pairs).
    pub fn tokenize_lists(
        &self,
        records: Records<ScoredList>,
        policy: RowPolicy,
    ) -> Result<(Vec<TokenizedList>, DataReport)> {
        let weights: Vec<_> = records.rows.iter().map(|list| (list.row, list.weight)).collect();
        let example = |list: &ScoredList, (text, score): &(Completion, f64)| {
            let numbers = RowNumbers { scores: [Some(*score), None], ..RowNumbers::default() };
            let (images, text) = (list.images.clone(), text.clone());
            UnpairedExample { row: list.row, images, text, label: false, numbers }
        };
        let (lists, n_lists) = (&records.rows, records.rows.len());
        let singles =
            lists.iter().flat_map(|list| list.completions.iter().map(move |one| example(list, one)));
        let singles = singles.collect();
        let (examples, mut report) = self.tokenize_unpaired(&records.with_rows(singles), policy)?;
        (report.records, report.rows_kept) = (n_lists, 0);
        let mut examples = examples.into_iter().peekable();
        let mut kept = Vec::with_capacity(n_lists);
        for (row, weight) in weights {
            let own: Vec<_> = std::iter::from_fn(|| examples.next_if(|one| one.row == row)).collect();
            // A row of which nothing is left was counted with its completions.
            match TokenizedList::of(own, weight) {
                Ok(list) if list.completions.is_empty() => {}
                Ok(list) => kept.push(list),
                Err((problem, row)) => report.drop_row(problem, row),
            }
        }
        report.rows_kept = kept.len();
        weights_of(&kept).for_each(|weight| report.weights.add(weight));
        report.require_rows()?;
        Ok((kept, report))
    }

    /// Tokenizes a pair that shows images and finds its boundary; the policy is not applied.
    pub(crate) fn split_pair(
        &self,
        pair: &PreferencePair,
        shown: &Shown,
        train_on: TrainOn,
    ) -> Result<Verdict<2>> {
        let vectors = match shown {
            Ok(vectors) => vectors.as_slice(),
            Err(fault) => return Ok(Err(fault.clone())),
        };
        let verdict = match &pair.text {
            PairText::Plain { prompt, chosen, rejected } => self.split_plain(prompt, [chosen, rejected]),
            PairText::Implicit { chosen, rejected } => self.split_implicit(chosen, rejected),
            PairText::Chat { prompt, chosen, rejected, options } => {
                self.split_chat((prompt, vectors.len()), [chosen, rejected], options, train_on)
            }
            PairText::TwoPrompts { chosen, rejected } => {
                // Either prompt shows the images.
                let chosen = self.split_completion((chosen, shown), train_on)?;
                let rejected = self.split_completion((rejected, shown), train_on)?;
                return Ok(chosen.and_then(|chosen| Split::of_two_prompts(chosen, rejected?)));
            }
        };
        Ok(verdict?.and_then(|split| self.with_image_places(split, vectors)))
    }

    /// Tokenizes a pair's gold completion, which is never cut: one that is too long is a fault of its row.
    fn split_gold(&self, pair: &PreferencePair, shown: &Shown, policy: RowPolicy) -> Result<Option<Gold>> {
        let Some(gold) = &pair.gold else { return Ok(None) };
        let uncut = RowPolicy { long_rows: LongRows::Error, ..policy };
        let verdict = self.split_completion((gold, shown), policy.train_on)?.and_then(|split| {
            let fault = split.length_fault(uncut);
            fault.map_or(Ok(split), Err)
        });
        let example = |split: Split<1>| {
            let Split { prompt: prompt_ids, completions: [Sequence { ids, untrained }], .. } = split;
            let (images, numbers, row) = (pair.images.clone(), pair.numbers, pair.row);
            TokenizedUnpaired {
                prompt_ids,
                completion_ids: ids,
                untrained,
                label: true,
                images,
                numbers,
                row,
            }
        };
        Ok(Some(verdict.map(example)))
    }

    /// Tokenizes an example and finds its boundary; the policy is not applied.
    pub(crate) fn split_unpaired(
        &self,
        example: &UnpairedExample,
        shown: &Shown,
        train_on: TrainOn,
    ) -> Result<Verdict<1>> {
        self.split_completion((&example.text, shown), train_on)
    }

    fn split_completion(
        &self,
        (text, shown): (&Completion, &Shown),
        train_on: TrainOn,
    ) -> Result<Verdict<1>> {
        let vectors = match shown {
            Ok(vectors) => vectors.as_slice(),
            Err(fault) => return Ok(Err(fault.clone())),
        };
        let verdict = match text {
            Completion::Plain { prompt, completion } => self.split_plain(prompt, [completion]),
            Completion::Chat { prompt, completion, options } => {
                self.split_chat((prompt, vectors.len()), [completion], options, train_on)
            }
        };
        Ok(verdict?.and_then(|split| self.with_image_places(split, vectors)))
    }

    fn split_plain<const N: usize>(&self, prompt: &str, completions: [&String; N]) -> Result<Verdict<N>> {
        if let Some(problem) = problem_of(&completions, |completion| completion.is_empty()) {
            return Ok(Err(problem.into()));
        }
        let eos = self.eos_token()?;
        let prompt_ids = self.encode(prompt, true)?;
        let mut full = completions.map(|_| Sequence::default());
        for (sequence, completion) in full.iter_mut().zip(completions) {
            let text = with_eos(&format!("{prompt}{completion}"), completion, eos);
            *sequence = self.encode(&text, true)?.into();
        }
        Ok(Split::at_boundary(prompt_ids, full))
    }

    fn split_chat<const N: usize>(
        &self,
        (prompt, images): (&[Message], usize),
        completions: [&Vec<Message>; N],
        options: &ChatOptions,
        train_on: TrainOn,
    ) -> Result<Verdict<N>> {
        let prompt = &*self.showing(prompt, images);
        if self.images().is_some()
            && let Some(fault) = self.fault_of_turns(prompt, &completions, images)
        {
            return Ok(Err(fault));
        }
        if let Some(problem) = problem_of(&completions, |turns| turns.iter().all(Message::is_empty)) {
            return Ok(Err(problem.into()));
        }
        if prompt.is_empty() {
            return Ok(Err(Fault::new(RowProblem::EmptyPrompt, " (no turn stands before the completion)")));
        }
        let prompt_ids = self.encode_chat(prompt, true, options)?;
        let mut full = completions.map(|_| Sequence::default());
        for (sequence, completion) in full.iter_mut().zip(completions) {
            let is_others = completion.iter().any(|turn| turn.role() != "assistant");
            if train_on == TrainOn::Completion || !is_others {
                *sequence = self.encode_chat(&[prompt, completion].concat(), false, options)?.into();
            } else if let Some(masked) = self.encode_turns(prompt, completion, options)? {
                *sequence = masked;
            } else {
                return Ok(Err(RowProblem::RolesUnknown.into()));
            }
        }
        Ok(Split::at_boundary(prompt_ids, full))
    }

    /// Tokens of a conversation in which the turns of the completion that are not the assistant's are not trained;
    /// nothing if the template writes a turn differently once others follow it.
    fn encode_turns(
        &self,
        prompt: &[Message],
        completion: &[Message],
        options: &ChatOptions,
    ) -> Result<Option<Sequence>> {
        let messages = [prompt, completion].concat();
        let text = self.render_chat(&messages, false, options)?;
        let mut trained = Vec::new();
        for turn in (prompt.len()..messages.len()).filter(|turn| messages[*turn].role() == "assistant") {
            let start = self.render_chat(&messages[..turn], true, options)?;
            let end = self.render_chat(&messages[..=turn], false, options)?;
            if !text.starts_with(&start) || !text.starts_with(&end) || start.len() > end.len() {
                return Ok(None);
            }
            trained.push(start.len()..end.len());
        }
        let (ids, starts) = self.encode_with_starts(&text, false)?;
        let is_trained = |start: usize| trained.iter().any(|span| span.contains(&start));
        Ok(Some(Sequence { untrained: spans_where(&starts, |start| !is_trained(*start)), ids }))
    }

    /// Splits two strings after the last whole word that both begin with.
    fn split_implicit(&self, chosen: &str, rejected: &str) -> Result<Verdict<2>> {
        if let Some(problem) = problem_of(&[chosen, rejected], |text| text.is_empty()) {
            return Ok(Err(problem.into()));
        }
        let eos = self.eos_token()?;
        let (chosen, rejected) = (with_eos(chosen, chosen, eos), with_eos(rejected, rejected, eos));
        let (chosen_ids, chosen_starts) = self.encode_with_starts(&chosen, true)?;
        let (rejected_ids, rejected_starts) = self.encode_with_starts(&rejected, true)?;
        let begins_word = |idx: &usize| {
            let at = |text: &str, starts: &[usize]| {
                starts.get(*idx).is_some_and(|start| is_word_start(text, *start))
            };
            at(&chosen, &chosen_starts) && at(&rejected, &rejected_starts)
        };
        let common = common_prefix_length(&chosen_ids, &rejected_ids);
        Ok(match (1..=common).rev().find(begins_word) {
            Some(boundary) => {
                let prompt = chosen_ids[..boundary].to_vec();
                Split::at_boundary(prompt, [chosen_ids.into(), rejected_ids.into()])
            }
            None => Err(RowProblem::NoSharedPrompt.into()),
        })
    }
}

fn weights_of(lists: &[TokenizedList]) -> impl Iterator<Item = f64> + '_ {
    lists.iter().filter_map(|list| list.weight)
}

/// The longest runs of places whose value is wanted.
fn spans_where<T>(values: &[T], is_wanted: impl Fn(&T) -> bool) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (place, _) in values.iter().enumerate().filter(|(_, value)| is_wanted(value)) {
        match spans.last_mut() {
            Some(last) if last.end == place => last.end = place + 1,
            _ => spans.push(place..place + 1),
        }
    }
    spans
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
