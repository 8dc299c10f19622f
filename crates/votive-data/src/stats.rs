//! What a data set holds, in numbers: lengths, preferences, duplicates.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use crate::record::{Completion, ImageSource, Message, PairText, PreferencePair, UnpairedExample};
use crate::report::RowList;
use crate::tokenize::{TokenizedPair, TokenizedUnpaired};

/// How numbers are distributed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// How many there are.
    pub count: usize,
    /// The least.
    pub min: f64,
    /// Their mean.
    pub mean: f64,
    /// Half of them are at most this.
    pub p50: f64,
    /// Nine of ten are at most this.
    pub p90: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
    /// The numbers counted by size.
    pub bins: Vec<Bin>,
}

/// The numbers from one bound to below another; the last bin holds its upper bound too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// Lower bound.
    pub from: f64,
    /// Upper bound.
    pub to: f64,
    /// Numbers between them.
    pub count: usize,
}

/// Bins of a histogram.
const BINS: usize = 10;

impl Distribution {
    /// Lengths and other counts, in bins that double in width where the longest is many times the shortest.
    #[must_use]
    pub fn of_lengths(lengths: &[usize]) -> Self {
        let numbers: Vec<f64> = lengths.iter().map(|length| *length as f64).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut bounds = vec![0.0];
        let mut bound = 8.0;
        while bounds.last().is_some_and(|last| *last <= longest as f64) {
            bounds.push(bound);
            bound *= 2.0;
        }
        Self::new(numbers, &bounds)
    }

    /// Numbers of any kind, in bins of equal width.
    #[must_use]
    pub fn of_numbers(numbers: &[f64]) -> Self {
        let min = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let max = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let width = (max - min) / BINS as f64;
        let bounds: Vec<f64> = if width > 0.0 {
            (0..=BINS).map(|bin| min + width * bin as f64).collect()
        } else {
            vec![min, max]
        };
        Self::new(numbers.to_vec(), &bounds)
    }

    fn new(mut numbers: Vec<f64>, bounds: &[f64]) -> Self {
        if numbers.is_empty() {
            return Self::default();
        }
        numbers.sort_by(f64::total_cmp);
        let count = numbers.len();
        let at = |share: f64| numbers[((share * count as f64).ceil() as usize).clamp(1, count) - 1];
        let last = bounds.len().saturating_sub(2);
        let bin = |(idx, two): (usize, &[f64])| {
            let is_in = |number: &&f64| **number >= two[0] && (**number < two[1] || idx == last);
            Bin { from: two[0], to: two[1], count: numbers.iter().filter(is_in).count() }
        };
        let bins: Vec<Bin> = bounds.windows(2).enumerate().map(bin).collect();
        let first = bins.iter().position(|bin| bin.count > 0).unwrap_or(0);
        Self {
            count,
            min: at(0.0),
            mean: numbers.iter().sum::<f64>() / count as f64,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
            bins: bins[first..].to_vec(),
        }
    }
}

/// Lengths of prompts and completions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Lengths {
    /// Of the prompts; of pairs without one, what both sides begin with counts to the sides.
    pub prompt: Distribution,
    /// Of the chosen completions, or of the desirable ones.
    pub chosen: Distribution,
    /// Of the others.
    pub rejected: Distribution,
    /// Share of the pairs whose chosen completion is longer; none if there are no pairs.
    pub chosen_longer: Option<f64>,
    /// Share of the pairs whose sides are equally long.
    pub equally_long: Option<f64>,
}

impl Lengths {
    /// Lengths of (prompt, chosen, rejected).
    fn of_pairs(lengths: &[[usize; 3]]) -> Self {
        let column = |idx: usize| -> Distribution {
            Distribution::of_lengths(&lengths.iter().map(|row| row[idx]).collect::<Vec<_>>())
        };
        let share = |wanted: std::cmp::Ordering| {
            let found = lengths.iter().filter(|row| row[1].cmp(&row[2]) == wanted).count();
            (!lengths.is_empty()).then(|| found as f64 / lengths.len() as f64)
        };
        let [prompt, chosen, rejected] = [0, 1, 2].map(column);
        let chosen_longer = share(std::cmp::Ordering::Greater);
        Self { prompt, chosen, rejected, chosen_longer, equally_long: share(std::cmp::Ordering::Equal) }
    }

    /// Lengths of (prompt, completion) with the label.
    fn of_labelled(lengths: &[(usize, usize, bool)]) -> Self {
        let side = |label: bool| {
            let side = lengths.iter().filter(|(_, _, of)| *of == label).map(|(_, length, _)| *length);
            Distribution::of_lengths(&side.collect::<Vec<_>>())
        };
        let prompts: Vec<_> = lengths.iter().map(|(prompt, ..)| *prompt).collect();
        let prompt = Distribution::of_lengths(&prompts);
        Self { prompt, chosen: side(true), rejected: side(false), ..Self::default() }
    }

    /// Lengths in tokens.
    #[must_use]
    pub fn of_tokenized_pairs(pairs: &[TokenizedPair]) -> Self {
        let lengths =
            |pair: &TokenizedPair| [pair.prompt_ids.len(), pair.chosen_ids.len(), pair.rejected_ids.len()];
        Self::of_pairs(&pairs.iter().map(lengths).collect::<Vec<_>>())
    }

    /// Lengths in tokens.
    #[must_use]
    pub fn of_tokenized_unpaired(examples: &[TokenizedUnpaired]) -> Self {
        let lengths = |one: &TokenizedUnpaired| (one.prompt_ids.len(), one.completion_ids.len(), one.label);
        Self::of_labelled(&examples.iter().map(lengths).collect::<Vec<_>>())
    }

    /// Lengths in characters.
    #[must_use]
    pub fn of_text_pairs(pairs: &[PreferencePair]) -> Self {
        let lengths = |pair: &PreferencePair| match &pair.text {
            PairText::Plain { prompt, chosen, rejected } => {
                [prompt, chosen, rejected].map(|text| characters(text))
            }
            PairText::Implicit { chosen, rejected } => [0, characters(chosen), characters(rejected)],
            PairText::Chat { prompt, chosen, rejected, .. } => {
                [prompt, chosen, rejected].map(|turns| said(turns))
            }
            // Both prompts, of which one is read with each side.
            PairText::TwoPrompts { chosen, rejected } => {
                let [(chosen, completion), (rejected, _)] = [chosen, rejected].map(|side| match side {
                    Completion::Plain { prompt, completion } => (characters(prompt), characters(completion)),
                    Completion::Chat { prompt, completion, .. } => (said(prompt), said(completion)),
                });
                [chosen.max(rejected), completion, completion]
            }
        };
        Self::of_pairs(&pairs.iter().map(lengths).collect::<Vec<_>>())
    }

    /// Lengths in characters.
    #[must_use]
    pub fn of_text_unpaired(examples: &[UnpairedExample]) -> Self {
        let lengths = |one: &UnpairedExample| match &one.text {
            Completion::Plain { prompt, completion } => {
                (characters(prompt), characters(completion), one.label)
            }
            Completion::Chat { prompt, completion, .. } => (said(prompt), said(completion), one.label),
        };
        Self::of_labelled(&examples.iter().map(lengths).collect::<Vec<_>>())
    }
}

fn characters(text: &str) -> usize {
    text.chars().count()
}

fn said(turns: &[Message]) -> usize {
    turns.iter().filter_map(Message::content).map(|text| text.chars().count()).sum()
}

/// Records that say the same as an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// The same prompt; usual where a list gives several pairs.
    pub prompts: RowList,
    /// The same prompt and completions.
    pub records: RowList,
    /// The same prompt and completions, but the other one is preferred, or the label differs.
    pub contradictions: RowList,
}

/// Finds duplicates by hash.
#[derive(Default)]
pub(crate) struct Seen {
    prompts: HashSet<u64>,
    records: HashSet<u64>,
    pub(crate) found: Duplicates,
}

impl Seen {
    pub(crate) fn note(&mut self, row: usize, prompt: u64, record: u64, opposite: u64) {
        if !self.prompts.insert(prompt) {
            self.found.prompts.push(row);
        }
        if self.records.contains(&opposite) {
            self.found.contradictions.push(row);
        }
        if !self.records.insert(record) {
            self.found.records.push(row);
        }
    }
}

pub(crate) fn hash(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// The places of images, which are what tells the prompts of two rows apart.
fn shown(images: &[ImageSource]) -> Vec<String> {
    images.iter().map(|image| format!("{image:?}")).collect()
}

fn as_text(turns: &[Message]) -> String {
    serde_json::to_string(turns).unwrap_or_default()
}

impl Duplicates {
    /// Duplicates among pairs.
    #[must_use]
    pub fn among_pairs(pairs: &[PreferencePair]) -> Self {
        let mut seen = Seen::default();
        for pair in pairs {
            let (prompt, chosen, rejected) = match &pair.text {
                PairText::Plain { prompt, chosen, rejected } => {
                    (hash((prompt, shown(&pair.images))), hash(chosen), hash(rejected))
                }
                // The prompt is not known yet, and no two count as the same.
                PairText::Implicit { chosen, rejected } => {
                    (hash((pair.row, chosen)), hash(chosen), hash(rejected))
                }
                PairText::Chat { prompt, chosen, rejected, .. } => {
                    let prompt = hash((as_text(prompt), shown(&pair.images)));
                    (prompt, hash(as_text(chosen)), hash(as_text(rejected)))
                }
                PairText::TwoPrompts { chosen, rejected } => {
                    let whole = |side: &Completion| hash(format!("{side:?}"));
                    (hash(chosen.prompt_text()), whole(chosen), whole(rejected))
                }
            };
            let of = if matches!(pair.text, PairText::Implicit { .. }) { 0 } else { prompt };
            seen.note(pair.row, prompt, hash((of, chosen, rejected)), hash((of, rejected, chosen)));
        }
        seen.found
    }

    /// Duplicates among examples with labels.
    #[must_use]
    pub fn among_unpaired(examples: &[UnpairedExample]) -> Self {
        let mut seen = Seen::default();
        for one in examples {
            let (prompt, completion) = match &one.text {
                Completion::Plain { prompt, completion } => {
                    (hash((prompt, shown(&one.images))), hash(completion))
                }
                Completion::Chat { prompt, completion, .. } => {
                    (hash((as_text(prompt), shown(&one.images))), hash(as_text(completion)))
                }
            };
            let record = |label: bool| hash((prompt, completion, label));
            seen.note(one.row, prompt, record(one.label), record(!one.label));
        }
        seen.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_counted_in_bins_that_double() {
        let found = Distribution::of_lengths(&[3, 9, 9, 40]);
        let bins: Vec<_> = found.bins.iter().map(|bin| (bin.from, bin.to, bin.count)).collect();
        assert_eq!(bins, [(0.0, 8.0, 1), (8.0, 16.0, 2), (16.0, 32.0, 0), (32.0, 64.0, 1)]);
        assert_eq!((found.min, found.mean, found.p50, found.p90, found.max), (3.0, 15.25, 9.0, 40.0, 40.0));
        assert_eq!(Distribution::of_lengths(&[]), Distribution::default());
        assert_eq!(Distribution::of_lengths(&[8]).bins, [Bin { from: 8.0, to: 16.0, count: 1 }]);
    }

    #[test]
    fn numbers_are_counted_in_equal_bins() {
        let found = Distribution::of_numbers(&[-1.0, 0.0, 1.0]);
        assert_eq!((found.bins.len(), found.bins[0].count, found.bins[9].count), (10, 1, 1));
        assert_eq!(found.bins.iter().map(|bin| bin.count).sum::<usize>(), 3);
        assert_eq!(Distribution::of_numbers(&[2.0, 2.0]).bins, [Bin { from: 2.0, to: 2.0, count: 2 }]);
    }

    #[test]
    fn duplicates_and_contradictions_are_told_apart() {
        let pair = |row, chosen: &str, rejected: &str| PreferencePair::plain(row, "a", chosen, rejected);
        let pairs = [pair(1, "b", "c"), pair(2, "b", "c"), pair(3, "c", "b"), pair(4, "d", "e")];
        let found = Duplicates::among_pairs(&pairs);
        assert_eq!((found.prompts.first, found.records.first), (vec![2, 3, 4], vec![2]));
        assert_eq!(found.contradictions.first, [3]);
    }

    #[test]
    fn the_longer_side_is_counted() {
        let pairs = [PreferencePair::plain(1, "a", "bb", "c"), PreferencePair::plain(2, "a", "é", "c")];
        let lengths = Lengths::of_text_pairs(&pairs);
        assert_eq!((lengths.chosen_longer, lengths.equally_long), (Some(0.5), Some(0.5)));
        assert_eq!((lengths.prompt.mean, lengths.chosen.max), (1.0, 2.0));
    }
}
