//! Which keys a query sees, and in what pieces attention is computed.

use std::ops::Range;
use std::sync::Arc;

/// Queries that are multiplied with the keys at a time.
const BLOCK: usize = 64;

/// Which keys a query may look at.
///
/// Query `i` of `Tq` stands at key position `Tk − Tq + i`, so that the newest queries of a cached generation and the
/// whole sequence of a training step are written alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttentionMask {
    /// No key behind the query's own position.
    pub causal: bool,
    /// With `causal`: only that many newest keys, the query's own included (sliding window).
    pub window: Option<usize>,
    /// The first key of each batch row that holds a token (left padding); none means 0 everywhere.
    pub first_key: Option<Vec<usize>>,
    /// With `causal`, as many keys as queries and no padding: the segments of which every batch row consists.
    pub segments: Option<Arc<[Segment]>>,
}

/// Tokens of a row that follow each other, and those before them that they also see.
///
/// A prompt with two completions is three segments: the prompt without a context, and each completion in the context
/// of the prompt. So the prompt is computed once, and neither completion sees the other. A sequence that shares no
/// prefix is a segment by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The tokens, as positions in the row; segments follow each other without a gap.
    pub tokens: Range<usize>,
    /// What precedes the tokens, oldest first.
    pub context: Vec<Range<usize>>,
}

impl AttentionMask {
    /// Every query sees every key.
    #[must_use]
    pub fn full() -> Self {
        Self::default()
    }

    /// Every query sees its own position and those before it.
    #[must_use]
    pub fn causal() -> Self {
        Self { causal: true, ..Self::default() }
    }

    /// Every token sees its segment up to itself, and its segment's context.
    #[must_use]
    pub fn tree(segments: Arc<[Segment]>) -> Self {
        Self { segments: Some(segments), ..Self::causal() }
    }

    /// Whether the mask makes sense for `rows` batch rows of that many queries and keys.
    pub(super) fn fits(&self, rows: usize, queries: usize, keys: usize) -> bool {
        let padding_fits = self.first_key.as_ref().is_none_or(|first| first.len() == rows);
        let segments_fit = self.segments.as_ref().is_none_or(|segments| {
            let mut end = 0;
            let in_order = segments.iter().all(|segment| {
                let starts = segment.tokens.start == end && segment.tokens.end > end;
                let context = segment.context.iter().all(|range| range.end <= end);
                end = segment.tokens.end;
                starts && context
            });
            in_order && end == queries && queries == keys && self.causal && self.first_key.is_none()
        });
        (!self.causal || queries <= keys) && padding_fits && segments_fit
    }

    /// The streams of a batch row.
    pub(in crate::ops) fn streams(&self, row: usize, queries: usize, keys: usize) -> Vec<Stream> {
        let stream = |queries, keys, first_key| Stream {
            queries,
            keys,
            first_key,
            causal: self.causal,
            window: self.window.filter(|_| self.causal),
        };
        let Some(segments) = &self.segments else {
            let first = self.first_key.as_ref().map_or(0, |first| first[row]);
            return vec![stream(0..queries, vec![Range { start: 0, end: keys }], first)];
        };
        let keys = |segment: &Segment| {
            let mut keys: Vec<Range<usize>> = Vec::with_capacity(segment.context.len() + 1);
            for range in segment.context.iter().chain([&segment.tokens]).filter(|range| !range.is_empty()) {
                match keys.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => keys.push(range.clone()),
                }
            }
            keys
        };
        segments.iter().map(|segment| stream(segment.tokens.clone(), keys(segment), 0)).collect()
    }
}

/// Queries that follow each other and their keys, of which the newest belongs to the newest query.
pub(in crate::ops) struct Stream {
    pub(super) queries: Range<usize>,
    /// Ranges of the row; below, keys are counted through all of them.
    pub(super) keys: Vec<Range<usize>>,
    first_key: usize,
    causal: bool,
    window: Option<usize>,
}

/// A block of a stream's queries, counted from its first, and the keys that at least one of them sees.
pub(super) struct Block {
    pub(super) queries: Range<usize>,
    pub(super) keys: Range<usize>,
}

impl Stream {
    /// Number of keys.
    pub(super) fn n_keys(&self) -> usize {
        self.keys.iter().map(ExactSizeIterator::len).sum()
    }

    /// The keys that query `query` of this stream sees, never empty.
    pub(in crate::ops) fn visible(&self, query: usize) -> Range<usize> {
        let total = self.n_keys();
        let end = if self.causal { total - self.queries.len() + query + 1 } else { total };
        let oldest = self.window.map_or(0, |window| end.saturating_sub(window));
        // A padding query sees itself: a row without any key would be 0/0.
        oldest.max(self.first_key).min(end - 1)..end
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        let n = self.queries.len();
        (0..n).step_by(BLOCK).map(move |start| {
            let queries = start..(start + BLOCK).min(n);
            let keys = self.visible(queries.start).start..self.visible(queries.end - 1).end;
            Block { queries, keys }
        })
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a context is a list of ranges, often of one")]
mod tests {
    use super::*;

    fn segments(of: &[(Range<usize>, &[Range<usize>])]) -> AttentionMask {
        let segment = |(tokens, context): &(Range<usize>, &[Range<usize>])| Segment {
            tokens: tokens.clone(),
            context: context.to_vec(),
        };
        AttentionMask::tree(of.iter().map(segment).collect())
    }

    #[test]
    fn a_completion_sees_its_prompt_and_itself() {
        // A prompt of 3 tokens, completions of 2 and 1.
        let mask = segments(&[(0..3, &[]), (3..5, &[0..3]), (5..6, &[0..3])]);
        assert!(mask.fits(1, 6, 6));
        let streams = mask.streams(0, 6, 6);
        assert_eq!(streams[0].visible(1), 0..2);
        // Adjacent ranges are one.
        assert_eq!((&*streams[1].keys, streams[1].visible(0)), (&[0..5][..], 0..4));
        assert_eq!((&*streams[2].keys, streams[2].visible(0)), (&[0..3, 5..6][..], 0..4));
    }

    #[test]
    fn segments_that_leave_a_gap_or_look_ahead_do_not_fit() {
        assert!(!segments(&[(0..3, &[]), (4..6, &[])]).fits(1, 6, 6));
        assert!(!segments(&[(0..3, &[3..6]), (3..6, &[])]).fits(1, 6, 6));
        assert!(!segments(&[(0..3, &[])]).fits(1, 6, 6));
        assert!(!segments(&[(0..6, &[])]).fits(1, 6, 7));
    }
}
