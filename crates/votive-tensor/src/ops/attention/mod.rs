//! Scaled dot-product attention with grouped queries; masked blocks are not computed, and the (T × T) weights are
//! not kept for the backward but computed again.

mod mask;
mod narrow;

pub use mask::{AttentionMask, Segment};

use super::few_queries;
use super::softcap::Softcap;
use crate::kernel::{Kernel, Matrix, Real, Threads, View, apply, matmul};
use crate::vector;
use candle_core::{D, Result, Tensor};
use mask::{Block, Stream};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// What becomes of the products of queries and keys before the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// They are multiplied by this, usually `1/√D`.
    pub scale: f64,
    /// Then squeezed into ± this, by `cap · tanh(score / cap)`.
    pub softcap: Option<f64>,
}

impl From<f64> for Scores {
    fn from(scale: f64) -> Self {
        Self { scale, softcap: None }
    }
}

/// Attention of `heads` query heads over `kv_heads` key and value heads.
///
/// # Shapes
/// `q (B, Tq, heads·D)`, `k` and `v (B, Tk, kv_heads·D)` → `(B, Tq, heads·D)`.
/// # Numerics
/// Softmax with the row maximum subtracted.
/// # Errors
/// If the sizes don't fit, `kv_heads` does not divide `heads`, or causal queries outnumber the keys.
/// # Source
/// Vaswani et al., arXiv:1706.03762, Eq. 1; grouped queries: Ainslie et al., arXiv:2305.13245; recomputed weights:
/// Dao et al., arXiv:2205.14135; shared prefixes: arXiv:2410.20305.
pub fn attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    heads: usize,
    kv_heads: usize,
    scores: impl Into<Scores>,
    mask: &AttentionMask,
) -> Result<Tensor> {
    let op = Attention { heads, kv_heads, scores: scores.into(), mask: mask.clone() };
    op.shape(&[q.dims(), k.dims(), v.dims()])?;
    match few_queries::attention(&op, [q, k, v])? {
        Some(result) => Ok(result),
        None => apply(op, &[q, k, v]),
    }
}

#[derive(Clone)]
pub(super) struct Attention {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) scores: Scores,
    pub(super) mask: AttentionMask,
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    queries: usize,
    keys: usize,
    width: usize,
    kv_width: usize,
    head: usize,
}

/// One head of a stream's keys or values: key `i` is `data[i · stride..][..head]`.
struct Rows<'a, R: Clone> {
    data: Cow<'a, [R]>,
    stride: usize,
}

impl<'a, R: Real> Rows<'a, R> {
    /// One range is read where it lies, several are gathered.
    fn new(data: &'a [R], stride: usize, head: usize, ranges: &[Range<usize>]) -> Self {
        if let [range] = ranges {
            return Self { data: Cow::Borrowed(&data[range.start * stride..]), stride };
        }
        let rows = ranges.iter().cloned().flatten();
        let mut gathered = Vec::with_capacity(rows.clone().count() * head);
        rows.for_each(|row| gathered.extend_from_slice(&data[row * stride..row * stride + head]));
        Self { data: Cow::Owned(gathered), stride: head }
    }

    /// The rows of `range`, as a matrix (range, head).
    fn matrix(&self, range: &Range<usize>, head: usize) -> (&[R], Matrix) {
        (&self.data[range.start * self.stride..], Matrix::strided(range.len(), head, self.stride))
    }
}

impl Attention {
    fn sizes(&self, q: &[usize], k: &[usize]) -> Sizes {
        Sizes { rows: q[0], queries: q[1], keys: k[1], width: q[2], kv_width: k[2], head: q[2] / self.heads }
    }

    fn softcap(&self) -> Option<Softcap> {
        self.scores.softcap.map(Softcap)
    }

    /// Scores of a block, (queries, keys) dense in `scores`, those that the mask hides too; `q` starts at the stream's
    /// first query.
    fn scores<R: Real>(&self, sizes: Sizes, block: &Block, q: &[R], k: &Rows<R>, scores: &mut Vec<R>) {
        let (n, m) = (block.queries.len(), block.keys.len());
        scores.resize(n * m, R::zero());
        let (keys, shape) = k.matrix(&block.keys, sizes.head);
        let queries = Matrix::strided(n, sizes.head, sizes.width);
        matmul(
            (scores, Matrix::dense(n, m)),
            (&q[block.queries.start * sizes.width..], queries),
            (keys, shape.t()),
            R::of(self.scores.scale),
            false,
            Threads::One,
        );
        if let Some(softcap) = self.softcap() {
            softcap.apply(scores);
        }
    }

    /// One head's output for the queries of a stream, (queries, head) dense.
    fn head_forward<R: Real>(
        &self,
        sizes: Sizes,
        (row, stream, head): (usize, &Stream, usize),
        inputs: &[View<R>],
    ) -> Vec<R> {
        let (q, k, v) = self.head_inputs(sizes, (row, stream, head), inputs);
        let mut out = vec![R::zero(); stream.queries.len() * sizes.head];
        if narrow::is_narrow(sizes.head) {
            let head = narrow::Head { attention: self, sizes, stream, q, k, v };
            vector::run(narrow::Forward { head, out: &mut out });
            return out;
        }
        let mut weights = Vec::new();
        for block in stream.blocks() {
            let (n, m) = (block.queries.len(), block.keys.len());
            self.scores(sizes, &block, q, &k, &mut weights);
            vector::run(SoftmaxVisible { stream, block: &block, weights: &mut weights });
            matmul(
                (&mut out[block.queries.start * sizes.head..], Matrix::dense(n, sizes.head)),
                (&weights, Matrix::dense(n, m)),
                v.matrix(&block.keys, sizes.head),
                R::one(),
                false,
                Threads::One,
            );
        }
        out
    }

    /// A query head from the stream's first query on, and its keys and values.
    fn head_inputs<'a, R: Real>(
        &self,
        sizes: Sizes,
        (row, stream, head): (usize, &Stream, usize),
        inputs: &[View<'a, R>],
    ) -> (&'a [R], Rows<'a, R>, Rows<'a, R>) {
        let q_row = sizes.queries * sizes.width;
        let q = &inputs[0].data[..(row + 1) * q_row];
        let q = &q[row * q_row + stream.queries.start * sizes.width + head * sizes.head..];
        let k_row = sizes.keys * sizes.kv_width;
        let kv_head = head / (self.heads / self.kv_heads);
        let rows = |input: &View<'a, R>| {
            let data = &input.data[row * k_row + kv_head * sizes.head..(row + 1) * k_row];
            Rows::new(data, sizes.kv_width, sizes.head, &stream.keys)
        };
        (q, rows(&inputs[1]), rows(&inputs[2]))
    }
}

/// Softmax weights of a block in the place of its scores.
struct SoftmaxVisible<'a, R> {
    stream: &'a Stream,
    block: &'a Block,
    weights: &'a mut [R],
}

impl<R: Real> vector::Loop for SoftmaxVisible<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { stream, block, weights } = self;
        for (query, scores) in block.queries.clone().zip(weights.chunks_mut(block.keys.len())) {
            let seen = stream.visible(query);
            let seen = seen.start - block.keys.start..seen.end - block.keys.start;
            scores[..seen.start].fill(R::zero());
            scores[seen.end..].fill(R::zero());
            softmax::<R, FUSED>(&mut scores[seen]);
        }
    }
}

/// Softmax weights in the place of scores.
#[inline(always)]
fn softmax<R: Real, const FUSED: bool>(scores: &mut [R]) {
    let inverse = softmax_terms::<R, FUSED>(scores);
    scores.iter_mut().for_each(|score| *score *= inverse);
}

/// Softmax weights in the place of scores, but for a common factor, which it gives.
#[inline(always)]
fn softmax_terms<R: Real, const FUSED: bool>(scores: &mut [R]) -> R {
    let most = R::largest(scores);
    vector::exponentials::<R, FUSED>(scores, most).recip()
}

impl Kernel for Attention {
    const NAME: &'static str = "attention";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        let fits = match (dims[0], dims[1]) {
            ([b, tq, width], [rows, tk, kv_width]) => {
                dims[1] == dims[2]
                    && b == rows
                    && self.kv_heads > 0
                    && self.heads.is_multiple_of(self.kv_heads)
                    && width % self.heads == 0
                    && width / self.heads * self.kv_heads == *kv_width
                    && self.mask.fits(*b, *tq, *tk)
            }
            _ => false,
        };
        if !fits {
            candle_core::bail!(
                "attention: q {:?}, k {:?}, v {:?}, {} heads, {} key-value heads, mask {:?}",
                dims[0],
                dims[1],
                dims[2],
                self.heads,
                self.kv_heads,
                self.mask
            );
        }
        Ok(dims[0].to_vec())
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        let sizes = self.sizes(inputs[0].dims, inputs[1].dims);
        let streams: Vec<(usize, Stream)> = self.streams(sizes).collect();
        let tasks: Vec<(usize, &Stream, usize)> = streams
            .iter()
            .flat_map(|(row, stream)| (0..self.heads).map(move |head| (*row, stream, head)))
            .collect();
        let results: Vec<Vec<R>> =
            tasks.par_iter().map(|task| self.head_forward(sizes, *task, inputs)).collect();
        for ((row, stream, head), result) in tasks.iter().zip(&results) {
            let first = row * sizes.queries + stream.queries.start;
            scatter(result, &mut output[first * sizes.width..], sizes.head, head * sizes.head, sizes.width);
        }
    }

    fn backward<R: Real>(
        &self,
        inputs: &[View<R>],
        output: &[R],
        grad: &[R],
        _: &[bool],
    ) -> Vec<Option<Vec<R>>> {
        let sizes = self.sizes(inputs[0].dims, inputs[1].dims);
        let tasks: Vec<(usize, usize)> =
            (0..sizes.rows).flat_map(|row| (0..self.kv_heads).map(move |head| (row, head))).collect();
        let results: Vec<HeadGrads<R>> = tasks
            .par_iter()
            .map(|&(row, kv)| {
                let mut result = HeadGrads::zeros(sizes, self.heads / self.kv_heads);
                for stream in self.mask.streams(row, sizes.queries, sizes.keys) {
                    self.stream_backward(sizes, (row, &stream, kv), inputs, [output, grad], &mut result);
                }
                result
            })
            .collect();
        let mut dq = vec![R::zero(); inputs[0].data.len()];
        let mut dk = vec![R::zero(); inputs[1].data.len()];
        let mut dv = vec![R::zero(); inputs[2].data.len()];
        let group = self.heads / self.kv_heads;
        let (q_row, k_row) = (sizes.queries * sizes.width, sizes.keys * sizes.kv_width);
        for (&(row, kv), result) in tasks.iter().zip(&results) {
            for (i, dq_head) in result.dq.iter().enumerate() {
                let offset = (kv * group + i) * sizes.head;
                scatter(dq_head, &mut dq[row * q_row..], sizes.head, offset, sizes.width);
            }
            scatter(&result.dk, &mut dk[row * k_row..], sizes.head, kv * sizes.head, sizes.kv_width);
            scatter(&result.dv, &mut dv[row * k_row..], sizes.head, kv * sizes.head, sizes.kv_width);
        }
        vec![Some(dq), Some(dk), Some(dv)]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let sizes = self.sizes(inputs[0].dims(), inputs[1].dims());
        let rows: Vec<Tensor> = (0..sizes.rows)
            .map(|row| {
                let outputs: Vec<Tensor> = self
                    .mask
                    .streams(row, sizes.queries, sizes.keys)
                    .iter()
                    .map(|stream| self.composed_stream(sizes, (row, stream), inputs))
                    .collect::<Result<_>>()?;
                Tensor::cat(&outputs, 1)
            })
            .collect::<Result<_>>()?;
        Tensor::cat(&rows, 0)
    }
}

impl Attention {
    /// (row, stream) of all rows.
    fn streams(&self, sizes: Sizes) -> impl Iterator<Item = (usize, Stream)> + '_ {
        (0..sizes.rows).flat_map(move |row| {
            self.mask.streams(row, sizes.queries, sizes.keys).into_iter().map(move |stream| (row, stream))
        })
    }

    fn composed_stream(
        &self,
        sizes: Sizes,
        (row, stream): (usize, &Stream),
        inputs: &[&Tensor],
    ) -> Result<Tensor> {
        let (tq, tk) = (stream.queries.len(), stream.n_keys());
        let split = |x: Tensor, repeats: usize| -> Result<Tensor> {
            let t = x.dim(1)?;
            let x = x.reshape((1, t, self.heads / repeats, 1, sizes.head))?;
            let x = x.broadcast_as((1, t, self.heads / repeats, repeats, sizes.head))?;
            x.reshape((1, t, self.heads, sizes.head))?.transpose(1, 2)?.contiguous()
        };
        let keys = |x: &Tensor| -> Result<Tensor> {
            let x = x.narrow(0, row, 1)?;
            let ranges = stream.keys.iter().map(|range| x.narrow(1, range.start, range.len()));
            Tensor::cat(&ranges.collect::<Result<Vec<_>>>()?, 1)
        };
        let group = self.heads / self.kv_heads;
        let q = inputs[0].narrow(0, row, 1)?.narrow(1, stream.queries.start, tq)?;
        let (q, k, v) = (split(q, 1)?, split(keys(inputs[1])?, group)?, split(keys(inputs[2])?, group)?);
        let mut bias = vec![-1e9f32; tq * tk];
        for query in 0..tq {
            stream.visible(query).for_each(|key| bias[query * tk + key] = 0.0);
        }
        let bias = Tensor::from_vec(bias, (1, 1, tq, tk), q.device())?.to_dtype(q.dtype())?;
        let scores = (q.matmul(&k.t()?.contiguous()?)? * self.scores.scale)?;
        let scores = self.softcap().map_or(Ok(scores.clone()), |softcap| softcap.composed(&scores))?;
        let scores = scores.broadcast_add(&bias)?;
        let scores = scores.broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?.exp()?;
        let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
        weights.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((1, tq, sizes.width))
    }
}

/// Gradients of one key-value head of one batch row, dense.
struct HeadGrads<R> {
    /// One per query head of the group.
    dq: Vec<Vec<R>>,
    dk: Vec<R>,
    dv: Vec<R>,
}

impl<R: Real> HeadGrads<R> {
    fn zeros(sizes: Sizes, group: usize) -> Self {
        Self {
            dq: vec![vec![R::zero(); sizes.queries * sizes.head]; group],
            dk: vec![R::zero(); sizes.keys * sizes.head],
            dv: vec![R::zero(); sizes.keys * sizes.head],
        }
    }
}

impl Attention {
    /// Adds the gradients of one stream; `output` and its gradient are those of the whole call.
    fn stream_backward<R: Real>(
        &self,
        sizes: Sizes,
        (row, stream, kv): (usize, &Stream, usize),
        inputs: &[View<R>],
        [output, grad]: [&[R]; 2],
        result: &mut HeadGrads<R>,
    ) {
        let group = self.heads / self.kv_heads;
        let first = row * sizes.queries + stream.queries.start;
        if narrow::is_narrow(sizes.head) {
            for (i, dq) in result.dq.iter_mut().enumerate() {
                let head = kv * group + i;
                let (q, k, v) = self.head_inputs(sizes, (row, stream, head), inputs);
                let at = first * sizes.width + head * sizes.head;
                vector::run(narrow::Backward {
                    head: narrow::Head { attention: self, sizes, stream, q, k, v },
                    output: &output[at..],
                    grad: &grad[at..],
                    dq: &mut dq[stream.queries.start * sizes.head..],
                    dk: &mut result.dk,
                    dv: &mut result.dv,
                });
            }
            return;
        }
        let mut dk = vec![R::zero(); stream.n_keys() * sizes.head];
        let mut dv = dk.clone();
        let (mut weights, mut d_weights, mut capped) = (Vec::new(), Vec::new(), Vec::new());
        for (i, dq) in result.dq.iter_mut().enumerate() {
            let head = kv * group + i;
            let (q, k, v) = self.head_inputs(sizes, (row, stream, head), inputs);
            let at = first * sizes.width + head * sizes.head;
            let (o, g) = (&output[at..], &grad[at..]);
            let dq = &mut dq[stream.queries.start * sizes.head..];
            for block in stream.blocks() {
                let (n, m) = (block.queries.len(), block.keys.len());
                let from = block.queries.start * sizes.width;
                let queries = Matrix::strided(n, sizes.head, sizes.width);
                let (dense_q, dense_k) = (Matrix::dense(n, sizes.head), Matrix::dense(m, sizes.head));
                let scores = Matrix::dense(n, m);
                self.scores(sizes, &block, q, &k, &mut weights);
                capped.clear();
                capped.extend_from_slice(if self.scores.softcap.is_some() { &weights } else { &[] });
                vector::run(SoftmaxVisible { stream, block: &block, weights: &mut weights });
                // dV += Pᵀ dO and dP = dO Vᵀ.
                let dv = (&mut dv[block.keys.start * sizes.head..], dense_k);
                let d_output = (&g[from..], queries);
                matmul(dv, (&weights, scores.t()), d_output, R::one(), true, Threads::One);
                d_weights.resize(n * m, R::zero());
                let (values, shape) = v.matrix(&block.keys, sizes.head);
                let dp = (&mut d_weights[..], scores);
                matmul(dp, d_output, (values, shape.t()), R::one(), false, Threads::One);
                // dS = P ∘ (dP − rowsum(dO ∘ O)).
                for (r, (p, dp)) in weights.chunks(m).zip(d_weights.chunks_mut(m)).enumerate() {
                    let at = from + r * sizes.width;
                    let dot: R = o[at..at + sizes.head].iter().zip(&g[at..]).map(|(o, g)| *o * *g).sum();
                    vector::update(dp, p, |dp, p| p * (dp - dot));
                }
                if let Some(softcap) = self.softcap() {
                    d_weights.iter_mut().zip(&capped).for_each(|(ds, s)| *ds *= softcap.slope(*s));
                }
                let scale = R::of(self.scores.scale);
                let dq = (&mut dq[block.queries.start * sizes.head..], dense_q);
                let keys = k.matrix(&block.keys, sizes.head);
                matmul(dq, (&d_weights, scores), keys, scale, false, Threads::One);
                let dk = (&mut dk[block.keys.start * sizes.head..], dense_k);
                matmul(dk, (&d_weights, scores.t()), (&q[from..], queries), scale, true, Threads::One);
            }
        }
        let rows = stream.keys.iter().cloned().flatten();
        for (row, (dk, dv)) in rows.zip(dk.chunks(sizes.head).zip(dv.chunks(sizes.head))) {
            let cells = row * sizes.head..(row + 1) * sizes.head;
            result.dk[cells.clone()].iter_mut().zip(dk).for_each(|(sum, new)| *sum += *new);
            result.dv[cells].iter_mut().zip(dv).for_each(|(sum, new)| *sum += *new);
        }
    }
}

/// Writes dense rows of `width` numbers into rows that lie `stride` apart, at `offset`.
fn scatter<R: Real>(dense: &[R], into: &mut [R], width: usize, offset: usize, stride: usize) {
    for (row, values) in dense.chunks(width).enumerate() {
        into[row * stride + offset..row * stride + offset + width].copy_from_slice(values);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[expect(clippy::single_range_in_vec_init, reason = "a context is a list of ranges, often of one")]
mod tests {
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};

    fn op(mask: AttentionMask) -> Attention {
        Attention { heads: 4, kv_heads: 2, scores: 0.6.into(), mask }
    }

    #[test]
    fn gradients_under_every_mask() {
        let t = |shape: &[usize], salt| sample_tensor(shape, salt).unwrap();
        let (q, k, v) = (t(&[2, 5, 8], 1), t(&[2, 5, 4], 2), t(&[2, 5, 4], 3));
        for mask in [
            AttentionMask::full(),
            AttentionMask::causal(),
            AttentionMask { window: Some(2), ..AttentionMask::causal() },
            AttentionMask { first_key: Some(vec![0, 2]), ..AttentionMask::causal() },
        ] {
            check(op(mask), &[q.clone(), k.clone(), v.clone()]);
        }
        // A cap that bends the scores, which reach about ±4.
        let capped = Scores { scale: 0.6, softcap: Some(1.5) };
        let window = AttentionMask { window: Some(2), ..AttentionMask::causal() };
        check(Attention { scores: capped, ..op(window) }, &[q.clone(), k.clone(), v.clone()]);
        // A prompt with two completions beside a row without any.
        let row = |shape: &[usize], salt| t(shape, salt).narrow(1, 0, 5).unwrap();
        let segments = [(0..2, vec![]), (2..4, vec![0..2]), (4..5, vec![0..2])]
            .map(|(tokens, context)| Segment { tokens, context });
        for window in [None, Some(2)] {
            let mask = AttentionMask { window, ..AttentionMask::tree(segments.to_vec().into()) };
            check(op(mask), &[row(&[2, 5, 8], 1), row(&[2, 5, 4], 2), row(&[2, 5, 4], 3)]);
        }
        // Cross-attention, and new queries behind a cache.
        check(op(AttentionMask::full()), &[t(&[2, 3, 8], 1), k.clone(), v.clone()]);
        check(op(AttentionMask::causal()), &[t(&[2, 3, 8], 1), k, v]);
    }

    #[test]
    fn blocks_cover_long_sequences() {
        let t = |shape: &[usize], salt| sample_tensor(shape, salt).unwrap();
        let (q, k, v) = (t(&[1, 150, 8], 1), t(&[1, 150, 4], 2), t(&[1, 150, 4], 3));
        for mask in [AttentionMask::causal(), AttentionMask { window: Some(40), ..AttentionMask::causal() }] {
            let fused = apply(op(mask.clone()), &[&q, &k, &v]).unwrap();
            let composed = op(mask).composed(&[&q, &k, &v]).unwrap();
            let distance =
                (fused - composed).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(distance < 1e-12, "{distance}");
        }
    }

    #[test]
    fn sequences_with_a_shared_prefix_are_those_side_by_side() {
        let t = |salt, width| sample_tensor(&[1, 230, width], salt).unwrap();
        let (q, k, v) = (t(1, 8), t(2, 4), t(3, 4));
        let segments = [(0..90, vec![]), (90..190, vec![0..90]), (190..230, vec![0..90])]
            .map(|(tokens, context)| Segment { tokens, context });
        let pick = |x: &Tensor, ranges: &[Range<usize>]| {
            let parts: Vec<_> =
                ranges.iter().map(|range| x.narrow(1, range.start, range.len()).unwrap()).collect();
            Tensor::cat(&parts, 1).unwrap()
        };
        let numbers = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for window in [None, Some(30)] {
            let causal = AttentionMask { window, ..AttentionMask::causal() };
            let tree = AttentionMask { segments: Some(segments.to_vec().into()), ..causal.clone() };
            let shared = apply(op(tree), &[&q, &k, &v]).unwrap();
            for completion in [90..190, 190..230] {
                let ranges = [0..90, completion];
                let alone =
                    apply(op(causal.clone()), &[&q, &k, &v].map(|x| pick(x, &ranges)).each_ref()).unwrap();
                let distance = numbers(pick(&shared, &ranges))
                    .iter()
                    .zip(numbers(alone))
                    .fold(0f64, |most, (a, b)| most.max((a - b).abs()));
                assert!(distance < 1e-14, "{distance}");
            }
        }
    }

    #[test]
    fn a_causal_query_ignores_what_comes_later() {
        let t = |shape: &[usize], salt| sample_tensor(shape, salt).unwrap();
        let (q, k, v) = (t(&[1, 4, 8], 1), t(&[1, 4, 4], 2), t(&[1, 4, 4], 3));
        let late = t(&[1, 1, 4], 9);
        let changed = Tensor::cat(&[&k.narrow(1, 0, 3).unwrap(), &late], 1).unwrap();
        let run = |k: &Tensor| {
            let y = attention((&q, k, &v), 4, 2, 0.6, &AttentionMask::causal()).unwrap();
            y.narrow(1, 0, 3).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        assert_eq!(run(&k), run(&changed));
    }
}
