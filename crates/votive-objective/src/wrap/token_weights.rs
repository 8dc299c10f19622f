//! Token weights: every token of a completion counts as its row says.
//!
//! Source: Wu et al. 2025 (IterPref), arXiv:2503.02783, masks what two versions of a program share; Buehler 2024 (PRefLexOR),
//! arXiv:2410.12375, masks a completion's thoughts.
//! Loss: that of the method with `log π(y) = Σ_t w_t·log π(y_t)` and `|y| = Σ_t w_t`.
//! Departures: none. Where the weights come from is the data's: a recipe's `data.token_weights`.

use crate::completion::Completion;
use crate::contract::{PairInputs, PairObjective};
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::read_options;
use crate::wrap::{Around, WrapperSpec};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this wrapper.
pub static SPEC: WrapperSpec = WrapperSpec {
    name: "token_weights",
    title: "Token weights: every token counts as its row says",
    paper: "arXiv:2503.02783; arXiv:2410.12375",
    options: &[],
    defaults: || json!(WeighTokens::default()),
    around: Around::Margin(|options, inner| {
        let options: WeighTokens = read_options("with.token_weights", options)?;
        Ok(Box::new(options.around(inner)?) as Box<dyn PairObjective>)
    }),
};

/// It has no option: the weights are the data's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeighTokens {}

impl WeighTokens {
    /// Puts the weights before a loss of a margin.
    ///
    /// # Errors
    /// If the loss looks at single tokens itself.
    pub fn around(self, inner: Arc<dyn MarginObjective>) -> Result<Weighed> {
        if inner.needs().contains(Needs::TOKENS) {
            return Err(SPEC.refusal("it weighs single tokens itself"));
        }
        Ok(Weighed { inner })
    }
}

/// A loss of a margin of completions whose tokens are weighed.
#[derive(Clone, Debug)]
pub struct Weighed {
    inner: Arc<dyn MarginObjective>,
}

impl Weighed {
    /// A side whose sums are those of its weighed tokens.
    fn side(&self, side: &Completion) -> Result<Completion> {
        let weights = &side.token_weights()?.logratio;
        let sum = |values: &Tensor| side.masked_sum(&(values * weights)?);
        let reference_logps = match self.inner.needs().contains(Needs::REFERENCE) {
            true => Some(sum(side.reference_token_logps()?)?),
            false => None,
        };
        let policy_logps = sum(side.policy_token_logps()?)?;
        Ok(Completion {
            policy_logps,
            reference_logps,
            lengths: Some(side.masked_sum(weights)?),
            ..side.clone()
        })
    }

    fn weighed(&self, inputs: &PairInputs) -> Result<PairInputs> {
        let (chosen, rejected) = (self.side(&inputs.chosen)?, self.side(&inputs.rejected)?);
        Ok(PairInputs { chosen, rejected, ..inputs.clone() })
    }
}

impl MarginObjective for Weighed {
    fn needs(&self) -> Needs {
        // Lengths are those of the weighed tokens.
        self.inner.needs().without(Needs::LENGTHS).or(Needs::TOKEN_LOGPS).or(Needs::TOKEN_WEIGHTS)
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        self.inner.scores(&self.weighed(inputs)?)
    }

    fn rewards(&self, inputs: &PairInputs, scores: [Tensor; 2]) -> Result<[Tensor; 2]> {
        self.inner.rewards(&self.weighed(inputs)?, scores)
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
