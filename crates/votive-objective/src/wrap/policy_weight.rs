//! Weight: a pair counts as likely as the policy would have written it.
//!
//! Source: Zhou et al. 2024 (WPO), arXiv:2406.11827, Eq. 2, with sampled alignment.
//! Loss: `w(y_w)·w(y_l)·ℓ`, with `w(y) = exp(1/|y| Σ_t (log π_θ(y_t) − log Σ_v π_θ(v)²))`, which carries no gradient.
//! Departures: none. `max` bounds the product: 1 in the authors' code, no bound in trl 1.16.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{OptionDoc, read_options, require_positive};
use crate::wrap::{Around, WrapperSpec};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this wrapper.
pub static SPEC: WrapperSpec = WrapperSpec {
    name: "policy_weight",
    title: "Weight: a pair counts as likely as the policy would have written it",
    paper: "arXiv:2406.11827, Eq. 2",
    options: &[OptionDoc { name: "max", doc: "w > 0: largest weight of a pair" }],
    defaults: || json!(PolicyWeight::default()),
    around: Around::Pair(|options, inner| {
        let options: PolicyWeight = read_options("with.policy_weight", options)?;
        Ok(Box::new(options.around(inner)?) as Box<dyn PairObjective>)
    }),
};

/// The option of the weight.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyWeight {
    /// Largest weight.
    pub max: f64,
}

impl Default for PolicyWeight {
    fn default() -> Self {
        Self { max: 1.0 }
    }
}

impl PolicyWeight {
    /// Puts the weight before a pair objective.
    ///
    /// # Errors
    /// If the bound is out of range, or a pair has no loss of its own.
    pub fn around(self, inner: Box<dyn PairObjective>) -> Result<Weighted> {
        require_positive("with.policy_weight", "max", self.max)?;
        if inner.needs().contains(Needs::WHOLE_BATCH) {
            return Err(
                SPEC.refusal("it compares ranks over a batch, so a pair has no loss of its own to weigh")
            );
        }
        Ok(Weighted { inner, options: self })
    }
}

/// A pair objective whose losses are weighted.
#[derive(Debug)]
pub struct Weighted {
    inner: Box<dyn PairObjective>,
    options: PolicyWeight,
}

impl PairObjective for Weighted {
    fn needs(&self) -> Needs {
        self.inner.needs().or(Needs::ALIGNMENT)
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        let loss = self.inner.evaluate(inputs)?;
        let log_weight = (inputs.chosen.alignment()? + inputs.rejected.alignment()?)?;
        let weight = log_weight.minimum(self.options.max.ln())?.exp()?;
        Ok(PairLoss { per_pair: (loss.per_pair * weight)?, ..loss })
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        if wrapper == SPEC.name { Some("it is weighted already") } else { self.inner.refuses(wrapper) }
    }
}
