//! Rows of tokens laid one after the other, what several begin with only once.
//!
//! A causal model computes the same for a prompt whatever follows it, so a prompt with two completions is computed as
//! `[prompt | chosen | rejected]`: both completions stand at the positions behind the prompt, and see it and themselves.
//! The tree is found by comparing tokens, so it serves pairs, lists and batches that share an instruction alike; rows
//! that begin differently are packed side by side without padding.
//!
//! Source: Wang & Hegde, arXiv:2410.20305 (prefix sharing for pairs).

use std::ops::Range;
use std::sync::Arc;
use votive_tensor::Segment;

/// The beginning of a text of `length` tokens.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) tokens: Vec<u32>,
    pub(crate) length: usize,
}

/// The tokens of some rows as one sequence of N.
#[derive(Clone, Debug)]
pub(crate) struct PrefixTree {
    /// `(N,)`.
    pub(crate) ids: Vec<u32>,
    /// `(N,)`; position of each token in its row.
    pub(crate) positions: Vec<usize>,
    /// `(N,)`; length of the text that each token belongs to, or of one that it does not matter to be instead.
    pub(crate) lengths: Vec<usize>,
    /// Which tokens see which.
    pub(crate) segments: Arc<[Segment]>,
    /// Where each row's tokens lie, in their order.
    rows: Vec<Vec<Range<usize>>>,
}

/// Rows, as a range of the sorted ones, that share `depth` tokens, which lie in `context`, and at least the next one.
struct Branch {
    rows: Range<usize>,
    depth: usize,
    context: Vec<Range<usize>>,
}

impl PrefixTree {
    /// Lays out the beginnings of texts; those of more than `short` tokens share nothing with the others.
    pub(crate) fn new(texts: &[Text], short: Option<usize>) -> Self {
        let rows: Vec<&[u32]> = texts.iter().map(|text| &*text.tokens).collect();
        let is_long = |row: &usize| short.is_some_and(|short| texts[*row].length > short);
        let mut sorted: Vec<usize> = (0..rows.len()).collect();
        sorted.sort_by_key(|row| (is_long(row), rows[*row]));
        let n_short = sorted.partition_point(|row| !is_long(row));
        let mut tree = Self {
            ids: vec![],
            positions: vec![],
            lengths: vec![],
            segments: [].into(),
            rows: vec![vec![]; rows.len()],
        };
        let mut segments = Vec::new();
        let mut open = branches(&rows, &sorted, n_short..rows.len(), 0, &[]);
        open.extend(branches(&rows, &sorted, 0..n_short, 0, &[]));
        while let Some(Branch { rows: group, depth, mut context }) = open.pop() {
            let (first, last) = (rows[sorted[group.start]], rows[sorted[group.end - 1]]);
            // Sorted rows between two that begin alike begin so too.
            let end = first.iter().zip(last).take_while(|(a, b)| a == b).count();
            let tokens = tree.ids.len()..tree.ids.len() + end - depth;
            tree.ids.extend_from_slice(&first[depth..end]);
            tree.positions.extend(depth..end);
            tree.lengths.resize(tree.ids.len(), texts[sorted[group.start]].length);
            segments.push(Segment { tokens: tokens.clone(), context: context.clone() });
            context.push(tokens);
            for row in &sorted[group.clone()] {
                if rows[*row].len() == end {
                    tree.rows[*row].clone_from(&context);
                }
            }
            open.extend(branches(&rows, &sorted, group, end, &context));
        }
        tree.segments = segments.into();
        tree
    }

    /// Where the token at `position` of `row` lies.
    pub(crate) fn place(&self, row: usize, position: usize) -> Option<usize> {
        let mut rest = position;
        for range in &self.rows[row] {
            match rest.checked_sub(range.len()) {
                None => return Some(range.start + rest),
                Some(behind) => rest = behind,
            }
        }
        None
    }
}

/// The rows of `group` that go on at `depth`, by their next token, the last such token first.
fn branches(
    rows: &[&[u32]],
    sorted: &[usize],
    group: Range<usize>,
    depth: usize,
    context: &[Range<usize>],
) -> Vec<Branch> {
    let next = |at: usize| rows[sorted[at]].get(depth);
    let mut branches = Vec::new();
    let mut start = group.start;
    for end in group.start + 1..=group.end {
        if end == group.end || next(end) != next(start) {
            if next(start).is_some() {
                branches.push(Branch { rows: start..end, depth, context: context.to_vec() });
            }
            start = end;
        }
    }
    branches.reverse();
    branches
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[expect(clippy::single_range_in_vec_init, reason = "a context is a list of ranges, often of one")]
mod tests {
    use super::*;
    use votive_tensor::random::{Draws, Stream};

    fn tree(rows: &[&[u32]]) -> PrefixTree {
        let texts: Vec<Text> =
            rows.iter().map(|row| Text { tokens: row.to_vec(), length: row.len() + 1 }).collect();
        PrefixTree::new(&texts, None)
    }

    #[test]
    fn long_texts_share_with_long_ones_only() {
        let text = |tokens: &[u32], length| Text { tokens: tokens.to_vec(), length };
        let texts = [text(&[7, 8, 1], 9), text(&[7, 8, 2], 4), text(&[7, 8, 3], 10)];
        let tree = PrefixTree::new(&texts, Some(8));
        assert_eq!(tree.ids, [7, 8, 2, 7, 8, 1, 3]);
        assert_eq!(tree.lengths, [4, 4, 4, 9, 9, 9, 10]);
    }

    #[test]
    fn a_pair_is_its_prompt_and_two_completions() {
        let tree = tree(&[&[7, 8, 3, 4], &[7, 8, 2]]);
        assert_eq!(tree.ids, [7, 8, 2, 3, 4]);
        assert_eq!(tree.positions, [0, 1, 2, 2, 3]);
        let segment = |tokens, context: &[Range<usize>]| Segment { tokens, context: context.to_vec() };
        assert_eq!(*tree.segments, [segment(0..2, &[]), segment(2..3, &[0..2]), segment(3..5, &[0..2])]);
        assert_eq!((tree.place(0, 3), tree.place(1, 2), tree.place(1, 3)), (Some(4), Some(2), None));
    }

    #[test]
    fn equal_rows_and_rows_that_end_inside_another_take_no_place_of_their_own() {
        let tree = tree(&[&[1, 2, 3], &[1, 2], &[], &[1, 2, 3], &[5]]);
        assert_eq!(tree.ids, [1, 2, 3, 5]);
        assert_eq!((tree.place(1, 1), tree.place(3, 2), tree.place(2, 0)), (Some(1), Some(2), None));
    }

    /// Few ids, so that rows share much.
    #[test]
    fn every_row_is_found_and_sees_just_its_own_tokens() {
        for seed in 0..200 {
            let mut draws = Draws::new(seed, Stream::World, 0, 0);
            let n_rows = 1 + draws.below(6);
            let rows: Vec<Vec<u32>> = (0..n_rows)
                .map(|_| (0..draws.below(7)).map(|_| draws.below(2) as u32).collect::<Vec<_>>())
                .collect();
            let tree = tree(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
            for (row, tokens) in rows.iter().enumerate() {
                for (position, id) in tokens.iter().enumerate() {
                    let place = tree.place(row, position).unwrap();
                    assert_eq!((tree.ids[place], tree.positions[place]), (*id, position));
                    let own = tree.segments.iter().find(|segment| segment.tokens.contains(&place)).unwrap();
                    let seen = own.context.iter().cloned().flatten().chain(own.tokens.start..=place);
                    let expected: Vec<usize> = (0..=position).map(|p| tree.place(row, p).unwrap()).collect();
                    assert_eq!(seen.collect::<Vec<_>>(), expected, "rows {rows:?}");
                }
            }
            // No two places begin alike: what could be shared is.
            let distinct: std::collections::BTreeSet<&[u32]> =
                rows.iter().flat_map(|row| (1..=row.len()).map(|end| &row[..end])).collect();
            assert_eq!(tree.ids.len(), distinct.len());
        }
    }
}
