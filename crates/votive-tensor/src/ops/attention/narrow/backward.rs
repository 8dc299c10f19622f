//! All queries pass a block of keys and values, eight at a time; rows of a block's keys are vectors.

use super::super::head::{Gradients, Head, Results};
use crate::kernel::Real;
use crate::vector::{self, LANES, MOST};
use std::ops::Range;

/// Queries that are computed at a time.
const GROUP: usize = LANES;

impl<R: Real> Head<'_, R> {
    /// The stream's keys in blocks.
    fn blocks(&self) -> impl Iterator<Item = Block> {
        /// Numbers of a block's keys: with its values 16 KiB, half of a small nearest cache.
        const NUMBERS: usize = 2048;
        let (keys, most) = (self.stream.n_keys(), NUMBERS / self.width() / MOST * MOST);
        (0..keys).step_by(most).map(move |first| {
            let keys = first..(first + most).min(keys);
            Block { length: keys.len().next_multiple_of(MOST), keys }
        })
    }

    /// Groups of queries that see keys of a block.
    fn groups(&self, block: &Block) -> impl Iterator<Item = Group> {
        let (n, keys) = (self.stream.queries.len(), block.keys.clone());
        let is_whole = keys.len() == block.length;
        (0..n).step_by(GROUP).filter_map(move |first| {
            let count = GROUP.min(n - first);
            let (oldest, newest) = (self.stream.visible(first), self.stream.visible(first + count - 1));
            let sees_all = is_whole && newest.start <= keys.start && oldest.end >= keys.end;
            let sees_any = oldest.start < keys.end && newest.end > keys.start;
            sees_any.then_some(Group { first, count, sees_all })
        })
    }

    /// A group's scores before the cap, a dense row for each query.
    #[inline(always)]
    fn scores<const FUSED: bool>(&self, block: &Block, q: &[R], keys: &[R], scores: &mut [R]) {
        let x = (q, self.sizes.head);
        vector::products::<R, FUSED, GROUP>((scores, block.length), x, (keys, block.length));
    }

    /// Makes nothing of scores of keys that a query does not see.
    fn hide(&self, block: &Block, group: &Group, scores: &mut [R]) {
        if group.sees_all {
            return;
        }
        for (row, scores) in scores.chunks_mut(block.length).enumerate() {
            let seen = self.stream.visible(group.first + row.min(group.count - 1));
            let within = |key: usize| key.clamp(block.keys.start, block.keys.end) - block.keys.start;
            let seen = within(seen.start)..within(seen.end);
            scores[..seen.start].fill(R::neg_infinity());
            scores[seen.end.max(seen.start)..].fill(R::neg_infinity());
        }
    }
}

/// Keys that queries pass together, and the length of rows with a number for each of them.
struct Block {
    keys: Range<usize>,
    length: usize,
}

/// Queries that are computed together.
struct Group {
    first: usize,
    count: usize,
    sees_all: bool,
}

impl Group {
    /// The group's rows of `width` numbers, those too that only fill the group.
    fn rows(&self, width: usize) -> Range<usize> {
        self.first * width..(self.first + GROUP) * width
    }
}

/// `into[d][i] += Σ_r rows[r][d] · x[r][i]` for the keys of a block: a row of `into` for every dimension.
#[inline(always)]
fn add<R: Real, const FUSED: bool>(into: &mut [R], (rows, head): (&[R], usize), (x, length): (&[R], usize)) {
    let factors = |d: usize| std::array::from_fn(|row| rows[row * head + d]);
    for d in (0..head / 2 * 2).step_by(2) {
        let into = (&mut into[d * length..], length);
        vector::accumulate::<R, FUSED, GROUP, 2>(into, [factors(d), factors(d + 1)], (x, length));
    }
    if !head.is_multiple_of(2) {
        let into = (&mut into[(head - 1) * length..], length);
        vector::accumulate::<R, FUSED, GROUP, 1>(into, [factors(head - 1)], (x, length));
    }
}

/// Adds the gradients of a head.
pub(in super::super) struct Backward<'a, R: Clone> {
    pub(in super::super) head: Head<'a, R>,
    pub(in super::super) results: Results<'a, R>,
    pub(in super::super) gradients: Gradients<'a, R>,
}

impl<R: Real> vector::Loop for Backward<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { head: this, results, gradients } = self;
        let (Results { output, grad, softmax }, Gradients { dq, dk, dv }) = (results, gradients);
        let (head, width) = (this.sizes.head, this.width());
        let queries = this.stream.queries.len().next_multiple_of(GROUP);
        let (q, g) = (this.scaled_queries((queries, head)), this.queries(grad, R::one(), (queries, head)));
        // What makes exponentials of scores to softmax weights, and rowsum(dO ∘ O); 0 where a row only fills a group.
        let (mut log_sums, mut dots) = (vec![R::zero(); queries], vec![R::zero(); queries]);
        log_sums.iter_mut().zip(softmax).for_each(|(log, [shift, sum])| *log = *shift + sum.ln());
        for ((dot, o), g) in dots.iter_mut().zip(output.chunks(this.sizes.width)).zip(g.chunks(head)) {
            *dot = o.iter().zip(g).map(|(o, g)| *o * *g).sum();
        }
        let mut d_queries = vec![R::zero(); queries * width];
        let (mut key_rows, mut value_rows, mut turned) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
        let (mut weights, mut d_scores, mut capped) = (Vec::new(), Vec::new(), Vec::new());
        let mut d_turned = [Vec::new(), Vec::new()];
        for block in this.blocks() {
            let length = block.length;
            this.gather(&block.keys, &this.k, (&mut key_rows, length));
            this.gather(&block.keys, &this.v, (&mut value_rows, length));
            for (turned, rows) in turned.iter_mut().zip([&key_rows, &value_rows]) {
                turned.resize(width * length, R::zero());
                vector::transpose((rows, width), (turned, length));
            }
            for d_turned in &mut d_turned {
                d_turned.clear();
                d_turned.resize(width * length, R::zero());
            }
            let ([keys, values], [d_keys, d_values]) = (&turned, &mut d_turned);
            weights.resize(GROUP * length, R::zero());
            d_scores.resize(GROUP * length, R::zero());
            for group in this.groups(&block) {
                let (q, g) = (&q[group.rows(head)], &g[group.rows(head)]);
                this.scores::<FUSED>(&block, q, keys, &mut weights);
                let softcap = this.attention.softcap();
                if let Some(softcap) = softcap {
                    softcap.apply(&mut weights);
                    capped.clone_from(&weights);
                }
                this.hide(&block, &group, &mut weights);
                for (weights, log_sum) in weights.chunks_mut(length).zip(&log_sums[group.rows(1)]) {
                    vector::exponentials::<R, FUSED>(weights, *log_sum);
                }
                // dV += Pᵀ dO and dP = dO Vᵀ.
                add::<R, FUSED>(d_values, (g, head), (&weights, length));
                this.scores::<FUSED>(&block, g, values, &mut d_scores);
                // dS = P ∘ (dP − rowsum(dO ∘ O)).
                let rows = d_scores.chunks_mut(length).zip(weights.chunks(length));
                for ((d_scores, weights), dot) in rows.zip(&dots[group.rows(1)]) {
                    d_scores.iter_mut().zip(weights).for_each(|(ds, p)| *ds = *p * (*ds - *dot));
                }
                if let Some(softcap) = softcap {
                    d_scores.iter_mut().zip(&capped).for_each(|(ds, s)| *ds *= softcap.slope(*s));
                }
                let d_queries = (&mut d_queries[group.rows(width)], width);
                let key_rows = (&key_rows[..], block.keys.len());
                vector::add_weighted_rows::<R, FUSED>(d_queries, (&d_scores, length), key_rows);
                // The queries carry the scale.
                add::<R, FUSED>(d_keys, (q, head), (&d_scores, length));
            }
            for (turned, (rows, sums)) in
                d_turned.iter().zip([(&mut key_rows, &mut *dk), (&mut value_rows, &mut *dv)])
            {
                vector::transpose((turned, length), (rows, width));
                this.add_to_keys(sums, block.keys.clone(), (rows, width));
            }
        }
        let scale = R::of(this.attention.scores.scale);
        for (sums, new) in dq.chunks_mut(head).zip(d_queries.chunks(width)) {
            sums.iter_mut().zip(new).for_each(|(sum, new)| *sum += *new * scale);
        }
    }
}
