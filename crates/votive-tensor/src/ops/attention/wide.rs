//! Attention of heads that are wide enough for a matrix library, a block of queries after the other.

use super::head::{Gradients, Head, Results};
use super::mask::{Block, Stream};
use crate::kernel::{Matrix, Real, Threads, matmul};
use crate::vector;

impl<R: Real> Head<'_, R> {
    /// Scores of a block, (queries, keys) dense in `scores`, those that the mask hides too.
    fn block_scores(&self, block: &Block, scores: &mut Vec<R>) {
        let (n, m) = (block.queries.len(), block.keys.len());
        scores.resize(n * m, R::zero());
        let (keys, shape) = self.k.matrix(&block.keys, self.sizes.head);
        let queries = Matrix::strided(n, self.sizes.head, self.sizes.width);
        matmul(
            (scores, Matrix::dense(n, m)),
            (&self.q[block.queries.start * self.sizes.width..], queries),
            (keys, shape.t()),
            R::of(self.attention.scores.scale),
            false,
            Threads::One,
        );
        if let Some(softcap) = self.attention.softcap() {
            softcap.apply(scores);
        }
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
    let most = R::largest(scores);
    let inverse = vector::exponentials::<R, FUSED>(scores, most).recip();
    scores.iter_mut().for_each(|score| *score *= inverse);
}

/// Writes the outputs of a head, (queries, head) dense.
pub(super) fn forward<R: Real>(head: &Head<R>, out: &mut [R]) {
    let (stream, width) = (head.stream, head.sizes.head);
    let mut weights = Vec::new();
    for block in stream.blocks() {
        let (n, m) = (block.queries.len(), block.keys.len());
        head.block_scores(&block, &mut weights);
        vector::run(SoftmaxVisible { stream, block: &block, weights: &mut weights });
        matmul(
            (&mut out[block.queries.start * width..], Matrix::dense(n, width)),
            (&weights, Matrix::dense(n, m)),
            head.v.matrix(&block.keys, width),
            R::one(),
            false,
            Threads::One,
        );
    }
}

/// Adds the gradients of a head.
pub(super) fn backward<R: Real>(head: &Head<R>, results: &Results<R>, gradients: Gradients<R>) {
    let (attention, stream, sizes) = (head.attention, head.stream, head.sizes);
    let (o, g) = (results.output, results.grad);
    let mut dk = vec![R::zero(); stream.n_keys() * sizes.head];
    let mut dv = dk.clone();
    let (mut weights, mut d_weights, mut capped) = (Vec::new(), Vec::new(), Vec::new());
    for block in stream.blocks() {
        let (n, m) = (block.queries.len(), block.keys.len());
        let from = block.queries.start * sizes.width;
        let queries = Matrix::strided(n, sizes.head, sizes.width);
        let (dense_q, dense_k) = (Matrix::dense(n, sizes.head), Matrix::dense(m, sizes.head));
        let scores = Matrix::dense(n, m);
        head.block_scores(&block, &mut weights);
        capped.clear();
        capped.extend_from_slice(if attention.scores.softcap.is_some() { &weights } else { &[] });
        vector::run(SoftmaxVisible { stream, block: &block, weights: &mut weights });
        // dV += Pᵀ dO and dP = dO Vᵀ.
        let dv = (&mut dv[block.keys.start * sizes.head..], dense_k);
        let d_output = (&g[from..], queries);
        matmul(dv, (&weights, scores.t()), d_output, R::one(), true, Threads::One);
        d_weights.resize(n * m, R::zero());
        let (values, shape) = head.v.matrix(&block.keys, sizes.head);
        let dp = (&mut d_weights[..], scores);
        matmul(dp, d_output, (values, shape.t()), R::one(), false, Threads::One);
        // dS = P ∘ (dP − rowsum(dO ∘ O)).
        for (r, (p, dp)) in weights.chunks(m).zip(d_weights.chunks_mut(m)).enumerate() {
            let at = from + r * sizes.width;
            let dot: R = o[at..at + sizes.head].iter().zip(&g[at..]).map(|(o, g)| *o * *g).sum();
            vector::update(dp, p, |dp, p| p * (dp - dot));
        }
        if let Some(softcap) = attention.softcap() {
            d_weights.iter_mut().zip(&capped).for_each(|(ds, s)| *ds *= softcap.slope(*s));
        }
        let scale = R::of(attention.scores.scale);
        let dq = (&mut gradients.dq[block.queries.start * sizes.head..], dense_q);
        let keys = head.k.matrix(&block.keys, sizes.head);
        matmul(dq, (&d_weights, scores), keys, scale, false, Threads::One);
        let dk = (&mut dk[block.keys.start * sizes.head..], dense_k);
        matmul(dk, (&d_weights, scores.t()), (&head.q[from..], queries), scale, true, Threads::One);
    }
    for (sums, new) in [(gradients.dk, dk), (gradients.dv, dv)] {
        head.add_to_keys(sums, 0..stream.n_keys(), (&new, sizes.head));
    }
}
