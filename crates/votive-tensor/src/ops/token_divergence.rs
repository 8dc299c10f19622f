//! The divergence of two language-model heads at every position, without ever holding (tokens × vocabulary).

use super::log_prob::{CHUNK, HeadGradients, TILE, column, tile_logits, tiles};
use super::softcap::Softcap;
use crate::kernel::{Kernel, Real, View, apply};
use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

/// `KL(reference ‖ policy) = Σ_v π_ref(v) · (log π_ref(v) − log π_θ(v))` at every position, where each head's
/// probabilities are the softmax of `hidden · weightᵀ`, squeezed into ±`softcap` if there is one.
///
/// # Shapes
/// `policy` and `reference`: hidden states `(N, D)` and weight `(V, D)`; D may differ between them → `(N,)`.
/// # Units
/// Nats.
/// # Gradient
/// The policy's alone: `softmax(policy) − softmax(reference)` by its logits. The logits of both are computed again.
/// # Errors
/// If the sizes don't fit.
pub fn token_divergences(
    policy: [&Tensor; 2],
    reference: [&Tensor; 2],
    softcap: [Option<f64>; 2],
) -> Result<Tensor> {
    let reference = reference.map(|tensor| tensor.detach().contiguous());
    let [hidden, weight] = reference;
    let kernel = Divergence { reference: [hidden?, weight?], softcap: softcap.map(|cap| cap.map(Softcap)) };
    column(&apply(kernel, &policy)?, KL)
}

/// Columns of the result; the logarithms of both sums serve the backward.
const KL: usize = 0;
const POLICY_LOG_SUM: usize = 1;
const REFERENCE_LOG_SUM: usize = 2;
const COLUMNS: usize = 3;

#[derive(Clone)]
struct Divergence {
    /// Hidden states and weight.
    reference: [Tensor; 2],
    /// The policy's and the reference's.
    softcap: [Option<Softcap>; 2],
}

/// What is known of a position's two rows of logits after some tiles of the vocabulary.
#[derive(Clone, Copy)]
struct Seen<R> {
    /// The policy's largest logit, and its sum of `exp(logit − most)`.
    policy: (R, R),
    /// The reference's.
    reference: (R, R),
    /// Sum of `exp(reference − most) · (reference − policy)`.
    gap: R,
}

impl<R: Real> Seen<R> {
    fn nothing() -> Self {
        let start = (R::neg_infinity(), R::zero());
        Self { policy: start, reference: start, gap: R::zero() }
    }

    fn add(&mut self, policy: &[R], reference: &[R]) {
        let raise = |(most, sum): (R, R), logits: &[R]| {
            let now = R::largest(&[R::largest(logits), most]);
            let scale = if sum > R::zero() { (most - now).fast_exp() } else { R::zero() };
            (now, scale, sum * scale)
        };
        let (most, _, sum) = raise(self.policy, policy);
        self.policy = (most, sum + policy.iter().map(|x| (*x - most).fast_exp()).sum());
        let (most, scale, mut sum) = raise(self.reference, reference);
        let mut gap = self.gap * scale;
        for (x, y) in reference.iter().zip(policy) {
            let e = (*x - most).fast_exp();
            sum += e;
            gap += e * (*x - *y);
        }
        (self.reference, self.gap) = ((most, sum), gap);
    }

    fn write(self, row: &mut [R]) {
        let log_sum = |(most, sum): (R, R)| most + sum.ln();
        let (policy, reference) = (log_sum(self.policy), log_sum(self.reference));
        row[KL] = self.gap / self.reference.1 - reference + policy;
        row[POLICY_LOG_SUM] = policy;
        row[REFERENCE_LOG_SUM] = reference;
    }
}

impl Divergence {
    /// Both heads' logits of a chunk of positions for one tile after another.
    fn each_tile<R: Real>(
        &self,
        inputs: &[View<R>],
        chunk: usize,
        mut visit: impl FnMut(std::ops::Range<usize>, &mut [R], &[R]),
    ) {
        let vocabulary = inputs[1].dims[0];
        let rows = |hidden: &View<R>| {
            let width = hidden.dims[1];
            let start = (chunk * CHUNK * width).min(hidden.data.len());
            start..((chunk + 1) * CHUNK * width).min(hidden.data.len())
        };
        let policy = &inputs[0].data[rows(&inputs[0])];
        let reference = &inputs[2].data[rows(&inputs[2])];
        let n = policy.len() / inputs[0].dims[1];
        let mut logits =
            [vec![R::zero(); n * TILE.min(vocabulary)], vec![R::zero(); n * TILE.min(vocabulary)]];
        for tile in tiles(vocabulary) {
            let [of_policy, of_reference] = logits.each_mut().map(|logits| &mut logits[..n * tile.len()]);
            tile_logits((policy, &inputs[1]), self.softcap[0], &tile, of_policy);
            tile_logits((reference, &inputs[3]), self.softcap[1], &tile, of_reference);
            visit(tile, of_policy, of_reference);
        }
    }
}

impl Kernel for Divergence {
    const NAME: &'static str = "token divergence";

    fn constants(&self) -> &[Tensor] {
        &self.reference
    }

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        let reference = self.reference.each_ref().map(|tensor| tensor.dims());
        match (dims[0], dims[1], reference[0], reference[1]) {
            ([n, d], [v, width], [other_n, other_d], [other_v, other_width])
                if d == width && other_d == other_width && n == other_n && v == other_v =>
            {
                Ok(vec![*n, COLUMNS])
            }
            _ => candle_core::bail!(
                "token divergence: policy {:?} and {:?}, reference {:?} and {:?}",
                dims[0],
                dims[1],
                reference[0],
                reference[1]
            ),
        }
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        for (chunk, out) in output.chunks_mut(CHUNK * COLUMNS).enumerate() {
            let mut seen = vec![Seen::nothing(); out.len() / COLUMNS];
            self.each_tile(inputs, chunk, |tile, policy, reference| {
                let rows = policy.par_chunks(tile.len()).zip(reference.par_chunks(tile.len()));
                seen.par_iter_mut()
                    .zip(rows)
                    .for_each(|(seen, (policy, reference))| seen.add(policy, reference));
            });
            out.chunks_mut(COLUMNS).zip(seen).for_each(|(out, seen)| seen.write(out));
        }
    }

    fn backward<R: Real>(
        &self,
        inputs: &[View<R>],
        output: &[R],
        grad: &[R],
        wanted: &[bool],
    ) -> Vec<Option<Vec<R>>> {
        let mut gradients = HeadGradients::new(inputs, wanted);
        let results = output.chunks(CHUNK * COLUMNS).zip(grad.chunks(CHUNK * COLUMNS));
        for (chunk, (output, grad)) in results.enumerate() {
            let (at, n) = (chunk * CHUNK, output.len() / COLUMNS);
            self.each_tile(inputs, chunk, |tile, policy, reference| {
                let rows = policy.par_chunks_mut(tile.len()).zip(reference.par_chunks(tile.len()));
                rows.enumerate().for_each(|(i, (policy, reference))| {
                    let slope = grad[i * COLUMNS + KL];
                    let log_sums = [POLICY_LOG_SUM, REFERENCE_LOG_SUM].map(|sum| output[i * COLUMNS + sum]);
                    for (x, y) in policy.iter_mut().zip(reference) {
                        let bend = self.softcap[0].map_or(R::one(), |softcap| softcap.slope(*x));
                        let excess = (*x - log_sums[0]).fast_exp() - (*y - log_sums[1]).fast_exp();
                        *x = slope * excess * bend;
                    }
                });
                gradients.add(at..at + n, &tile, policy);
            });
        }
        gradients.finish()
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let head = |hidden: &Tensor, weight: &Tensor, softcap: Option<Softcap>| {
            let logits = hidden.contiguous()?.matmul(&weight.t()?)?;
            let logits = softcap.map_or(Ok(logits.clone()), |softcap| softcap.composed(&logits))?;
            let most = logits.detach().max_keepdim(D::Minus1)?;
            let log_sum = (logits.broadcast_sub(&most)?.exp()?.sum_keepdim(D::Minus1)?.log()? + most)?;
            Ok::<_, candle_core::Error>((logits.broadcast_sub(&log_sum)?, log_sum.detach()))
        };
        let positions = inputs[0].dim(0)?;
        let mut chunks = Vec::new();
        for start in (0..positions).step_by(CHUNK) {
            let rows = |hidden: &Tensor| hidden.narrow(0, start, CHUNK.min(positions - start));
            let (policy, policy_sum) = head(&rows(inputs[0])?, inputs[1], self.softcap[0])?;
            let [hidden, weight] = &self.reference;
            let (reference, reference_sum) = head(&rows(hidden)?, weight, self.softcap[1])?;
            let kl = (reference.exp()? * (&reference - policy)?)?.sum_keepdim(D::Minus1)?;
            chunks.push(Tensor::cat(&[kl, policy_sum, reference_sum], 1)?);
        }
        Tensor::cat(&chunks, 0)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{gradient_error, sample_tensor};
    use candle_core::{Device, Var};

    /// The reference is another network of another width.
    fn divergence(positions: usize, vocabulary: usize, softcap: [Option<Softcap>; 2]) -> Divergence {
        let reference = [[positions, 3], [vocabulary, 3]].map(|shape| sample_tensor(&shape, 5).unwrap());
        Divergence { reference, softcap }
    }

    #[test]
    fn gradients_within_and_across_chunks() {
        for (n, softcap) in
            [(4, [None; 2]), (CHUNK + 3, [None; 2]), (4, [Some(Softcap(1.5)), Some(Softcap(2.5))])]
        {
            let kernel = divergence(n, 5, softcap);
            let inputs = [sample_tensor(&[n, 2], 1).unwrap(), sample_tensor(&[5, 2], 2).unwrap()];
            let fused = |x: &[Tensor]| column(&apply(kernel.clone(), &[&x[0], &x[1]])?, KL);
            let composed = |x: &[Tensor]| column(&kernel.composed(&[&x[0], &x[1]])?, KL);
            assert!(gradient_error(&inputs, fused).unwrap() < 2e-7);
            assert!(gradient_error(&inputs, composed).unwrap() < 1e-5);
        }
    }

    #[test]
    fn tiles_of_the_vocabulary_are_one_vocabulary() {
        let kernel = divergence(4, TILE + 300, [Some(Softcap(4.0)), None]);
        let hidden = Var::from_tensor(&sample_tensor(&[4, 2], 1).unwrap()).unwrap();
        let weight = Var::from_tensor(&(sample_tensor(&[TILE + 300, 2], 2).unwrap() * 3.0).unwrap()).unwrap();
        let run = |output: Tensor| {
            let loss = column(&output, KL).unwrap().sqr().unwrap().sum_all().unwrap();
            let grads = loss.backward().unwrap();
            [output, grads.get(&hidden).unwrap().clone(), grads.get(&weight).unwrap().clone()]
        };
        let tiled = run(apply(kernel.clone(), &[&hidden, &weight]).unwrap());
        let whole = run(kernel.composed(&[&hidden, &weight]).unwrap());
        for (tiled, whole) in tiled.iter().zip(&whole) {
            let gap = (tiled - whole).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(gap < 1e-10, "differ by {gap}");
        }
    }

    #[test]
    fn by_hand_and_nothing_where_the_heads_agree() {
        // ¼, ¾ under the reference and ½, ½ under the policy: ¼ ln ½ + ¾ ln 3/2.
        let t = |column: &[f64]| Tensor::new(column, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
        let (hidden, fair, biased) = (t(&[1.0]), t(&[0.0, 0.0]), t(&[0.0, 3f64.ln()]));
        let kl = |policy: &Tensor| {
            let kl = token_divergences([&hidden, policy], [&hidden, &biased], [None; 2]).unwrap();
            kl.to_vec1::<f64>().unwrap()[0]
        };
        assert!((kl(&fair) - (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln())).abs() < 1e-12);
        assert!(kl(&biased).abs() < 1e-12);
    }
}
