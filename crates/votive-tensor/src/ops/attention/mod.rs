//! Scaled dot-product attention with grouped queries; masked blocks are not computed, and the (T × T) weights are
//! not kept for the backward but computed again.

mod head;
mod mask;
mod narrow;
mod wide;

pub use mask::{AttentionMask, Segment};

use super::few_queries;
use super::softcap::Softcap;
use crate::kernel::{Kernel, Real, View, apply};
use crate::vector;
use candle_core::{D, Result, Tensor};
use head::{Gradients, Head, Results, Sizes, Softmax};
use mask::Stream;
use rayon::prelude::*;
use std::any::Any;
use std::borrow::Cow;
use std::sync::OnceLock;

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
    let op = Attention::new((heads, kv_heads), scores.into(), mask.clone());
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
    pub(super) left: Left,
}

/// What the forward of narrow heads leaves to the backward of the same call, `(rows, heads, queries)`.
#[derive(Default)]
pub(super) struct Left(OnceLock<Box<dyn Any + Send + Sync>>);

impl Clone for Left {
    /// Another call, which leaves its own.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Attention {
    pub(super) fn new((heads, kv_heads): (usize, usize), scores: Scores, mask: AttentionMask) -> Self {
        Self { heads, kv_heads, scores, mask, left: Left::default() }
    }

    fn sizes(&self, q: &[usize], k: &[usize]) -> Sizes {
        Sizes { rows: q[0], queries: q[1], keys: k[1], width: q[2], kv_width: k[2], head: q[2] / self.heads }
    }

    fn softcap(&self) -> Option<Softcap> {
        self.scores.softcap.map(Softcap)
    }
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
        let softmax = self.heads_forward(inputs, output);
        // One call has one forward; another one would leave the same.
        let _ = self.left.0.set(Box::new(softmax));
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
        let left = self.left.0.get().and_then(|left| left.downcast_ref::<Vec<_>>());
        let softmax: Cow<[Softmax<R>]> = match left {
            Some(softmax) => Cow::Borrowed(softmax),
            None => Cow::Owned(self.heads_forward(inputs, &mut output.to_vec())),
        };
        let group = self.heads / self.kv_heads;
        let results: Vec<HeadGrads<R>> = tasks
            .par_iter()
            .map(|&(row, kv)| {
                let mut sums = HeadGrads::zeros(sizes, group);
                for stream in self.mask.streams(row, sizes.queries, sizes.keys) {
                    for (i, dq) in sums.dq.iter_mut().enumerate() {
                        let (i, first) = (kv * group + i, stream.queries.start);
                        let head = Head::new(self, sizes, (row, &stream, i), inputs);
                        let at = (row * sizes.queries + first) * sizes.width + i * sizes.head;
                        // Nothing was left of heads that are not narrow.
                        let of_head = softmax.get((row * self.heads + i) * sizes.queries..).unwrap_or(&[]);
                        let softmax = of_head.get(stream.queries.clone()).unwrap_or(&[]);
                        let results = Results { output: &output[at..], grad: &grad[at..], softmax };
                        let dq = &mut dq[first * sizes.head..];
                        let gradients = Gradients { dq, dk: &mut sums.dk, dv: &mut sums.dv };
                        match narrow::is_narrow(sizes.head) {
                            true => vector::run(narrow::Backward { head, results, gradients }),
                            false => wide::backward(&head, &results, gradients),
                        }
                    }
                }
                sums
            })
            .collect();
        let mut dq = vec![R::zero(); inputs[0].data.len()];
        let mut dk = vec![R::zero(); inputs[1].data.len()];
        let mut dv = vec![R::zero(); inputs[2].data.len()];
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
    /// Computes the outputs, and gives what the backward of narrow heads needs.
    fn heads_forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) -> Vec<Softmax<R>> {
        let sizes = self.sizes(inputs[0].dims, inputs[1].dims);
        let streams: Vec<(usize, Stream)> = self.streams(sizes).collect();
        let tasks: Vec<(usize, &Stream, usize)> = streams
            .iter()
            .flat_map(|(row, stream)| (0..self.heads).map(move |head| (*row, stream, head)))
            .collect();
        let is_narrow = narrow::is_narrow(sizes.head);
        let forward = |task: &(usize, &Stream, usize)| {
            let queries = task.1.queries.len();
            let head = Head::new(self, sizes, *task, inputs);
            let (mut out, mut softmax) = (vec![R::zero(); queries * sizes.head], Vec::new());
            if is_narrow {
                softmax.resize(queries, [R::zero(); 2]);
                vector::run_wide(narrow::Forward { head, out: &mut out, softmax: &mut softmax });
            } else {
                wide::forward(&head, &mut out);
            }
            (out, softmax)
        };
        let results: Vec<_> = tasks.par_iter().map(forward).collect();
        let left = if is_narrow { sizes.rows * self.heads * sizes.queries } else { 0 };
        let mut softmax = vec![[R::zero(); 2]; left];
        for ((row, stream, head), (result, of_queries)) in tasks.iter().zip(&results) {
            let first = row * sizes.queries + stream.queries.start;
            scatter(result, &mut output[first * sizes.width..], sizes.head, head * sizes.head, sizes.width);
            let first = (row * self.heads + head) * sizes.queries + stream.queries.start;
            of_queries.iter().zip(first..).for_each(|(query, at)| softmax[at] = *query);
        }
        softmax
    }

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
    use candle_core::{DType, Device, Var};
    use std::ops::Range;

    fn op(mask: AttentionMask) -> Attention {
        Attention::new((4, 2), 0.6.into(), mask)
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
        check(Attention::new((4, 2), capped, window), &[q.clone(), k.clone(), v.clone()]);
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
    fn narrow_heads_of_every_width_and_wide_ones_are_right_in_single_precision() {
        let capped = Scores { scale: 0.6, softcap: Some(4.0) };
        let window = AttentionMask { window: Some(21), ..AttentionMask::causal() };
        for (head, scores, mask) in [
            (1usize, 0.6.into(), AttentionMask::full()),
            (8, 0.6.into(), AttentionMask::full()),
            (8, capped, AttentionMask::causal()),
            (12, 0.6.into(), window),
            (16, 0.6.into(), AttentionMask::full()),
            (24, 0.6.into(), AttentionMask::causal()),
            (32, capped, AttentionMask::full()),
            (40, 0.6.into(), AttentionMask::causal()),
        ] {
            // More keys than a block has; their scores rise, so that what is taken off them must, too.
            let draw = |salt, heads| sample_tensor(&[1, 270, heads * head], salt).unwrap();
            let rising = Tensor::arange(0f64, 270., &Device::Cpu).unwrap().reshape((1, 270, 1)).unwrap();
            let k = draw(2, 1).broadcast_mul(&(rising / 60.0).unwrap()).unwrap();
            let inputs = [draw(1, 2), k, draw(3, 1)];
            let op = Attention::new((2, 1), scores, mask);
            let run = |dtype: DType| -> Vec<Vec<f64>> {
                let vars = inputs.each_ref().map(|x| Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap());
                let refs: Vec<&Tensor> = vars.iter().map(Var::as_tensor).collect();
                let result = match dtype {
                    DType::F32 => apply(op.clone(), &refs).unwrap(),
                    _ => op.composed(&refs).unwrap(),
                };
                let grads = result.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let gradients = refs.iter().map(|x| grads.get(x).unwrap().clone());
                let numbers =
                    |x: Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                std::iter::once(result.clone()).chain(gradients).map(numbers).collect()
            };
            for (what, (found, expected)) in run(DType::F32).iter().zip(run(DType::F64)).enumerate() {
                let most = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
                let error = found.iter().zip(&expected).fold(0f64, |most, (a, b)| most.max((a - b).abs()));
                assert!(error < 1e-5 * most, "head {head}, result {what}: off by {error} of {most}");
            }
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
