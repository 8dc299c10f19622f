//! The language-model head: log-probabilities of given tokens without ever holding (tokens × vocabulary).

use super::softcap::Softcap;
use crate::kernel::{Kernel, Matrix, Real, Threads, View, apply, matmul};
use crate::vector;
use candle_core::{D, Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Positions and tokens of the vocabulary whose logits exist at the same time: memory grows with neither.
pub(super) const CHUNK: usize = 256;
pub(super) const TILE: usize = 8192;

/// What the head says of one token per position, under the logits `hidden · weightᵀ`, each squeezed into ±`softcap` by
/// `cap · tanh(logit / cap)` if there is one.
///
/// # Shapes
/// `hidden (N, D)`, `weight (V, D)`, `targets` of length N, each below V → N of each score.
/// # Numerics
/// Log-softmax with the maximum subtracted, in the dtype of the arguments. The backward computes the logits again.
/// # Errors
/// If the sizes don't fit or a target is not below V.
pub fn token_scores(
    hidden: &Tensor,
    weight: &Tensor,
    softcap: Option<f64>,
    targets: &[u32],
) -> Result<TokenScores> {
    let vocabulary = weight.dim(0)?;
    if let Some(target) = targets.iter().find(|target| **target as usize >= vocabulary) {
        candle_core::bail!("log-prob head: token id {target} is not below the vocabulary size {vocabulary}");
    }
    let head = LogProb { targets: targets.into(), softcap: softcap.map(Softcap) };
    Ok(TokenScores(apply(head, &[hidden, weight])?))
}

/// What the head says of N tokens. Only log-probabilities have a gradient.
#[derive(Clone, Debug)]
pub struct TokenScores(Tensor);

/// Columns of the head's result.
const LOG_PROB: usize = 0;
const LOG_SUM: usize = 1;
const ENTROPY: usize = 2;
const MEAN_LOGIT: usize = 3;
const IS_TOP: usize = 4;
const COLLISION: usize = 5;
const COLUMNS: usize = 6;

impl TokenScores {
    /// Those of the first `tokens` tokens.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn of_first(&self, tokens: usize) -> Result<Self> {
        Ok(Self(self.0.narrow(0, 0, tokens)?))
    }

    /// Log-probability of each token, nats, `(N,)`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn log_probs(&self) -> Result<Tensor> {
        column(&self.0, LOG_PROB)
    }

    /// Entropy of the distribution that each token was drawn from, nats, `(N,)`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn entropy(&self) -> Result<Tensor> {
        column(&self.0.detach(), ENTROPY)
    }

    /// Mean over the vocabulary of the logits at each token, `(N,)`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn mean_logits(&self) -> Result<Tensor> {
        column(&self.0.detach(), MEAN_LOGIT)
    }

    /// `log Σ_v p(v)²` of the distribution that each token was drawn from: the logarithm of the chance that two draws are
    /// the same, nats, `(N,)`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn log_collisions(&self) -> Result<Tensor> {
        column(&self.0.detach(), COLLISION)
    }

    /// 1 where no token is likelier than the one that stands there, else 0, `(N,)`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn is_top(&self) -> Result<Tensor> {
        column(&self.0.detach(), IS_TOP)
    }
}

/// One column of a head's result, `(N,)`.
pub(super) fn column(results: &Tensor, column: usize) -> Result<Tensor> {
    results.narrow(1, column, 1)?.squeeze(1)?.contiguous()
}

/// The vocabulary in tiles.
pub(super) fn tiles(vocabulary: usize) -> impl Iterator<Item = Range<usize>> {
    (0..vocabulary).step_by(TILE).map(move |start| start..(start + TILE).min(vocabulary))
}

/// Logits of some positions for a tile of the vocabulary, (n, tile) dense.
pub(super) fn tile_logits<R: Real>(
    (rows, weight): (&[R], &View<R>),
    softcap: Option<Softcap>,
    tile: &Range<usize>,
    logits: &mut [R],
) {
    let width = weight.dims[1];
    let n = rows.len() / width;
    matmul(
        (&mut *logits, Matrix::dense(n, tile.len())),
        (rows, Matrix::dense(n, width)),
        (&weight.data[tile.start * width..], Matrix::dense(tile.len(), width).t()),
        R::one(),
        false,
        Threads::All,
    );
    if let Some(softcap) = softcap {
        logits.par_chunks_mut(tile.len()).for_each(|row| softcap.apply(row));
    }
}

/// Gradients of a head's hidden states and weight, gathered tile by tile.
pub(super) struct HeadGradients<'a, R> {
    hidden: View<'a, R>,
    weight: View<'a, R>,
    d_hidden: Option<Vec<R>>,
    d_weight: Option<Vec<R>>,
}

impl<'a, R: Real> HeadGradients<'a, R> {
    /// Zeros for those of hidden states and weight that are wanted.
    pub(super) fn new(inputs: &[View<'a, R>], wanted: &[bool]) -> Self {
        let zeros = |place: usize| wanted[place].then(|| vec![R::zero(); inputs[place].data.len()]);
        Self { hidden: inputs[0], weight: inputs[1], d_hidden: zeros(0), d_weight: zeros(1) }
    }

    /// Adds what the gradient of the logits of some positions for a tile of the vocabulary makes of them.
    pub(super) fn add(&mut self, positions: Range<usize>, tile: &Range<usize>, d_logits: &[R]) {
        let width = self.weight.dims[1];
        let (rows, weights) =
            (positions.start * width..positions.end * width, tile.start * width..tile.end * width);
        let logits = Matrix::dense(positions.len(), tile.len());
        let (hidden, weight) = (Matrix::dense(positions.len(), width), Matrix::dense(tile.len(), width));
        if let Some(d_hidden) = &mut self.d_hidden {
            let by = (&self.weight.data[weights.clone()], weight);
            matmul(
                (&mut d_hidden[rows.clone()], hidden),
                (d_logits, logits),
                by,
                R::one(),
                true,
                Threads::All,
            );
        }
        if let Some(d_weight) = &mut self.d_weight {
            let by = (&self.hidden.data[rows], hidden);
            matmul(
                (&mut d_weight[weights], weight),
                (d_logits, logits.t()),
                by,
                R::one(),
                true,
                Threads::All,
            );
        }
    }

    /// The gradients, in the order of the arguments.
    pub(super) fn finish(self) -> Vec<Option<Vec<R>>> {
        vec![self.d_hidden, self.d_weight]
    }
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
    /// Sum of `exp(logit − most) · (logit − most)`.
    weighted: R,
    /// Sum of `exp(logit − most)²`.
    squares: R,
    /// Sum of the logits.
    total: R,
    /// The target's logit, once its tile was seen.
    target: R,
}

impl<R: Real> Seen<R> {
    fn nothing() -> Self {
        let zero = R::zero();
        Self { most: R::neg_infinity(), sum: zero, weighted: zero, squares: zero, total: zero, target: zero }
    }

    fn add(&mut self, logits: &[R], target: Option<usize>) {
        let most = R::largest(&[R::largest(logits), self.most]);
        let mut sums = [R::zero(); 4];
        vector::run(Exponentials { logits, most, sums: &mut sums });
        if self.sum > R::zero() {
            let (down, scale) = (self.most - most, (self.most - most).fast_exp());
            self.weighted = (self.weighted + self.sum * down) * scale;
            self.sum *= scale;
            self.squares *= scale * scale;
        }
        let [sum, weighted, total, squares] = sums;
        self.sum += sum;
        self.weighted += weighted;
        self.total += total;
        self.squares += squares;
        self.most = most;
        if let Some(target) = target {
            self.target = logits[target];
        }
    }

    fn write(self, vocabulary: usize, row: &mut [R]) {
        let log_sum = self.sum.ln();
        row[LOG_PROB] = self.target - self.most - log_sum;
        row[LOG_SUM] = self.most + log_sum;
        row[ENTROPY] = log_sum - self.weighted / self.sum;
        row[MEAN_LOGIT] = self.total / R::of(vocabulary as f64);
        row[IS_TOP] = if self.target == self.most { R::one() } else { R::zero() };
        row[COLLISION] = self.squares.ln() - log_sum - log_sum;
    }
}

/// The sums of [`Seen`] over a tile.
struct Exponentials<'a, R> {
    logits: &'a [R],
    most: R,
    sums: &'a mut [R; 4],
}

impl<R: Real> vector::Loop for Exponentials<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let mut strands = [[R::zero(); 8]; 4];
        let mut add = |i: usize, logit: R| {
            let down = logit - self.most;
            let e = down.fast_exp();
            strands[0][i] += e;
            strands[1][i] += e * down;
            strands[2][i] += logit;
            strands[3][i] += e * e;
        };
        let (eights, rest) = self.logits.as_chunks::<8>();
        for eight in eights {
            (0..8).for_each(|i| add(i, eight[i]));
        }
        rest.iter().enumerate().for_each(|(i, logit)| add(i, *logit));
        *self.sums = strands.map(|strands| strands.into_iter().sum());
    }
}

/// Turns logits into `−slope · softmax`, given the logarithm of their sum.
struct MinusSoftmax<'a, R> {
    logits: &'a mut [R],
    log_sum: R,
    slope: R,
}

impl<R: Real> vector::Loop for MinusSoftmax<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        self.logits.iter_mut().for_each(|x| *x = -self.slope * (*x - self.log_sum).fast_exp());
    }
}

impl Kernel for LogProb {
    const NAME: &'static str = "log-prob head";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        match (dims[0], dims[1]) {
            ([n, width], [_, d]) if width == d && *n == self.targets.len() => Ok(vec![*n, COLUMNS]),
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
        let mut logits = vec![R::zero(); CHUNK.min(self.targets.len()) * TILE.min(vocabulary)];
        let hidden = inputs[0].data.chunks(CHUNK * width);
        let targets = self.targets.chunks(CHUNK);
        for ((out, rows), targets) in output.chunks_mut(CHUNK * COLUMNS).zip(hidden).zip(targets) {
            let mut seen = vec![Seen::nothing(); targets.len()];
            for tile in tiles(vocabulary) {
                let logits = &mut logits[..targets.len() * tile.len()];
                tile_logits((rows, &inputs[1]), self.softcap, &tile, logits);
                seen.par_iter_mut().zip(logits.par_chunks(tile.len())).zip(targets).for_each(
                    |((seen, row), target)| {
                        let target = *target as usize;
                        seen.add(row, tile.contains(&target).then(|| target - tile.start));
                    },
                );
            }
            out.chunks_mut(COLUMNS).zip(seen).for_each(|(out, seen)| seen.write(vocabulary, out));
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
        let mut gradients = HeadGradients::new(inputs, wanted);
        let mut logits = vec![R::zero(); CHUNK.min(self.targets.len()) * TILE.min(vocabulary)];
        for (chunk, rows) in inputs[0].data.chunks(CHUNK * width).enumerate() {
            let (at, n) = (chunk * CHUNK, rows.len() / width);
            for tile in tiles(vocabulary) {
                let logits = &mut logits[..n * tile.len()];
                tile_logits((rows, &inputs[1]), self.softcap, &tile, logits);
                // d logits = g · (onehot − softmax), and under a cap its slope.
                logits.par_chunks_mut(tile.len()).enumerate().for_each(|(i, row)| {
                    let (target, slope) =
                        (self.targets[at + i] as usize, grad[(at + i) * COLUMNS + LOG_PROB]);
                    let log_sum = output[(at + i) * COLUMNS + LOG_SUM];
                    // Of the capped logits, before they are overwritten; none without a cap.
                    let slopes = self.softcap.iter().flat_map(|cap| row.iter().map(|x| cap.slope(*x)));
                    let slopes: Vec<R> = slopes.collect();
                    vector::run(MinusSoftmax { logits: &mut *row, log_sum, slope });
                    if tile.contains(&target) {
                        row[target - tile.start] += slope;
                    }
                    row.iter_mut().zip(slopes).for_each(|(x, slope)| *x *= slope);
                });
                gradients.add(at..at + n, &tile, logits);
            }
        }
        gradients.finish()
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let hidden = inputs[0].contiguous()?;
        let mut chunks = Vec::new();
        for (chunk, targets) in self.targets.chunks(CHUNK).enumerate() {
            let logits = hidden.narrow(0, chunk * CHUNK, targets.len())?.matmul(&inputs[1].t()?)?;
            let logits = self.softcap.map_or(Ok(logits.clone()), |softcap| softcap.composed(&logits))?;
            let most = logits.detach().max_keepdim(D::Minus1)?;
            let shifted = logits.broadcast_sub(&most)?;
            let index = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
            let normaliser = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
            let log_prob = (shifted.gather(&index, 1)? - &normaliser)?;
            let (shifted, normaliser) = (shifted.detach(), normaliser.detach());
            let log_probs = shifted.broadcast_sub(&normaliser)?;
            let entropy = (log_probs.exp()? * &log_probs)?.sum_keepdim(D::Minus1)?.neg()?;
            let is_top =
                shifted.gather(&index, 1)?.ge(&normaliser.zeros_like()?)?.to_dtype(logits.dtype())?;
            let mean = logits.detach().mean_keepdim(D::Minus1)?;
            let collision = (log_probs * 2.0)?.exp()?.sum_keepdim(D::Minus1)?.log()?;
            let columns = [log_prob, (most + normaliser)?, entropy, mean, is_top, collision];
            chunks.push(Tensor::cat(&columns, 1)?);
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

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn gradients_within_and_across_chunks() {
        let weight = sample_tensor(&[5, 2], 2).unwrap();
        for n in [4usize, CHUNK + 3] {
            let inputs = [sample_tensor(&[n, 2], 1).unwrap(), weight.clone()];
            // A cap that bends the logits, which reach about ±4.
            for softcap in [None, Some(Softcap(1.5))] {
                let head = LogProb { targets: (0..n as u32).map(|i| i * 7 % 5).collect(), softcap };
                let fused = |x: &[Tensor]| column(&apply(head.clone(), &[&x[0], &x[1]])?, LOG_PROB);
                let composed = |x: &[Tensor]| column(&head.composed(&[&x[0], &x[1]])?, LOG_PROB);
                assert!(gradient_error(&inputs, fused).unwrap() < 2e-7);
                assert!(gradient_error(&inputs, composed).unwrap() < 1e-5);
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
        let run = |output: Tensor| {
            let loss = column(&output, LOG_PROB).unwrap().sqr().unwrap().sum_all().unwrap();
            let grads = loss.backward().unwrap();
            [output, grads.get(&hidden).unwrap().clone(), grads.get(&weight).unwrap().clone()]
        };
        let tiled = run(apply(op.clone(), &[&hidden, &weight]).unwrap());
        let whole = run(op.composed(&[&hidden, &weight]).unwrap());
        for (tiled, whole) in tiled.iter().zip(&whole) {
            let worst = difference(tiled, whole);
            assert!(worst < 1e-10, "differ by {worst}");
        }
    }

    #[test]
    fn what_is_said_of_a_token_by_hand() {
        // Logits ln 1, ln 2, ln 5: probabilities 1/8, 1/4, 5/8.
        let hidden = Tensor::new(&[[1f64], [1.0]], &Device::Cpu).unwrap();
        let weight = Tensor::new(&[[0f64], [2f64.ln()], [5f64.ln()]], &Device::Cpu).unwrap();
        let scores = token_scores(&hidden, &weight, None, &[1, 2]).unwrap();
        let entropy = 0.125 * 8f64.ln() + 0.25 * 4f64.ln() - 0.625 * 0.625f64.ln();
        for (found, expected) in [
            (scores.log_probs(), [0.25f64.ln(), 0.625f64.ln()]),
            (scores.entropy(), [entropy; 2]),
            (scores.mean_logits(), [10f64.ln() / 3.0; 2]),
            (scores.is_top(), [0.0, 1.0]),
            (scores.log_collisions(), [(30f64 / 64.0).ln(); 2]),
        ] {
            let expected = Tensor::new(&expected, &Device::Cpu).unwrap();
            assert!(difference(&found.unwrap(), &expected) < 1e-12);
        }
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_refused() {
        let (hidden, weight) = (sample_tensor(&[1, 2], 1).unwrap(), sample_tensor(&[5, 2], 2).unwrap());
        let message = token_scores(&hidden, &weight, None, &[5]).unwrap_err().to_string();
        assert!(message.contains("token id 5") && message.contains("vocabulary size 5"), "{message}");
    }
}
