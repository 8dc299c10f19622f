//! NLL term: the chosen completion is also imitated.
//!
//! Source: Pang et al. 2024 (IRPO), arXiv:2404.19733, Eq. 1; Liu et al. 2024 (RPO), arXiv:2405.16436; Xu et al. 2024 (CPO),
//! arXiv:2401.08417.
//! Loss: `ℓ − α·log π_θ(y_w|x)/|y_w|`, or without the division.
//! Departures: none. trl's CPO trainer averages the term over the tokens of a micro-batch instead of over completions; as a
//! term of its own, `[objective.sft]` does that for a whole step.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{OptionDoc, read_options, require_not_negative};
use crate::wrap::{Around, WrapperSpec};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this wrapper.
pub static SPEC: WrapperSpec = WrapperSpec {
    name: "nll",
    title: "NLL term: the chosen completion is imitated, too",
    paper: "arXiv:2404.19733, Eq. 1; arXiv:2405.16436; arXiv:2401.08417",
    options: &[
        OptionDoc { name: "weight", doc: "α ≥ 0: weight of the term" },
        OptionDoc {
            name: "per_token",
            doc: "whether a completion's log-probability is divided by its length",
        },
    ],
    defaults: || json!(Nll::default()),
    around: Around::Pair(|options, inner| {
        let options: Nll = read_options("with.nll", options)?;
        Ok(Box::new(options.around(inner)?) as Box<dyn PairObjective>)
    }),
};

/// The options of the term.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nll {
    /// α.
    pub weight: f64,
    /// Whether it is divided by |y_w|.
    pub per_token: bool,
}

impl Default for Nll {
    fn default() -> Self {
        Self { weight: 1.0, per_token: true }
    }
}

impl Nll {
    /// Adds the term to a pair objective.
    ///
    /// # Errors
    /// If the weight is out of range.
    pub fn around(self, inner: Box<dyn PairObjective>) -> Result<WithNll> {
        require_not_negative("with.nll", "weight", self.weight)?;
        Ok(WithNll { inner, options: self })
    }
}

/// A pair objective with a likelihood term.
#[derive(Debug)]
pub struct WithNll {
    inner: Box<dyn PairObjective>,
    options: Nll,
}

impl PairObjective for WithNll {
    fn needs(&self) -> Needs {
        let needs = self.inner.needs();
        if self.options.per_token { needs.or(Needs::LENGTHS) } else { needs }
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        let loss = self.inner.evaluate(inputs)?;
        let logps = &inputs.chosen.policy_logps;
        let logps = if self.options.per_token { inputs.chosen.per_token(logps)? } else { logps.clone() };
        Ok(PairLoss { per_pair: (loss.per_pair - (logps * self.options.weight)?)?, ..loss })
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        if wrapper == SPEC.name {
            Some("it has a likelihood term already")
        } else {
            self.inner.refuses(wrapper)
        }
    }
}
