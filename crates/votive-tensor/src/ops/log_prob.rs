//! The language-model head: log-probabilities of given tokens without ever holding (tokens × vocabulary).

use super::softcap::Softcap;
use crate::kernel::{Kernel, Matrix, Real, Threads, View, apply, matmul};
use candle_core::{D, Result, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// Positions whose logits exist at the same time.
const CHUNK: usize = 256;

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

impl LogProb {
    fn logits<R: Real>(&self, inputs: &[View<R>], rows: &[R], logits: &mut [R]) {
        let (vocabulary, width) = (inputs[1].dims[0], inputs[1].dims[1]);
        let n = rows.len() / width;
        matmul(
            (&mut *logits, Matrix::dense(n, vocabulary)),
            (rows, Matrix::dense(n, width)),
            (inputs[1].data, Matrix::dense(vocabulary, width).t()),
            R::one(),
            false,
            Threads::All,
        );
        if let Some(softcap) = self.softcap {
            logits.par_chunks_mut(vocabulary).for_each(|row| softcap.apply(row));
        }
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
        let mut logits = vec![R::zero(); CHUNK.min(output.len()) * vocabulary];
        let hidden = inputs[0].data.chunks(CHUNK * width);
        for ((out, rows), targets) in output.chunks_mut(CHUNK).zip(hidden).zip(self.targets.chunks(CHUNK)) {
            let logits = &mut logits[..out.len() * vocabulary];
            self.logits(inputs, rows, logits);
            out.par_iter_mut().zip(logits.par_chunks(vocabulary)).zip(targets).for_each(
                |((out, row), target)| {
                    let most = R::largest(row);
                    let sum: R = row.iter().map(|x| (*x - most).fast_exp()).sum();
                    *out = row[*target as usize] - most - sum.ln();
                },
            );
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
        let mut logits = vec![R::zero(); CHUNK.min(output.len()) * vocabulary];
        for (chunk, rows) in inputs[0].data.chunks(CHUNK * width).enumerate() {
            let (at, n) = (chunk * CHUNK, rows.len() / width);
            let logits = &mut logits[..n * vocabulary];
            self.logits(inputs, rows, logits);
            // d logits = g · (onehot − softmax); the output gives the normaliser: lse = logit[target] − output.
            logits.par_chunks_mut(vocabulary).enumerate().for_each(|(i, row)| {
                let (target, g) = (self.targets[at + i] as usize, grad[at + i]);
                let log_sum = row[target] - output[at + i];
                let slope = |x: R| self.softcap.map_or(R::one(), |softcap| softcap.slope(x));
                let at_target = g * slope(row[target]);
                row.iter_mut().for_each(|x| *x = -g * (*x - log_sum).fast_exp() * slope(*x));
                row[target] += at_target;
            });
            let d_logits = Matrix::dense(n, vocabulary);
            if wanted[0] {
                let out = (&mut d_hidden[at * width..(at + n) * width], Matrix::dense(n, width));
                let weight = (inputs[1].data, Matrix::dense(vocabulary, width));
                matmul(out, (logits, d_logits), weight, R::one(), false, Threads::All);
            }
            if wanted[1] {
                let out = (&mut d_weight[..], Matrix::dense(vocabulary, width));
                let hidden = (rows, Matrix::dense(n, width));
                matmul(out, (logits, d_logits.t()), hidden, R::one(), true, Threads::All);
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
    fn a_target_outside_the_vocabulary_is_refused() {
        let (hidden, weight) = (sample_tensor(&[1, 2], 1).unwrap(), sample_tensor(&[5, 2], 2).unwrap());
        let message = token_log_probs(&hidden, &weight, None, &[5]).unwrap_err().to_string();
        assert!(message.contains("token id 5") && message.contains("vocabulary size 5"), "{message}");
    }
}
