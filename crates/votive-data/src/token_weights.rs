//! How much the tokens of a pair's completions count, by what the rows themselves say.
//!
//! Source: Wu et al. 2025 (IterPref), arXiv:2503.02783, for lines that differ; Buehler 2024 (PRefLexOR), arXiv:2410.12375, for
//! what stands behind a mark. Departures: lines are cut at tokens that hold a line break, so a token that holds more
//! than the break belongs to the line that it ends.

use std::ops::Range;

/// Weights of the chosen and of the rejected completion's tokens, where only the rejected one's lines count that the chosen
/// one does not have: the chosen one counts in full. Lines are compared in order (longest common subsequence);
/// `ends_line` says whether a token holds a line break.
#[must_use]
pub fn differing_lines(chosen: &[u32], rejected: &[u32], ends_line: impl Fn(u32) -> bool) -> [Vec<f32>; 2] {
    let (ours, theirs) = (lines(chosen, &ends_line), lines(rejected, &ends_line));
    let is_same = |i: usize, j: usize| chosen[ours[i].clone()] == rejected[theirs[j].clone()];
    // longest[i][j]: lines that both have from i and j on.
    let mut longest = vec![vec![0usize; theirs.len() + 1]; ours.len() + 1];
    for i in (0..ours.len()).rev() {
        for j in (0..theirs.len()).rev() {
            longest[i][j] = match is_same(i, j) {
                true => longest[i + 1][j + 1] + 1,
                false => longest[i + 1][j].max(longest[i][j + 1]),
            };
        }
    }
    let mut weights = vec![1.0; rejected.len()];
    let (mut i, mut j) = (0, 0);
    while i < ours.len() && j < theirs.len() {
        if is_same(i, j) {
            weights[theirs[j].clone()].fill(0.0);
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    [vec![1.0; chosen.len()], weights]
}

/// Spans of lines, each with the token that ends it.
fn lines(ids: &[u32], ends_line: impl Fn(u32) -> bool) -> Vec<Range<usize>> {
    let mut start = 0;
    ids.chunk_by(|id, _| !ends_line(*id))
        .map(|line| {
            let span = start..start + line.len();
            start = span.end;
            span
        })
        .collect()
}

/// Weights of a completion's tokens, where only those behind the last mark count; all of them if there is no mark.
#[must_use]
pub fn after_last(ids: &[u32], mark: &[u32]) -> Vec<f32> {
    let last = match mark.is_empty() {
        true => None,
        false => ids.windows(mark.len()).rposition(|window| window == mark),
    };
    let first = last.map_or(0, |at| at + mark.len());
    (0..ids.len()).map(|place| if place < first { 0.0 } else { 1.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Token 0 is a line break.
    fn rejected_weights(chosen: &[u32], rejected: &[u32]) -> Vec<f32> {
        let [of_chosen, of_rejected] = differing_lines(chosen, rejected, |id| id == 0);
        assert_eq!(of_chosen, vec![1.0; chosen.len()]);
        of_rejected
    }

    #[test]
    fn only_lines_that_the_chosen_one_does_not_have_count() {
        assert_eq!(
            rejected_weights(&[1, 0, 2, 3, 0, 4], &[1, 0, 2, 9, 0, 4]),
            [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
        );
        // A line more, one less, and one in another place.
        assert_eq!(rejected_weights(&[1, 0, 2, 0], &[1, 0, 7, 0, 2, 0]), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(rejected_weights(&[1, 0, 7, 0, 2, 0], &[1, 0, 2, 0]), [0.0; 4]);
        assert_eq!(rejected_weights(&[1, 0, 2, 0], &[2, 0, 1, 0]), [0.0, 0.0, 1.0, 1.0]);
        // The break at the end of a text is part of its last line.
        assert_eq!(rejected_weights(&[1, 0, 2, 0], &[1, 0, 2]), [0.0, 0.0, 1.0]);
        assert_eq!(rejected_weights(&[5, 6], &[5, 6]), [0.0, 0.0]);
        assert_eq!(rejected_weights(&[5], &[]), [0f32; 0]);
    }

    #[test]
    fn only_what_stands_behind_the_last_mark_counts() {
        assert_eq!(after_last(&[1, 8, 9, 2, 8, 9, 3], &[8, 9]), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(after_last(&[1, 8, 2], &[8, 9]), [1.0; 3]);
        assert_eq!(after_last(&[8, 9], &[8, 9]), [0.0, 0.0]);
        assert_eq!(after_last(&[1, 2], &[]), [1.0; 2]);
    }
}
