//! Attention of narrow heads, whose products are too thin for a matrix library: four queries at a time, against keys
//! and values that lie with a row for every dimension, so that vectors run over keys and scores never leave the
//! nearest cache.

use super::mask::Stream;
use super::{Attention, Rows, Sizes, softmax_terms};
use crate::kernel::Real;
use crate::vector::{self, LANES};
use std::ops::Range;

/// The widest head that is computed here; wider ones are left to the matrix library.
const WIDEST: usize = 32;
/// Queries that are computed at a time.
const GROUP: usize = 4;

/// Whether heads of this width are computed here.
pub(super) fn is_narrow(head: usize) -> bool {
    head <= WIDEST
}

/// One head's keys or values of a stream, `(head, stride)`: a row for every dimension, zero behind the last key.
struct Turned<R> {
    data: Vec<R>,
    stride: usize,
}

impl<R: Real> Turned<R> {
    fn zeros(keys: usize, head: usize) -> Self {
        let stride = keys.next_multiple_of(LANES);
        Self { data: vec![R::zero(); head * stride], stride }
    }

    fn new(rows: &Rows<R>, keys: usize, head: usize) -> Self {
        let mut turned = Self::zeros(keys, head);
        for (key, row) in rows.data.chunks(rows.stride).take(keys).enumerate() {
            for (d, value) in row[..head].iter().enumerate() {
                turned.data[d * turned.stride + key] = *value;
            }
        }
        turned
    }

    /// Adds this to dense rows, of which `at` are the keys'.
    fn add_to(&self, dense: &mut [R], head: usize, at: impl Iterator<Item = usize>) {
        for (key, row) in at.enumerate() {
            for (d, sum) in dense[row * head..(row + 1) * head].iter_mut().enumerate() {
                *sum += self.data[d * self.stride + key];
            }
        }
    }

    /// Everything from a key on: rows lie `stride` apart.
    fn from(&self, key: usize) -> (&[R], usize) {
        (&self.data[key..], self.stride)
    }

    /// `W` rows from dimension `d` on, some keys of each.
    fn rows<const W: usize>(&self, d: usize, keys: &Range<usize>) -> [&[R]; W] {
        std::array::from_fn(|w| {
            let row = (d + w) * self.stride;
            &self.data[row + keys.start..row + keys.end]
        })
    }
}

/// Queries that are computed together, and whole vectors of keys that hold all that they see.
struct Group {
    first: usize,
    count: usize,
    keys: Range<usize>,
}

impl Group {
    fn all(stream: &Stream) -> impl Iterator<Item = Self> + '_ {
        let n = stream.queries.len();
        (0..n).step_by(GROUP).map(move |first| {
            let count = GROUP.min(n - first);
            let (start, end) = (stream.visible(first).start, stream.visible(first + count - 1).end);
            Self { first, count, keys: start / LANES * LANES..end.next_multiple_of(LANES) }
        })
    }

    /// Copies the group's rows out of those of a stream, times `scale`, zero where there is no query.
    #[inline(always)]
    fn gather<R: Real>(&self, into: &mut [R], from: &[R], (head, stride): (usize, usize), scale: R) {
        for (row, into) in into.chunks_mut(head).enumerate() {
            match row < self.count {
                true => {
                    let from = &from[(self.first + row) * stride..][..head];
                    into.iter_mut().zip(from).for_each(|(into, from)| *into = *from * scale);
                }
                false => into.fill(R::zero()),
            }
        }
    }

    /// Softmax weights of each row in the place of its scores, but for a factor of the row.
    #[inline(always)]
    fn softmax_terms<R: Real, const FUSED: bool>(&self, stream: &Stream, scores: &mut [R]) -> [R; GROUP] {
        let mut factors = [R::one(); GROUP];
        for (row, scores) in scores.chunks_mut(self.keys.len()).enumerate() {
            if row >= self.count {
                scores.fill(R::zero());
                continue;
            }
            let seen = stream.visible(self.first + row);
            let seen = seen.start - self.keys.start..seen.end - self.keys.start;
            scores[..seen.start].fill(R::zero());
            scores[seen.end..].fill(R::zero());
            factors[row] = softmax_terms::<R, FUSED>(&mut scores[seen]);
        }
        factors
    }
}

/// One query head of a stream; slices begin with the stream's first query.
pub(super) struct Head<'a, R: Clone> {
    pub(super) attention: &'a Attention,
    pub(super) sizes: Sizes,
    pub(super) stream: &'a Stream,
    pub(super) q: &'a [R],
    pub(super) k: Rows<'a, R>,
    pub(super) v: Rows<'a, R>,
}

/// What is used for one group after the other.
struct Scratch<R> {
    q: Vec<R>,
    weights: Vec<R>,
}

impl<R: Real> Head<'_, R> {
    fn turned(&self) -> [Turned<R>; 2] {
        [&self.k, &self.v].map(|rows| Turned::new(rows, self.stream.n_keys(), self.sizes.head))
    }

    fn scratch(&self) -> Scratch<R> {
        let keys = self.stream.n_keys().next_multiple_of(LANES);
        Scratch { q: vec![R::zero(); GROUP * self.sizes.head], weights: vec![R::zero(); GROUP * keys] }
    }

    /// A group's scores after the cap, a dense row for each query; `scratch` gets its queries, times the scale.
    #[inline(always)]
    fn scores<const FUSED: bool>(&self, group: &Group, k: &Turned<R>, scratch: &mut Scratch<R>) {
        let (head, length) = (self.sizes.head, group.keys.len());
        let scale = R::of(self.attention.scores.scale);
        group.gather(&mut scratch.q, self.q, (head, self.sizes.width), scale);
        let scores = &mut scratch.weights[..GROUP * length];
        vector::products::<R, FUSED, GROUP>((scores, length), (&scratch.q, head), k.from(group.keys.start));
        if let Some(softcap) = self.attention.softcap() {
            softcap.apply(scores);
        }
    }
}

/// The outputs of a head, dense rows.
pub(super) struct Forward<'a, R: Clone> {
    pub(super) head: Head<'a, R>,
    pub(super) out: &'a mut [R],
}

impl<R: Real> vector::Loop for Forward<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { head, out } = self;
        let ([k, v], mut scratch) = (head.turned(), head.scratch());
        for group in Group::all(head.stream) {
            let length = group.keys.len();
            head.scores::<FUSED>(&group, &k, &mut scratch);
            let weights = &mut scratch.weights[..GROUP * length];
            let factors = group.softmax_terms::<R, FUSED>(head.stream, weights);
            let out = &mut out[group.first * head.sizes.head..][..group.count * head.sizes.head];
            sums::<R, FUSED>(out, head.sizes.head, (weights, length), (&v, &group.keys), factors);
        }
    }
}

/// `out[r][d] = factors[r] · Σ_i x[r][i] · y[d][i]` over some keys.
#[inline(always)]
fn sums<R: Real, const FUSED: bool>(
    out: &mut [R],
    head: usize,
    (x, length): (&[R], usize),
    (y, keys): (&Turned<R>, &Range<usize>),
    factors: [R; GROUP],
) {
    let x: [&[R]; GROUP] = std::array::from_fn(|row| &x[row * length..(row + 1) * length]);
    for d in (0..head / 2 * 2).step_by(2) {
        let sums = vector::dots::<R, FUSED, GROUP, 2, 0>(x, y.rows(d, keys));
        for (row, out) in out.chunks_mut(head).enumerate() {
            (out[d], out[d + 1]) = (factors[row] * sums[0][row], factors[row] * sums[1][row]);
        }
    }
    if !head.is_multiple_of(2) {
        let [sums] = vector::dots::<R, FUSED, GROUP, 1, 0>(x, y.rows(head - 1, keys));
        let scaled = sums.into_iter().zip(factors).map(|(sum, factor)| factor * sum);
        out.chunks_mut(head).zip(scaled).for_each(|(out, sum)| out[head - 1] = sum);
    }
}

/// `into[d][i] += Σ_r rows[r][d] · x[r][i]` for some keys.
#[inline(always)]
fn add<R: Real, const FUSED: bool>(
    (into, keys): (&mut Turned<R>, &Range<usize>),
    (rows, head): (&[R], usize),
    x: &[R],
) {
    let stride = into.stride;
    let factors = |d: usize| std::array::from_fn(|row| rows[row * head + d]);
    for d in (0..head / 2 * 2).step_by(2) {
        let into = &mut into.data[d * stride + keys.start..];
        let factors = [factors(d), factors(d + 1)];
        vector::accumulate::<R, FUSED, GROUP, 2>((into, stride), factors, (x, keys.len()));
    }
    if !head.is_multiple_of(2) {
        let into = &mut into.data[(head - 1) * stride + keys.start..];
        vector::accumulate::<R, FUSED, GROUP, 1>((into, stride), [factors(head - 1)], (x, keys.len()));
    }
}

/// Adds the gradients of a head: `dq` from the stream's first query on, `dk` and `dv` those of the whole row, all dense.
pub(super) struct Backward<'a, R: Clone> {
    pub(super) head: Head<'a, R>,
    /// The outputs and their gradients, as `q`.
    pub(super) output: &'a [R],
    pub(super) grad: &'a [R],
    pub(super) dq: &'a mut [R],
    pub(super) dk: &'a mut [R],
    pub(super) dv: &'a mut [R],
}

impl<R: Real> vector::Loop for Backward<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { head, output, grad, dq, dk, dv } = self;
        let (width, stride, keys) = (head.sizes.head, head.sizes.width, head.stream.n_keys());
        let ([k, v], mut scratch) = (head.turned(), head.scratch());
        let [mut dk_turned, mut dv_turned] = [Turned::zeros(keys, width), Turned::zeros(keys, width)];
        let (mut capped, mut g) = (Vec::new(), scratch.q.clone());
        let mut d_scores = scratch.weights.clone();
        for group in Group::all(head.stream) {
            let length = group.keys.len();
            head.scores::<FUSED>(&group, &k, &mut scratch);
            let weights = &mut scratch.weights[..GROUP * length];
            let softcap = head.attention.softcap();
            capped.clear();
            capped.extend_from_slice(if softcap.is_some() { weights } else { &[] });
            let factors = group.softmax_terms::<R, FUSED>(head.stream, weights);
            for (weights, factor) in weights.chunks_mut(length).zip(factors) {
                weights.iter_mut().for_each(|weight| *weight *= factor);
            }
            // dV += Pᵀ dO and dP = dO Vᵀ.
            group.gather(&mut g, grad, (width, stride), R::one());
            add::<R, FUSED>((&mut dv_turned, &group.keys), (&g, width), weights);
            let d_scores = &mut d_scores[..GROUP * length];
            vector::products::<R, FUSED, GROUP>((d_scores, length), (&g, width), v.from(group.keys.start));
            // dS = P ∘ (dP − rowsum(dO ∘ O)).
            for row in 0..group.count {
                let o = &output[(group.first + row) * stride..][..width];
                let dot: R = o.iter().zip(&g[row * width..]).map(|(o, g)| *o * *g).sum();
                let row = row * length..(row + 1) * length;
                d_scores[row.clone()]
                    .iter_mut()
                    .zip(&weights[row])
                    .for_each(|(ds, p)| *ds = *p * (*ds - dot));
            }
            if let Some(softcap) = softcap {
                d_scores.iter_mut().zip(&capped).for_each(|(ds, s)| *ds *= softcap.slope(*s));
            }
            let dq = &mut dq[group.first * width..][..group.count * width];
            let scale = R::of(head.attention.scores.scale);
            sums::<R, FUSED>(dq, width, (d_scores, length), (&k, &group.keys), [scale; GROUP]);
            // The queries carry the scale.
            add::<R, FUSED>((&mut dk_turned, &group.keys), (&scratch.q, width), d_scores);
        }
        let rows = || head.stream.keys.iter().cloned().flatten();
        dk_turned.add_to(dk, width, rows());
        dv_turned.add_to(dv, width, rows());
    }
}
