//! Whether two networks compute the same, on rows of tokens.

use crate::cli::{Code, Failure, Outcome};
use candle_core::Tensor;
use serde_json::{Value, json};
use std::fmt;
use votive_model::{CausalLm, Decoder};
use votive_tensor::random::{Draws, Stream};

/// Rows that are made up, and tokens of each.
const ROWS: u64 = 8;
const TOKENS: usize = 64;

/// The networks that should be one.
pub(super) struct Networks {
    /// The model under its adapter.
    pub(super) adapted: Decoder,
    /// The adapter in the weights, in memory.
    pub(super) merged: Decoder,
    /// The same, rounded to the type that is stored.
    pub(super) rounded: Decoder,
    /// What was read back from disk.
    pub(super) stored: Decoder,
}

/// How far the stored network's logits are from those of the model under its adapter.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) largest_difference: f64,
    /// How far they may be apart: what rounding to the stored type did in memory, and the noise of f32 arithmetic.
    pub(super) bound: f64,
    largest_logit: f64,
    tokens: usize,
    /// Positions at which both find the same token the most probable one.
    same_top: usize,
}

/// The noise of f32 arithmetic as a part of the largest logit: sums in another order, over many layers. Merging a random
/// adapter into networks of the fixtures' sizes moves logits by a tenth of it.
const NOISE: f64 = 270.0 / (1u32 << 24) as f64;

/// Rows of made-up tokens, always the same for a vocabulary.
pub(super) fn built_in_rows(vocabulary: usize, positions: usize) -> Vec<Vec<u32>> {
    let row = |row| {
        let mut draws = Draws::new(0, Stream::World, 0, row);
        (0..TOKENS.min(positions)).map(|_| draws.below(vocabulary) as u32).collect()
    };
    (0..ROWS).map(row).collect()
}

/// Compares the logits at every position of every row.
///
/// # Errors
/// If a logit is not a number, or a row does not fit the networks.
pub(super) fn compare(networks: &Networks, rows: &[Vec<u32>]) -> Outcome<Comparison> {
    let (mut difference, mut rounding, mut largest, mut tokens, mut same_top) = (0f64, 0f64, 0f64, 0, 0);
    for row in rows {
        let (adapted, stored) = (logits(&networks.adapted, row)?, logits(&networks.stored, row)?);
        let rounded = (logits(&networks.merged, row)? - logits(&networks.rounded, row)?)?;
        let (apart, rounded) = (most(&(&adapted - &stored)?)?, most(&rounded)?);
        if !(apart.is_finite() && rounded.is_finite()) {
            return Err(Failure::new(Code::Numbers, "a logit is not a number"));
        }
        (difference, rounding) = (difference.max(apart), rounding.max(rounded));
        largest = largest.max(most(&adapted)?);
        let top = |t: &Tensor| t.argmax(1)?.to_vec1::<u32>();
        same_top += top(&adapted)?.iter().zip(top(&stored)?).filter(|(a, b)| **a == *b).count();
        tokens += row.len();
    }
    let bound = rounding + NOISE * largest;
    Ok(Comparison { largest_difference: difference, bound, largest_logit: largest, tokens, same_top })
}

fn most(t: &Tensor) -> Outcome<f64> {
    Ok(f64::from(t.abs()?.max_all()?.to_scalar::<f32>()?))
}

fn logits(network: &Decoder, row: &[u32]) -> Outcome<Tensor> {
    let ids = Tensor::new(row, network.device())?.unsqueeze(0)?;
    Ok(network.logits(&network.hidden(&ids)?.squeeze(0)?)?)
}

impl Comparison {
    pub(super) fn is_within_bound(&self) -> bool {
        self.largest_difference <= self.bound
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "max_logit_difference": self.largest_difference,
            "bound": self.bound,
            "max_logit": self.largest_logit,
            "tokens": self.tokens,
            "same_top_token": self.same_top,
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "largest logit difference {:.3e} over {} tokens (bound {:.3e}, largest logit {:.2}); the most probable token is \
             the same at {} of them",
            self.largest_difference, self.tokens, self.bound, self.largest_logit, self.same_top
        )
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use votive_model::{CausalLmConfig, LlamaConfig, Params};

    #[test]
    fn rounding_passes_and_another_weight_does_not() {
        let config = CausalLmConfig::from(LlamaConfig::llama(40, (32, 64), 2, (4, 2), 64));
        let (_, params) = Params::fresh(1, &Device::Cpu, |scope| config.build(scope)).unwrap();
        let rows = built_in_rows(40, 64);
        assert_eq!((rows.len(), rows[0].len()), (8, 64));
        for float in [DType::F32, DType::F16, DType::BF16] {
            let stored = |wrong: &str| {
                let value = |name: &str, t: &Tensor| {
                    let t = t.to_dtype(float).unwrap().to_dtype(DType::F32).unwrap();
                    if name == wrong { (t * 0.5).unwrap() } else { t }
                };
                let tensors = params.iter().map(|(name, t)| (name.to_owned(), value(name, t))).collect();
                let params = Params::new("stored", tensors, &Device::Cpu);
                params.build(|scope| config.build(scope)).unwrap()
            };
            let exact = || params.build(|scope| config.build(scope)).unwrap();
            let check = |wrong: &str| {
                let networks = Networks {
                    adapted: exact(),
                    merged: exact(),
                    rounded: stored(""),
                    stored: stored(wrong),
                };
                compare(&networks, &rows).unwrap()
            };
            let right = check("");
            assert!(right.is_within_bound(), "{float:?}: {right}");
            assert_eq!(right.largest_difference == 0.0, float == DType::F32);
            // One layer's value projection without its adapter, say.
            let wrong = check("model.layers.1.self_attn.v_proj.weight");
            assert!(!wrong.is_within_bound(), "{float:?}: {wrong}");
        }
    }
}
