//! Token mask: tokens that only the longer completion of a pair has count less.
//!
//! Source: Liu et al. 2024 (LD-DPO), arXiv:2409.06411, Eq. 11.
//! Loss: that of the method with `log π(y) = Σ_{t ≤ l} log π(y_t) + α·Σ_{t > l} log π(y_t)` and `|y| = l + α·(|y| − l)`, where
//! l is the length of the shorter completion of the pair.
//! Departures: none. The weights act on policy and reference alike, as in trl; LLaMA-Factory weighs the policy alone.

use crate::completion::Completion;
use crate::contract::{PairInputs, PairObjective};
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{OptionDoc, read_options, require};
use crate::wrap::{Around, WrapperSpec};
use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this wrapper.
pub static SPEC: WrapperSpec = WrapperSpec {
    name: "token_mask",
    title: "Token mask: what the tokens count that only the longer completion has",
    paper: "arXiv:2409.06411, Eq. 11",
    options: &[OptionDoc {
        name: "alpha",
        doc: "0 ≤ α ≤ 1: weight of the tokens beyond the shorter completion; 0 masks them",
    }],
    defaults: || json!(TokenMask::default()),
    around: Around::Margin(|options, inner| {
        let options: TokenMask = read_options("with.token_mask", options)?;
        Ok(Box::new(options.around(inner)?) as Box<dyn PairObjective>)
    }),
};

/// The option of the mask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenMask {
    /// α.
    pub alpha: f64,
}

impl Default for TokenMask {
    fn default() -> Self {
        Self { alpha: 0.5 }
    }
}

impl TokenMask {
    /// Puts the mask before a loss of a margin.
    ///
    /// # Errors
    /// If α is out of range, or the loss reads more of single tokens than their log-probabilities.
    pub fn around(self, inner: Arc<dyn MarginObjective>) -> Result<Masked> {
        require("with.token_mask", "alpha", self.alpha, (0.0..=1.0).contains(&self.alpha), "from 0 to 1")?;
        if inner.needs().contains(Needs::TOKENS) {
            return Err(SPEC.refusal("it weighs single tokens itself"));
        }
        Ok(Masked { inner, alpha: self.alpha })
    }
}

/// A loss of a margin of masked completions.
#[derive(Clone, Debug)]
pub struct Masked {
    inner: Arc<dyn MarginObjective>,
    alpha: f64,
}

impl Masked {
    /// A side whose sums are those of its weighted tokens; `shorter (B,)` is where α begins.
    fn side(&self, side: &Completion, shorter: &Tensor) -> Result<Completion> {
        let policy = side.policy_token_logps()?;
        // 1 up to the shorter length, α beyond.
        let place = Tensor::ones_like(policy)?.cumsum(D::Minus1)?.detach();
        let is_shared = place.broadcast_le(&shorter.unsqueeze(1)?)?.to_dtype(policy.dtype())?;
        let weights = ((is_shared * (1.0 - self.alpha))? + self.alpha)?;
        let sum = |values: &Tensor| side.masked_sum(&(values * &weights)?);
        let reference_logps = match self.inner.needs().contains(Needs::REFERENCE) {
            true => Some(sum(side.reference_token_logps()?)?),
            false => None,
        };
        let lengths = Some(side.masked_sum(&weights)?);
        Ok(Completion { policy_logps: sum(policy)?, reference_logps, lengths, ..side.clone() })
    }

    fn masked(&self, inputs: &PairInputs) -> Result<PairInputs> {
        let shorter = inputs.chosen.token_counts()?.minimum(&inputs.rejected.token_counts()?)?;
        let (chosen, rejected) =
            (self.side(&inputs.chosen, &shorter)?, self.side(&inputs.rejected, &shorter)?);
        Ok(PairInputs { chosen, rejected, ..inputs.clone() })
    }
}

impl MarginObjective for Masked {
    fn needs(&self) -> Needs {
        // Lengths are those of the masked completions.
        self.inner.needs().without(Needs::LENGTHS).or(Needs::TOKEN_LOGPS)
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        self.inner.scores(&self.masked(inputs)?)
    }

    fn rewards(&self, inputs: &PairInputs, scores: [Tensor; 2]) -> Result<[Tensor; 2]> {
        self.inner.rewards(&self.masked(inputs)?, scores)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        self.inner.loss(margin)
    }

    fn is_likelihood(&self) -> bool {
        self.inner.is_likelihood()
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        self.inner.refuses(wrapper)
    }
}
