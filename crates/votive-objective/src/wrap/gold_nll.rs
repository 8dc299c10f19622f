//! Third-sequence term: a gold completion, which is neither of the pair, is imitated.
//!
//! Source: Saeidi et al. 2024 (Triple Preference Optimization), arXiv:2405.16681.
//! Loss: `ℓ − α·log π_θ(y_gold|x)/|y_gold|`.
//! Departures: none. trl averages the term over the gold tokens of a micro-batch instead of over completions.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{OptionDoc, read_options, require_not_negative};
use crate::wrap::{Around, WrapperSpec};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this wrapper.
pub static SPEC: WrapperSpec = WrapperSpec {
    name: "gold_nll",
    title: "Third-sequence term: a gold completion is imitated, too",
    paper: "arXiv:2405.16681",
    options: &[OptionDoc {
        name: "weight",
        doc: "α ≥ 0: weight of the gold completion's mean log-probability",
    }],
    defaults: || json!(GoldNll::default()),
    around: Around::Pair(|options, inner| {
        let options: GoldNll = read_options("with.gold_nll", options)?;
        Ok(Box::new(options.around(inner)?) as Box<dyn PairObjective>)
    }),
};

/// The option of the term.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GoldNll {
    /// α.
    pub weight: f64,
}

impl Default for GoldNll {
    fn default() -> Self {
        Self { weight: 1.0 }
    }
}

impl GoldNll {
    /// Adds the term to a pair objective.
    ///
    /// # Errors
    /// If the weight is out of range.
    pub fn around(self, inner: Box<dyn PairObjective>) -> Result<WithGold> {
        require_not_negative("with.gold_nll", "weight", self.weight)?;
        Ok(WithGold { inner, options: self })
    }
}

/// A pair objective with a term of a gold completion.
#[derive(Debug)]
pub struct WithGold {
    inner: Box<dyn PairObjective>,
    options: GoldNll,
}

impl PairObjective for WithGold {
    fn needs(&self) -> Needs {
        self.inner.needs().or(Needs::GOLD)
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        let loss = self.inner.evaluate(inputs)?;
        let gold = inputs.gold()?;
        let mean = gold.per_token(&gold.policy_logps)?;
        Ok(PairLoss { per_pair: (loss.per_pair - (mean * self.options.weight)?)?, ..loss })
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        if wrapper == SPEC.name {
            Some("it imitates a gold completion already")
        } else {
            self.inner.refuses(wrapper)
        }
    }
}
