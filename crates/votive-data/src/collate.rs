//! Rows of different lengths, padded into a batch.

use std::ops::Range;

use crate::record::ImageSource;
use crate::tokenize::{TokenizedList, TokenizedPair, TokenizedUnpaired};

/// Token sequences of equal width. Shapes below: S sequences, T tokens, row-major.
///
/// Masks come from the lengths, never from the ids, so a padding token that is also the end-of-text token stays a
/// trained token where the text ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextBatch {
    /// (S,T); right-padded.
    pub input_ids: Vec<u32>,
    /// (S,T); 1 on every token that is not padding.
    pub attention_mask: Vec<u8>,
    /// (S,T); 1 on completion tokens that are trained.
    pub completion_mask: Vec<u8>,
    /// S: for B pairs 2B, the chosen in `0..B` and the rejected in `B..2B`; for B unpaired examples B; for B lists of N
    /// completions N·B, the first ones in `0..B`.
    pub n_sequences: usize,
    /// T: tokens of the longest sequence.
    pub width: usize,
    /// (S,); tokens of each sequence, prompt included.
    pub lengths: Vec<usize>,
    /// (S,); the images that each sequence shows, in their order.
    pub images: Vec<Vec<ImageSource>>,
    /// (B,); the row of the data file behind each pair or example.
    pub rows: Vec<usize>,
}

/// Pads pairs into one batch, chosen first.
#[must_use]
pub fn collate_pairs(pairs: &[&TokenizedPair], pad_id: u32) -> TextBatch {
    collate_pairs_and(pairs, &[], pad_id)
}

/// Pads pairs into one batch, and other completions of their prompts behind them: the chosen, the rejected, then the others.
#[must_use]
pub fn collate_pairs_and(pairs: &[&TokenizedPair], others: &[&TokenizedUnpaired], pad_id: u32) -> TextBatch {
    let chosen = pairs.iter().map(|pair| Sequence {
        prompt: &pair.prompt_ids,
        completion: &pair.chosen_ids,
        untrained: &pair.chosen_untrained,
        images: &pair.images,
    });
    let rejected = pairs.iter().map(|pair| Sequence {
        prompt: &pair.prompt_ids,
        completion: &pair.rejected_ids,
        untrained: &pair.rejected_untrained,
        images: &pair.images,
    });
    let others = others.iter().map(|one| Sequence::of(one));
    let sequences: Vec<_> = chosen.chain(rejected).chain(others).collect();
    pad(&sequences, pairs.iter().map(|pair| pair.row).collect(), pad_id)
}

/// Pads lists of equally many completions into one batch: the first completions of all lists, then the second ones.
#[must_use]
pub fn collate_lists(lists: &[&TokenizedList], pad_id: u32) -> TextBatch {
    let most = lists.iter().map(|list| list.completions.len()).max().unwrap_or(0);
    let side = |side: usize| lists.iter().filter_map(move |list| list.completions.get(side));
    let sequences: Vec<_> = (0..most).flat_map(side).map(Sequence::of).collect();
    pad(&sequences, lists.iter().map(|list| list.row).collect(), pad_id)
}

/// Pads unpaired examples into one batch.
#[must_use]
pub fn collate_unpaired(examples: &[&TokenizedUnpaired], pad_id: u32) -> TextBatch {
    let sequences: Vec<_> = examples.iter().map(|one| Sequence::of(one)).collect();
    pad(&sequences, examples.iter().map(|one| one.row).collect(), pad_id)
}

/// Pads every prompt with the completion of the example before it, the last one's for the first: the mismatched pairs
/// from which KTO estimates the divergence (arXiv:2402.01306, section 4.1). They are cut to `max_length` tokens.
#[must_use]
pub fn collate_mismatched(
    examples: &[&TokenizedUnpaired],
    max_length: Option<usize>,
    pad_id: u32,
) -> TextBatch {
    let before = examples.iter().cycle().skip(examples.len().saturating_sub(1));
    let mut sequences: Vec<Sequence> = Vec::with_capacity(examples.len());
    for (one, other) in examples.iter().zip(before) {
        let room = max_length.map_or(usize::MAX, |length| length.saturating_sub(one.prompt_ids.len()));
        let kept = &other.completion_ids[..room.min(other.completion_ids.len())];
        sequences.push(Sequence { completion: kept, untrained: &other.untrained, ..Sequence::of(one) });
    }
    pad(&sequences, examples.iter().map(|one| one.row).collect(), pad_id)
}

/// What one row of a batch is made of.
struct Sequence<'a> {
    prompt: &'a [u32],
    completion: &'a [u32],
    /// Spans of the completion that are not trained.
    untrained: &'a [Range<usize>],
    /// Images that the prompt shows.
    images: &'a [ImageSource],
}

impl<'a> Sequence<'a> {
    fn of(one: &'a TokenizedUnpaired) -> Self {
        Self {
            prompt: &one.prompt_ids,
            completion: &one.completion_ids,
            untrained: &one.untrained,
            images: &one.images,
        }
    }
}

/// Lays sequences side by side, padded on the right to the longest.
fn pad(sequences: &[Sequence], rows: Vec<usize>, pad_id: u32) -> TextBatch {
    let lengths: Vec<_> = sequences.iter().map(|one| one.prompt.len() + one.completion.len()).collect();
    let width = lengths.iter().copied().max().unwrap_or(0);
    let cells = sequences.len() * width;
    let (mut input_ids, mut attention_mask) = (vec![pad_id; cells], vec![0; cells]);
    let mut completion_mask = vec![0; cells];
    for (idx, Sequence { prompt, completion, untrained, .. }) in sequences.iter().enumerate() {
        let (start, boundary, end) = (idx * width, idx * width + prompt.len(), idx * width + lengths[idx]);
        input_ids[start..boundary].copy_from_slice(prompt);
        input_ids[boundary..end].copy_from_slice(completion);
        attention_mask[start..end].fill(1);
        completion_mask[boundary..end].fill(1);
        for span in *untrained {
            let span = span.start.min(completion.len())..span.end.min(completion.len());
            completion_mask[boundary + span.start..boundary + span.end].fill(0);
        }
    }
    TextBatch {
        input_ids,
        attention_mask,
        completion_mask,
        n_sequences: sequences.len(),
        width,
        lengths,
        images: sequences.iter().map(|one| one.images.to_vec()).collect(),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(prompt: &[u32], chosen: &[u32], rejected: &[u32], row: usize) -> TokenizedPair {
        let (prompt_ids, chosen_ids, rejected_ids) = (prompt.to_vec(), chosen.to_vec(), rejected.to_vec());
        TokenizedPair { prompt_ids, chosen_ids, rejected_ids, row, ..TokenizedPair::default() }
    }

    /// The example in the documentation of TRL's preference collator.
    #[test]
    fn two_pairs_are_laid_out_as_trl_does() {
        let (a, b) = (pair(&[1, 2, 3], &[4, 5], &[6], 4), pair(&[7, 8], &[9], &[10, 11], 9));
        let batch = collate_pairs(&[&a, &b], 0);
        assert_eq!((batch.n_sequences, batch.width), (4, 5));
        assert_eq!(batch.input_ids, [1, 2, 3, 4, 5, 7, 8, 9, 0, 0, 1, 2, 3, 6, 0, 7, 8, 10, 11, 0]);
        assert_eq!(batch.attention_mask, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0]);
        assert_eq!(batch.completion_mask, [0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0]);
        assert_eq!((batch.lengths, batch.rows), (vec![5, 3, 4, 4], vec![4, 9]));
    }

    #[test]
    fn spans_of_other_speakers_are_not_trained() {
        let mut one = pair(&[1], &[2, 3, 4, 5], &[6], 1);
        one.chosen_untrained = std::iter::once(1..3).collect();
        assert_eq!(collate_pairs(&[&one], 0).completion_mask, [0, 1, 0, 0, 1, 0, 1, 0, 0, 0]);
        let [mut chosen, rejected] = one.unpair();
        assert_eq!(collate_unpaired(&[&chosen, &rejected], 0).completion_mask[..5], [0, 1, 0, 0, 1]);
        chosen.untrained = std::iter::once(1..3).collect();
        let mismatched = collate_mismatched(&[&rejected, &chosen], Some(3), 0);
        assert_eq!(mismatched.completion_mask, [0, 1, 0, 0, 1, 0]);
    }

    #[test]
    fn mismatched_completions_come_from_the_example_before() {
        let one = |prompt: u32, completion: &[u32], row| TokenizedUnpaired {
            prompt_ids: vec![prompt],
            completion_ids: completion.to_vec(),
            label: true,
            row,
            ..TokenizedUnpaired::default()
        };
        let examples = [one(1, &[4, 5], 1), one(2, &[6], 2), one(3, &[7, 8, 9], 3)];
        let batch = collate_mismatched(&examples.each_ref(), Some(3), 0);
        assert_eq!(batch.input_ids, [1, 7, 8, 2, 4, 5, 3, 6, 0]);
        assert_eq!(batch.rows, [1, 2, 3]);
        assert_eq!(collate_mismatched(&[], None, 0).n_sequences, 0);
    }

    fn ids(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u32>> {
        // Id 0 is also the padding id here: masks must not care.
        prop::collection::vec(0..4u32, length)
    }

    proptest! {
        #[test]
        fn masks_give_back_every_sequence(
            rows in prop::collection::vec((ids(1..6), ids(1..6), ids(1..6)), 1..5)
        ) {
            let pairs: Vec<_> =
                rows.iter().enumerate().map(|(row, (prompt, chosen, rejected))| pair(prompt, chosen, rejected, row)).collect();
            let batch = collate_pairs(&pairs.iter().collect::<Vec<_>>(), 0);
            let select = |idx: usize, mask: &[u8]| -> Vec<u32> {
                let cells = idx * batch.width..(idx + 1) * batch.width;
                cells.filter(|cell| mask[*cell] == 1).map(|cell| batch.input_ids[cell]).collect()
            };
            for (idx, one) in pairs.iter().enumerate() {
                for (side, completion) in [(idx, &one.chosen_ids), (idx + pairs.len(), &one.rejected_ids)] {
                    prop_assert_eq!(&select(side, &batch.completion_mask), completion);
                    prop_assert_eq!(select(side, &batch.attention_mask), [&*one.prompt_ids, completion].concat());
                    prop_assert_eq!(batch.lengths[side], one.prompt_ids.len() + completion.len());
                }
            }
        }
    }
}
