//! The language-model head: log-probabilities of given tokens without ever holding (tokens × vocabulary).

use super::softcap::Softcap;
use crate::kernel::{Kernel, Matrix, Real, Threads, View, apply, matmul};
use candle_core::{D, Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Positions and tokens of the vocabulary whose logits exist at the same time: memory grows with neither.
const CHUNK: usize = 256;
const TILE: usize = 8192;

/// Log-probability of one token per position, under the logits `hidden · weightᵀ`, each squeezed into ±`softcap` by
/// `cap · tanh(logit / cap)` if there is one.
///
/// # Shapes
/// `hidden (N, D)`, `weight (V, D)`, `targets` of length N, each below V → `(N,)`.
/// # Units
/// Nats.
/// # Numerics
/// Log-softmax with the maximum subtracted, in the dtype of the arguments. The backward computes the logits again.
/// # Errors
/// If the sizes don't fit or a target is not below V.
pub fn token_log_probs(
    hidden: &Tensor,
    weight: &Tensor,
    softcap: Option<f64>,
    targets: &[u32],
) -> Result<Tensor> {
    let vocabulary = weight.dim(0)?;
    if let Some(target) = targets.iter().find(|target| **target as usize >= vocabulary) {
        candle_core::bail!("log-prob head: token id {target} is not below the vocabulary size {vocabulary}");
    }
    apply(LogProb { targets: targets.into(), softcap: softcap.map(Softcap) }, &[hidden, weight])
}

#[derive(Clone)]
struct LogProb {
    targets: Arc<[u32]>,
    softcap: Option<Softcap>,
}

/// What is known of a position's logits after some tiles of the vocabulary.
#[derive(Clone, Copy)]
struct Seen<R> {
    most: R,
    /// Sum of `exp(logit − most)`.
    sum: R,
    /// The target's logit, once its tile was seen.
    target: R,
}

impl<R: Real> Seen<R> {
    const fn nothing(most: R, zero: R) -> Self {
        Self { most, sum: zero, target: zero }
    }

    fn add(&mut self, logits: &[R], target: Option<usize>) {
        let most = R::largest(&[R::largest(logits), self.most]);
        let sum: R = logits.iter().map(|x| (*x - most).fast_exp()).sum();
        self.sum = self.sum * (self.most - most).fast_exp() + sum;
        self.most = most;
        if let Some(target) = target {
            self.target = logits[target];
        }
    }

    fn log_prob(self) -> R {
        self.target - self.most - self.sum.ln()
    }
}

impl LogProb {
    /// The vocabulary in tiles.
    fn tiles(vocabulary: usize) -> impl Iterator<Item = Range<usize>> {
        (0..vocabulary).step_by(TILE).map(move |start| start..(start + TILE).min(vocabulary))
    }

    /// Logits of some positions for a tile, (n, tile) dense.
    fn logits<R: Real>(&self, inputs: &[View<R>], rows: &[R], tile: &Range<usize>, logits: &mut [R]) {
        let width = inputs[1].dims[1];
        let n = rows.len() / width;
        matmul(
            (&mut *logits, Matrix::dense(n, tile.len())),
            (rows, Matrix::dense(n, width)),
            (&inputs[1].data[tile.start * width..], Matrix::dense(tile.len(), width).t()),
            R::one(),
            false,
            Threads::All,
        );
        if let Some(softcap) = self.softcap {
            logits.par_chunks_mut(tile.len()).for_each(|row| softcap.apply(row));
        }
    }

    /// Logarithm of the sum of a position's exponentials, from its target's logit and log-probability.
    fn log_sum<R: Real>(&self, inputs: &[View<R>], position: usize, log_prob: R) -> R {
        let width = inputs[1].dims[1];
        let target = self.targets[position] as usize;
        let hidden = &inputs[0].data[position * width..(position + 1) * width];
        let weight = &inputs[1].data[target * width..(target + 1) * width];
        let mut logit = [hidden.iter().zip(weight).map(|(x, w)| *x * *w).sum::<R>()];
        if let Some(softcap) = self.softcap {
            softcap.apply(&mut logit);
        }
        logit[0] - log_prob
    }
}

impl Kernel for LogProb {
    const NAME: &'static str = "log-prob head";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        match (dims[0], dims[1]) {
            ([n, width], [_, d]) if width == d && *n == self.targets.len() => Ok(vec![*n]),
            _ => candle_core::bail!(
                "log-prob head: hidden {:?}, weight {:?}, {} targets",
                dims[0],
                dims[1],
                self.targets.len()
            ),
        }
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        let (vocabulary, width) = (inputs[1].dims[0], inputs[1].dims[1]);
        let mut logits = vec![R::zero(); CHUNK.min(output.len()) * TILE.min(vocabulary)];
        let hidden = inputs[0].data.chunks(CHUNK * width);
        for ((out, rows), targets) in output.chunks_mut(CHUNK).zip(hidden).zip(self.targets.chunks(CHUNK)) {
            let mut seen = vec![Seen::nothing(R::neg_infinity(), R::zero()); out.len()];
            for tile in Self::tiles(vocabulary) {
                let logits = &mut logits[..out.len() * tile.len()];
                self.logits(inputs, rows, &tile, logits);
                seen.par_iter_mut().zip(logits.par_chunks(tile.len())).zip(targets).for_each(
                    |((seen, row), target)| {
                        let target = *target as usize;
                        seen.add(row, tile.contains(&target).then(|| target - tile.start));
                    },
                );
            }
            out.iter_mut().zip(seen).for_each(|(out, seen)| *out = seen.log_prob());
        }
    }

    fn backward<R: Real>(
        &self,
        inputs: &[View<R>],
        output: &[R],
        grad: &[R],
        wanted: &[bool],
    ) -> Vec<Option<Vec<R>>> {
        let (vocabulary, width) = (inputs[1].dims[0], inputs[1].dims[1]);
        let mut d_hidden = vec![R::zero(); if wanted[0] { inputs[0].data.len() } else { 0 }];
        let mut d_weight = vec![R::zero(); if wanted[1] { inputs[1].data.len() } else { 0 }];
        let mut logits = vec![R::zero(); CHUNK.min(output.len()) * TILE.min(vocabulary)];
        for (chunk, rows) in inputs[0].data.chunks(CHUNK * width).enumerate() {
            let (at, n) = (chunk * CHUNK, rows.len() / width);
            let log_sums: Vec<R> = (at..at + n).map(|i| self.log_sum(inputs, i, output[i])).collect();
            for tile in Self::tiles(vocabulary) {
                let logits = &mut logits[..n * tile.len()];
                self.logits(inputs, rows, &tile, logits);
                // d logits = g · (onehot − softmax).
                logits.par_chunks_mut(tile.len()).enumerate().for_each(|(i, row)| {
                    let (target, g) = (self.targets[at + i] as usize, grad[at + i]);
                    let slope = |x: R| self.softcap.map_or(R::one(), |softcap| softcap.slope(x));
                    let target = tile.contains(&target).then(|| target - tile.start);
                    let at_target = target.map(|target| (target, g * slope(row[target])));
                    row.iter_mut().for_each(|x| *x = -g * (*x - log_sums[i]).fast_exp() * slope(*x));
                    if let Some((target, slope)) = at_target {
                        row[target] += slope;
                    }
                });
                let d_logits = Matrix::dense(n, tile.len());
                let weights = tile.start * width..tile.end * width;
                let tile = Matrix::dense(tile.len(), width);
                if wanted[0] {
                    let out = (&mut d_hidden[at * width..(at + n) * width], Matrix::dense(n, width));
                    let weight = (&inputs[1].data[weights.clone()], tile);
                    matmul(out, (logits, d_logits), weight, R::one(), true, Threads::All);
                }
                if wanted[1] {
                    let out = (&mut d_weight[weights], tile);
                    let hidden = (rows, Matrix::dense(n, width));
                    matmul(out, (logits, d_logits.t()), hidden, R::one(), true, Threads::All);
                }
            }
        }
        vec![wanted[0].then_some(d_hidden), wanted[1].then_some(d_weight)]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let hidden = inputs[0].contiguous()?;
        let mut chunks = Vec::new();
        for (chunk, targets) in self.targets.chunks(CHUNK).enumerate() {
            let logits = hidden.narrow(0, chunk * CHUNK, targets.len())?.matmul(&inputs[1].t()?)?;
            let logits = self.softcap.map_or(Ok(logits.clone()), |softcap| softcap.composed(&logits))?;
            let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
            let index = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
            let normaliser = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
            chunks.push((shifted.gather(&index, 1)? - normaliser)?.squeeze(1)?);
        }
        Tensor::cat(&chunks, 0)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};
    use candle_core::Var;

    #[test]
    fn gradients_within_and_across_chunks() {
        let weight = sample_tensor(&[5, 2], 2).unwrap();
        for n in [4usize, CHUNK + 3] {
            let targets: Arc<[u32]> = (0..n as u32).map(|i| i * 7 % 5).collect();
            // A cap that bends the logits, which reach about ±4.
            for softcap in [None, Some(Softcap(1.5))] {
                let targets = targets.clone();
                check(LogProb { targets, softcap }, &[sample_tensor(&[n, 2], 1).unwrap(), weight.clone()]);
            }
        }
    }

    #[test]
    fn tiles_of_the_vocabulary_are_one_vocabulary() {
        // Targets in the first tile, at its end, in the second and at the very end.
        let vocabulary = TILE + 300;
        let targets: Arc<[u32]> =
            [3, TILE - 1, TILE, vocabulary - 1].iter().map(|target| *target as u32).collect();
        let hidden = Var::from_tensor(&sample_tensor(&[4, 3], 1).unwrap()).unwrap();
        let weight = Var::from_tensor(&(sample_tensor(&[vocabulary, 3], 2).unwrap() * 3.0).unwrap()).unwrap();
        let op = LogProb { targets, softcap: Some(Softcap(4.0)) };
        let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let run = |output: Tensor| {
            let grads = output.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            [numbers(&output), numbers(grads.get(&hidden).unwrap()), numbers(grads.get(&weight).unwrap())]
        };
        let tiled = run(apply(op.clone(), &[&hidden, &weight]).unwrap());
        let whole = run(op.composed(&[&hidden, &weight]).unwrap());
        for (tiled, whole) in tiled.iter().zip(&whole) {
            let worst = tiled.iter().zip(whole).fold(0f64, |most, (a, b)| most.max((a - b).abs()));
            assert!(worst < 1e-10, "differ by {worst}");
        }
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_refused() {
        let (hidden, weight) = (sample_tensor(&[1, 2], 1).unwrap(), sample_tensor(&[5, 2], 2).unwrap());
        let message = token_log_probs(&hidden, &weight, None, &[5]).unwrap_err().to_string();
        assert!(message.contains("token id 5") && message.contains("vocabulary size 5"), "{message}");
    }
}
