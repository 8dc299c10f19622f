//! Each query has a lane of a vector to itself: it passes key after key, and its scores never leave the registers.

use super::super::head::{Head, Softmax};
use crate::kernel::Real;
use crate::vector::{MOST, Wide, WideLoop, transpose};
use std::ops::Range;

/// Keys that are passed together: their scores wait for each other in registers.
const KEYS: usize = 8;

/// The outputs of a head, dense rows, and what the backward needs of each query.
pub(in super::super) struct Forward<'a, R: Clone> {
    pub(in super::super) head: Head<'a, R>,
    pub(in super::super) out: &'a mut [R],
    pub(in super::super) softmax: &'a mut [Softmax<R>],
}

impl<R: Real> WideLoop<R> for Forward<'_, R> {
    #[inline(always)]
    fn run<W: Wide<R>>(self) {
        match self.head.attention.softcap() {
            None => self.scored_by::<W, false>(),
            Some(_) => self.scored_by::<W, true>(),
        }
    }
}

impl<R: Real> Forward<'_, R> {
    #[inline(always)]
    fn scored_by<W: Wide<R>, const CAPPED: bool>(self) {
        match self.head.width() {
            8 => self.rows_of::<W, CAPPED, 8>(),
            16 => self.rows_of::<W, CAPPED, 16>(),
            24 => self.rows_of::<W, CAPPED, 24>(),
            _ => self.rows_of::<W, CAPPED, 32>(),
        }
    }

    /// All groups of queries, with rows of `D` numbers. What is rare is compiled apart, because a compiler that finds it in the loop leaves
    /// vectors in memory.
    #[inline(always)]
    fn rows_of<W: Wide<R>, const CAPPED: bool, const D: usize>(self) {
        let Self { head, out, softmax } = self;
        let (queries, keys) = (head.stream.queries.len(), head.stream.n_keys());
        let padded = queries.next_multiple_of(W::COUNT);
        let mut rows = head.scaled_queries((padded, D));
        let mut turned = vec![R::zero(); D * padded];
        transpose((&rows, D), (&mut turned, padded));
        let [mut k, mut v] = [Vec::new(), Vec::new()];
        head.gather(&(0..keys), &head.k, (&mut k, keys.next_multiple_of(KEYS)));
        head.gather(&(0..keys), &head.v, (&mut v, keys.next_multiple_of(KEYS)));
        for first in (0..queries).step_by(W::COUNT) {
            let q = columns::<R, W, D>(&turned[first..], padded);
            let group = Group::<W>::new(&head, first);
            let (outputs, state) = group.outputs::<R, CAPPED, D>(&head, q, (&k, &v));
            for (d, output) in outputs.into_iter().enumerate() {
                output.store(&mut turned[d * padded + first..]);
            }
            let mut lanes = [[R::zero(); MOST]; 2];
            lanes.iter_mut().zip(state).for_each(|(lanes, state)| state.store(lanes));
            for (lane, softmax) in softmax[first..].iter_mut().take(W::COUNT).enumerate() {
                *softmax = [lanes[0][lane], lanes[1][lane]];
            }
        }
        transpose((&turned, padded), (&mut rows, D));
        for (out, row) in out.chunks_mut(head.sizes.head).zip(rows.chunks(D)) {
            out.copy_from_slice(&row[..out.len()]);
        }
    }
}

/// A vector from each of `D` rows that lie `stride` apart.
#[inline(always)]
fn columns<R: Real, W: Wide<R>, const D: usize>(from: &[R], stride: usize) -> [W; D] {
    let mut columns = [W::same(R::zero()); D];
    columns.iter_mut().enumerate().for_each(|(d, column)| *column = W::load(&from[d * stride..]));
    columns
}

/// Queries that are computed together, and the first and the last key that each of them sees.
struct Group<W> {
    first_seen: W,
    last_seen: W,
    /// Keys that any of them sees, and those that all of them see.
    any: Range<usize>,
    all: Range<usize>,
}

impl<W> Group<W> {
    #[inline(always)]
    fn new<R: Real>(head: &Head<R>, first: usize) -> Self
    where
        W: Wide<R>,
    {
        let newest = (first + W::COUNT).min(head.stream.queries.len()) - 1;
        let [mut first_seen, mut last_seen] = [[R::zero(); MOST]; 2];
        for (lane, (first_seen, last_seen)) in first_seen.iter_mut().zip(&mut last_seen).enumerate() {
            let seen = head.stream.visible((first + lane).min(newest));
            *first_seen = R::of(seen.start as f64);
            *last_seen = R::of(seen.end as f64 - 1.0);
        }
        // What is seen begins and ends no earlier for a later query.
        let (oldest, newest) = (head.stream.visible(first), head.stream.visible(newest));
        Self {
            first_seen: W::load(&first_seen),
            last_seen: W::load(&last_seen),
            any: oldest.start..newest.end,
            all: newest.start..oldest.end,
        }
    }

    /// A vector of outputs for each dimension, and what was taken off the scores and the sum of their exponentials.
    #[inline(always)]
    fn outputs<R: Real, const CAPPED: bool, const D: usize>(
        &self,
        head: &Head<R>,
        q: [W; D],
        (k, v): (&[R], &[R]),
    ) -> ([W; D], [W; 2])
    where
        W: Wide<R>,
    {
        /// How far a score may lie above what is taken off it before that is raised.
        const SLACK: f64 = 8.0;
        let (zero, hidden, slack) = (W::same(R::zero()), W::same(R::neg_infinity()), W::same(R::of(SLACK)));
        let (k, v) = (k.as_chunks::<D>().0, v.as_chunks::<D>().0);
        let (mut outputs, mut sum) = ([zero; D], zero);
        // Below every score, and a number, which −∞ less −∞ is not.
        let mut shift = W::same(R::of(-1e30));
        for first in (self.any.start / KEYS * KEYS..self.any.end).step_by(KEYS) {
            let (Some(k), Some(v)) = (k[first..].first_chunk::<KEYS>(), v[first..].first_chunk::<KEYS>())
            else {
                break;
            };
            let mut scores = [zero; KEYS];
            for (d, q) in q.iter().enumerate() {
                for (score, k) in scores.iter_mut().zip(k) {
                    *score = W::same(k[d]).times_plus(*q, *score);
                }
            }
            if CAPPED && let Some(softcap) = head.attention.softcap() {
                for score in &mut scores {
                    let mut numbers = [R::zero(); MOST];
                    score.store(&mut numbers);
                    softcap.apply(&mut numbers[..W::COUNT]);
                    *score = W::load(&numbers);
                }
            }
            if first < self.all.start || first + KEYS > self.all.end {
                for (i, score) in scores.iter_mut().enumerate() {
                    let key = W::same(R::of((first + i) as f64));
                    *score = score.replaced_where(self.first_seen, key, hidden);
                    *score = score.replaced_where(key, self.last_seen, hidden);
                }
            }
            let [a, b, c, d, e, f, g, h] = scores;
            let [a, c, e, g] = [a.or_larger(b), c.or_larger(d), e.or_larger(f), g.or_larger(h)];
            let largest = a.or_larger(c).or_larger(e.or_larger(g));
            if largest.minus(shift).is_above(slack) {
                // Sums and outputs so far are measured against the new largest score.
                let raised = largest.or_larger(shift);
                let kept = shift.minus(raised).exponential();
                sum = sum.times(kept);
                outputs.iter_mut().for_each(|output| *output = output.times(kept));
                shift = raised;
            }
            let mut weights = [zero; KEYS];
            for (weight, score) in weights.iter_mut().zip(scores) {
                *weight = score.minus(shift).exponential();
            }
            let [a, b, c, d, e, f, g, h] = weights;
            let [a, c, e, g] = [a.plus(b), c.plus(d), e.plus(f), g.plus(h)];
            sum = sum.plus(a.plus(c).plus(e.plus(g)));
            for (weight, v) in weights.iter().zip(v) {
                for (output, v) in outputs.iter_mut().zip(v) {
                    *output = W::same(*v).times_plus(*weight, *output);
                }
            }
        }
        let mut ones = [R::one(); MOST];
        let mut sums = ones;
        sum.store(&mut sums);
        ones.iter_mut().zip(sums).for_each(|(one, sum)| *one /= sum);
        let inverse = W::load(&ones);
        outputs.iter_mut().for_each(|output| *output = output.times(inverse));
        (outputs, [shift, sum])
    }
}
