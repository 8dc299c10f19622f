//! Scaled dot-product attention with grouped queries; masked blocks are not computed, and the (T × T) weights are
//! not kept for the backward but computed again.

use super::softcap::Softcap;
use crate::kernel::{Kernel, Matrix, Real, Threads, View, apply, matmul};
use candle_core::{D, Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;

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

    /// The keys that a query at `position` of batch row `row` sees, never empty.
    fn keys(&self, row: usize, position: usize, total: usize) -> Range<usize> {
        let end = if self.causal { position + 1 } else { total };
        let window = self.window.filter(|_| self.causal).map_or(0, |window| end.saturating_sub(window));
        let first = self.first_key.as_ref().map_or(0, |first| first[row]);
        // A padding query sees itself: a row without any key would be 0/0.
        window.max(first).min(end - 1)..end
    }
}

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
/// Dao et al., arXiv:2205.14135.
pub fn attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    heads: usize,
    kv_heads: usize,
    scores: impl Into<Scores>,
    mask: &AttentionMask,
) -> Result<Tensor> {
    apply(Attention { heads, kv_heads, scores: scores.into(), mask: mask.clone() }, &[q, k, v])
}

#[derive(Clone)]
struct Attention {
    heads: usize,
    kv_heads: usize,
    scores: Scores,
    mask: AttentionMask,
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    queries: usize,
    keys: usize,
    width: usize,
    kv_width: usize,
    head: usize,
}

/// A block of queries, and the keys that at least one of them sees.
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
}

impl Attention {
    fn sizes(&self, q: &[usize], k: &[usize]) -> Sizes {
        Sizes { queries: q[1], keys: k[1], width: q[2], kv_width: k[2], head: q[2] / self.heads }
    }

    fn visible(&self, row: usize, query: usize, sizes: Sizes) -> Range<usize> {
        let position = if self.mask.causal { sizes.keys - sizes.queries + query } else { 0 };
        self.mask.keys(row, position, sizes.keys)
    }

    fn blocks(&self, row: usize, sizes: Sizes) -> impl Iterator<Item = Block> + '_ {
        (0..sizes.queries).step_by(BLOCK).map(move |start| {
            let queries = start..(start + BLOCK).min(sizes.queries);
            let first = self.visible(row, queries.start, sizes).start;
            let last = self.visible(row, queries.end - 1, sizes).end;
            Block { queries, keys: first..last }
        })
    }

    fn softcap(&self) -> Option<Softcap> {
        self.scores.softcap.map(Softcap)
    }

    /// Scores of a block, (queries, keys) dense in `scores`; those that a mask hides are there too.
    fn scores<R: Real>(&self, sizes: Sizes, block: &Block, q: &[R], k: &[R], scores: &mut [R]) {
        let (n, m) = (block.queries.len(), block.keys.len());
        matmul(
            (&mut *scores, Matrix::dense(n, m)),
            (&q[block.queries.start * sizes.width..], Matrix::strided(n, sizes.head, sizes.width)),
            (&k[block.keys.start * sizes.kv_width..], Matrix::strided(m, sizes.head, sizes.kv_width).t()),
            R::of(self.scores.scale),
            false,
            Threads::One,
        );
        if let Some(softcap) = self.softcap() {
            softcap.apply(scores);
        }
    }

    /// Softmax weights of a block in the place of its scores.
    fn weights<R: Real>(&self, row: usize, sizes: Sizes, block: &Block, weights: &mut [R]) {
        for (query, scores) in block.queries.clone().zip(weights.chunks_mut(block.keys.len())) {
            let seen = self.visible(row, query, sizes);
            let seen = seen.start - block.keys.start..seen.end - block.keys.start;
            scores[..seen.start].fill(R::zero());
            scores[seen.end..].fill(R::zero());
            let most = R::largest(&scores[seen.clone()]);
            let mut sum = R::zero();
            for score in &mut scores[seen.clone()] {
                *score = (*score - most).fast_exp();
                sum += *score;
            }
            let inverse = sum.recip();
            scores[seen].iter_mut().for_each(|score| *score *= inverse);
        }
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
                    && (!self.mask.causal || tq <= tk)
                    && self.mask.first_key.as_ref().is_none_or(|first| first.len() == *b)
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
        let group = self.heads / self.kv_heads;
        let (q_row, k_row) = (sizes.queries * sizes.width, sizes.keys * sizes.kv_width);
        let tasks: Vec<(usize, usize)> =
            (0..inputs[0].dims[0]).flat_map(|row| (0..self.heads).map(move |head| (row, head))).collect();
        let results: Vec<Vec<R>> = tasks
            .par_iter()
            .map(|&(row, head)| {
                let q = &inputs[0].data[row * q_row + head * sizes.head..(row + 1) * q_row];
                let at = row * k_row + head / group * sizes.head;
                let (k, v) = (&inputs[1].data[at..(row + 1) * k_row], &inputs[2].data[at..(row + 1) * k_row]);
                let mut out = vec![R::zero(); sizes.queries * sizes.head];
                let mut weights = Vec::new();
                for block in self.blocks(row, sizes) {
                    let (n, m) = (block.queries.len(), block.keys.len());
                    weights.resize(n * m, R::zero());
                    self.scores(sizes, &block, q, k, &mut weights);
                    self.weights(row, sizes, &block, &mut weights);
                    matmul(
                        (&mut out[block.queries.start * sizes.head..], Matrix::dense(n, sizes.head)),
                        (&weights, Matrix::dense(n, m)),
                        (
                            &v[block.keys.start * sizes.kv_width..],
                            Matrix::strided(m, sizes.head, sizes.kv_width),
                        ),
                        R::one(),
                        false,
                        Threads::One,
                    );
                }
                out
            })
            .collect();
        for (&(row, head), result) in tasks.iter().zip(&results) {
            scatter(result, &mut output[row * q_row..], sizes.head, head * sizes.head, sizes.width);
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
        let (q_row, k_row) = (sizes.queries * sizes.width, sizes.keys * sizes.kv_width);
        let tasks: Vec<(usize, usize)> =
            (0..inputs[0].dims[0]).flat_map(|row| (0..self.kv_heads).map(move |head| (row, head))).collect();
        let results: Vec<HeadGrads<R>> = tasks
            .par_iter()
            .map(|&(row, kv)| self.head_backward(row, kv, sizes, inputs, output, grad))
            .collect();
        let mut dq = vec![R::zero(); inputs[0].data.len()];
        let mut dk = vec![R::zero(); inputs[1].data.len()];
        let mut dv = vec![R::zero(); inputs[2].data.len()];
        let group = self.heads / self.kv_heads;
        for (&(row, kv), result) in tasks.iter().zip(&results) {
            for (i, dq_head) in result.dq.iter().enumerate() {
                scatter(
                    dq_head,
                    &mut dq[row * q_row..],
                    sizes.head,
                    (kv * group + i) * sizes.head,
                    sizes.width,
                );
            }
            scatter(&result.dk, &mut dk[row * k_row..], sizes.head, kv * sizes.head, sizes.kv_width);
            scatter(&result.dv, &mut dv[row * k_row..], sizes.head, kv * sizes.head, sizes.kv_width);
        }
        vec![Some(dq), Some(dk), Some(dv)]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (b, tq, width) = inputs[0].dims3()?;
        let (_, tk, _) = inputs[1].dims3()?;
        let head = width / self.heads;
        let split = |x: &Tensor, t: usize| -> Result<Tensor> {
            let repeats = self.heads * head * t * b / x.elem_count();
            let x = x.reshape((b, t, self.heads / repeats, 1, head))?;
            let x = x.broadcast_as((b, t, self.heads / repeats, repeats, head))?;
            x.reshape((b, t, self.heads, head))?.transpose(1, 2)?.contiguous()
        };
        let (q, k, v) = (split(inputs[0], tq)?, split(inputs[1], tk)?, split(inputs[2], tk)?);
        let sizes = self.sizes(inputs[0].dims(), inputs[1].dims());
        let mut bias = vec![-1e9f32; b * tq * tk];
        for row in 0..b {
            for query in 0..tq {
                let at = (row * tq + query) * tk;
                self.visible(row, query, sizes).for_each(|key| bias[at + key] = 0.0);
            }
        }
        let bias = Tensor::from_vec(bias, (b, 1, tq, tk), q.device())?.to_dtype(q.dtype())?;
        let scores = (q.matmul(&k.t()?.contiguous()?)? * self.scores.scale)?;
        let scores = self.softcap().map_or(Ok(scores.clone()), |softcap| softcap.composed(&scores))?;
        let scores = scores.broadcast_add(&bias)?;
        let scores = scores.broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?.exp()?;
        let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
        weights.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((b, tq, width))
    }
}

/// Gradients of one key-value head of one batch row, dense.
struct HeadGrads<R> {
    /// One per query head of the group.
    dq: Vec<Vec<R>>,
    dk: Vec<R>,
    dv: Vec<R>,
}

impl Attention {
    fn head_backward<R: Real>(
        &self,
        row: usize,
        kv: usize,
        sizes: Sizes,
        inputs: &[View<R>],
        output: &[R],
        grad: &[R],
    ) -> HeadGrads<R> {
        let group = self.heads / self.kv_heads;
        let (q_row, k_row) = (sizes.queries * sizes.width, sizes.keys * sizes.kv_width);
        let at = row * k_row + kv * sizes.head;
        let (k, v) = (&inputs[1].data[at..(row + 1) * k_row], &inputs[2].data[at..(row + 1) * k_row]);
        let mut result = HeadGrads {
            dq: vec![vec![R::zero(); sizes.queries * sizes.head]; group],
            dk: vec![R::zero(); sizes.keys * sizes.head],
            dv: vec![R::zero(); sizes.keys * sizes.head],
        };
        let (mut weights, mut d_weights, mut capped) = (Vec::new(), Vec::new(), Vec::new());
        for (i, dq) in result.dq.iter_mut().enumerate() {
            let at = row * q_row + (kv * group + i) * sizes.head;
            let (q, o, g) = (
                &inputs[0].data[at..(row + 1) * q_row],
                &output[at..(row + 1) * q_row],
                &grad[at..(row + 1) * q_row],
            );
            for block in self.blocks(row, sizes) {
                let (n, m) = (block.queries.len(), block.keys.len());
                let from = block.queries.start * sizes.width;
                let queries = Matrix::strided(n, sizes.head, sizes.width);
                let keys = Matrix::strided(m, sizes.head, sizes.kv_width);
                let (dense_q, dense_k) = (Matrix::dense(n, sizes.head), Matrix::dense(m, sizes.head));
                let (scores, from_k) = (Matrix::dense(n, m), block.keys.start * sizes.kv_width);
                weights.resize(n * m, R::zero());
                d_weights.resize(n * m, R::zero());
                self.scores(sizes, &block, q, k, &mut weights);
                capped.clear();
                capped.extend_from_slice(if self.scores.softcap.is_some() { &weights } else { &[] });
                self.weights(row, sizes, &block, &mut weights);
                // dV += Pᵀ dO and dP = dO Vᵀ.
                let dv = &mut result.dv[block.keys.start * sizes.head..];
                matmul(
                    (dv, dense_k),
                    (&weights, scores.t()),
                    (&g[from..], queries),
                    R::one(),
                    true,
                    Threads::One,
                );
                let v = (&v[from_k..], keys.t());
                matmul((&mut d_weights, scores), (&g[from..], queries), v, R::one(), false, Threads::One);
                // dS = P ∘ (dP − rowsum(dO ∘ O)).
                for (r, (p, dp)) in weights.chunks(m).zip(d_weights.chunks_mut(m)).enumerate() {
                    let at = from + r * sizes.width;
                    let dot: R = o[at..at + sizes.head].iter().zip(&g[at..]).map(|(o, g)| *o * *g).sum();
                    dp.iter_mut().zip(p).for_each(|(dp, p)| *dp = *p * (*dp - dot));
                }
                if let Some(softcap) = self.softcap() {
                    d_weights.iter_mut().zip(&capped).for_each(|(ds, s)| *ds *= softcap.slope(*s));
                }
                let scale = R::of(self.scores.scale);
                let dq = &mut dq[block.queries.start * sizes.head..];
                matmul((dq, dense_q), (&d_weights, scores), (&k[from_k..], keys), scale, false, Threads::One);
                let dk = &mut result.dk[block.keys.start * sizes.head..];
                matmul(
                    (dk, dense_k),
                    (&d_weights, scores.t()),
                    (&q[from..], queries),
                    scale,
                    true,
                    Threads::One,
                );
            }
        }
        result
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
