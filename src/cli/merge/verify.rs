//! Whether two networks compute the same, on rows of tokens.

use crate::cli::{Code, Failure, Outcome};
use candle_core::Tensor;
use serde_json::{Value, json};
use std::fmt;
use votive_model::{CausalLm, Decoder, RewardModel};
use votive_tensor::random::{Draws, Stream};

/// Rows that are made up, and tokens of each.
const ROWS: u64 = 8;
const TOKENS: usize = 64;

/// The networks that should be one.
pub(super) struct Networks<N> {
    /// The model under its adapter.
    pub(super) adapted: N,
    /// The adapter in the weights, in memory.
    pub(super) merged: N,
    /// The same, rounded to the type that is stored.
    pub(super) rounded: N,
    /// What was read back from disk.
    pub(super) stored: N,
}

/// A network that says numbers of a row of tokens.
pub(super) trait Says {
    /// What the numbers are.
    const WHAT: &'static str;

    /// The numbers, `(T, V)`; a reward model says one.
    ///
    /// # Errors
    /// If the row does not fit the network.
    fn numbers(&self, row: &[u32]) -> Outcome<Tensor>;
}

impl Says for Decoder {
    const WHAT: &'static str = "logit";

    fn numbers(&self, row: &[u32]) -> Outcome<Tensor> {
        let ids = Tensor::new(row, self.device())?.unsqueeze(0)?;
        Ok(self.logits(&self.hidden(&ids)?.squeeze(0)?)?)
    }
}

impl Says for RewardModel {
    const WHAT: &'static str = "reward";

    fn numbers(&self, row: &[u32]) -> Outcome<Tensor> {
        Ok(self.rewards(&[row.to_vec()], None)?.unsqueeze(1)?)
    }
}

/// How far the stored network's numbers are from those of the model under its adapter.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    /// `logit` or `reward`.
    what: &'static str,
    pub(super) largest_difference: f64,
    /// How far they may be apart: what rounding to the stored type did in memory, and the noise of f32 arithmetic.
    pub(super) bound: f64,
    largest: f64,
    tokens: usize,
    /// Positions at which both find the same token the most probable one, where there are several.
    same_top: Option<usize>,
}

/// The noise of f32 arithmetic as a part of the largest number: sums in another order, over many layers. Merging a random
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

/// Compares the logits at every position of every row, or the rewards of the rows.
///
/// # Errors
/// If one is not a number, or a row does not fit the networks.
pub(super) fn compare<N: Says>(networks: &Networks<N>, rows: &[Vec<u32>]) -> Outcome<Comparison> {
    let (mut difference, mut rounding, mut largest, mut tokens) = (0f64, 0f64, 0f64, 0);
    let mut same_top = None;
    for row in rows {
        let (adapted, stored) = (networks.adapted.numbers(row)?, networks.stored.numbers(row)?);
        let rounded = (networks.merged.numbers(row)? - networks.rounded.numbers(row)?)?;
        let (apart, rounded) = (most(&(&adapted - &stored)?)?, most(&rounded)?);
        if !(apart.is_finite() && rounded.is_finite()) {
            return Err(Failure::new(Code::Numbers, format!("a {} is not a number", N::WHAT)));
        }
        (difference, rounding) = (difference.max(apart), rounding.max(rounded));
        largest = largest.max(most(&adapted)?);
        if adapted.dim(1)? > 1 {
            let top = |t: &Tensor| t.argmax(1)?.to_vec1::<u32>();
            let same = top(&adapted)?.iter().zip(top(&stored)?).filter(|(a, b)| **a == *b).count();
            same_top = Some(same_top.unwrap_or(0) + same);
        }
        tokens += row.len();
    }
    let bound = rounding + NOISE * largest;
    Ok(Comparison { what: N::WHAT, largest_difference: difference, bound, largest, tokens, same_top })
}

fn most(t: &Tensor) -> Outcome<f64> {
    Ok(f64::from(t.abs()?.max_all()?.to_scalar::<f32>()?))
}

impl Comparison {
    pub(super) fn is_within_bound(&self) -> bool {
        self.largest_difference <= self.bound
    }

    pub(super) fn to_json(&self) -> Value {
        let what = self.what;
        json!({
            format!("max_{what}_difference"): self.largest_difference,
            "bound": self.bound,
            format!("max_{what}"): self.largest,
            "tokens": self.tokens,
            "same_top_token": self.same_top,
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, largest_difference, bound, largest, tokens, same_top } = self;
        write!(
            f,
            "largest {what} difference {largest_difference:.3e} over {tokens} tokens (bound {bound:.3e}, largest {what} \
             {largest:.2})"
        )?;
        match same_top {
            Some(same) => write!(f, "; the most probable token is the same at {same} of them"),
            None => Ok(()),
        }
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
