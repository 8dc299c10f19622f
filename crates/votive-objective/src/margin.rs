//! Pair objectives that look at one number of a pair: the difference of two scores.
//!
//! Most of DPO's family is a loss of a margin. Saying so, instead of only computing it, is what lets a wrapper move the
//! margin, turn it round, or average over its scale, without knowing the method.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use candle_core::Tensor;
use std::fmt;
use std::sync::Arc;

/// A loss of the margin between the scores of a pair. Every one of them is a [`PairObjective`].
pub trait MarginObjective: fmt::Debug + Send + Sync {
    /// What `scores` reads.
    fn needs(&self) -> Needs;

    /// Scores of the chosen and of the rejected completions, `(B,)`, with their gradients; their difference is the margin.
    ///
    /// # Errors
    /// If a declared input is missing or shapes differ.
    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]>;

    /// Implicit rewards of both sides: the scores, unless a method measures rewards in another unit.
    ///
    /// # Errors
    /// As `scores`.
    fn rewards(&self, _inputs: &PairInputs, scores: [Tensor; 2]) -> Result<[Tensor; 2]> {
        Ok(scores)
    }

    /// The loss of each pair by its margin, `(B,)`.
    ///
    /// # Errors
    /// Those of candle.
    fn loss(&self, margin: &Tensor) -> Result<Tensor>;

    /// Whether `loss` is minus the logarithm of the probability of the label, by the margin.
    fn is_likelihood(&self) -> bool {
        false
    }

    /// Why the wrapper of this name makes no sense around this method, if it makes none.
    fn refuses(&self, _wrapper: &str) -> Option<&'static str> {
        None
    }
}

impl<M: MarginObjective + Clone + 'static> PairObjective for M {
    fn needs(&self) -> Needs {
        MarginObjective::needs(self)
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let [chosen, rejected] = self.scores(inputs)?;
        let per_pair = self.loss(&(&chosen - &rejected)?)?;
        Ok(PairLoss::new(per_pair, self.rewards(inputs, [chosen, rejected])?))
    }

    fn of_margin(&self) -> Option<Arc<dyn MarginObjective>> {
        Some(Arc::new(self.clone()))
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        MarginObjective::refuses(self, wrapper)
    }
}
