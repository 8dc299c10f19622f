//! Copies of completions out of which key phrases were taken, in a known degree.
//!
//! Source: Li et al. 2024 (SPO), arXiv:2409.17791, whose key phrases are RAKE's. That the most important ones are taken first, and
//! how many make a degree, could not be confirmed.

use crate::error::Result;
use votive_data::{TextTokenizer, TokenizedPair, TokenizedUnpaired, key_phrases, without_spans};
use votive_tensor::random::{Draws, Stream};

/// How copies are drawn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copies {
    pub(super) seed: u64,
}

impl Copies {
    /// A copy of a pair's chosen completion at a step, by its place in the batch, and its degree, from 0 (all is there) to
    /// `degrees − 1` (no key phrase is).
    pub(super) fn of(
        self,
        tokenizer: &TextTokenizer,
        pair: &TokenizedPair,
        degrees: usize,
        (step, position): (u64, u64),
    ) -> Result<(TokenizedUnpaired, u32)> {
        let special = |id: &&u32| tokenizer.decode(&[**id], true).is_ok_and(|text| text.is_empty());
        let ending = pair.chosen_ids.iter().rev().take_while(special).count();
        let (said, ending) = pair.chosen_ids.split_at(pair.chosen_ids.len() - ending);
        let text = tokenizer.decode(said, true)?;
        let phrases = key_phrases(&text);
        let most = degrees.saturating_sub(1);
        // Where there are fewer phrases than degrees, only some degrees can be made.
        let steps = most.min(phrases.len());
        let step = Draws::new(self.seed, Stream::Removal, step, position).below(steps + 1);
        let (taken, degree) = (share(phrases.len(), step, steps), share(most, step, steps));
        let shortened = tokenizer.encode(&without_spans(&text, &phrases[..taken]), false)?;
        // What takes nothing out is the completion as it stands, and no copy is longer.
        let mut completion_ids =
            if taken == 0 { pair.chosen_ids.clone() } else { [&shortened, ending].concat() };
        if completion_ids.is_empty() {
            completion_ids.extend(pair.chosen_ids.last());
        }
        completion_ids.truncate(pair.chosen_ids.len());
        let (prompt_ids, images, row) = (pair.prompt_ids.clone(), pair.images.clone(), pair.row);
        let copy =
            TokenizedUnpaired { prompt_ids, completion_ids, images, row, ..TokenizedUnpaired::default() };
        Ok((copy, degree as u32))
    }
}

/// `step/steps` of a number, rounded; nothing of nothing.
fn share(of: usize, step: usize, steps: usize) -> usize {
    (of * step + steps / 2).checked_div(steps).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_are_as_far_apart_as_there_are_phrases_for() {
        let of = |phrases: usize, degrees: usize| -> Vec<(usize, usize)> {
            let steps = (degrees - 1).min(phrases);
            (0..=steps).map(|step| (share(phrases, step, steps), share(degrees - 1, step, steps))).collect()
        };
        assert_eq!(of(3, 4), [(0, 0), (1, 1), (2, 2), (3, 3)]);
        assert_eq!(of(7, 4), [(0, 0), (2, 1), (5, 2), (7, 3)]);
        assert_eq!(of(1, 4), [(0, 0), (1, 3)]);
        assert_eq!(of(0, 4), [(0, 0)]);
    }
}
