//! Preference optimization with cardinal feedback.
//!
//! Source: Whitfill & Slocum 2025, arXiv:2508.08486, for why: from comparisons alone no method can tell which of two models
//! people prefer, because a comparison does not say how much it matters.
//! Loss: `(m/u)·(−log σ(β·h))` with DPO's margin h, the pair's value difference m (such as willingness to pay) and the
//! difference u that counts as one.
//! Against DPO: a pair whose two completions are worth nearly the same counts for little, so a policy that cannot get
//! all pairs right gets those right that matter. Equal differences u are DPO.
//! Departures: this form is a guess. The paper fine-tunes with cardinal data; how the value difference enters its loss
//! could not be confirmed, and a weight is the least that has the property it proves.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "cardinal",
    title: "Cardinal feedback (the loss's form is a guess)",
    paper: "arXiv:2508.08486",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::MARGINS),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "unit",
            doc: "u > 0, in the scorer's units: the value difference that counts as one pair; a guess",
        },
    ],
    defaults: || json!(Cardinal::default()),
    build: |options| read_options::<Cardinal>("cardinal", options)?.checked(),
};

/// DPO weighted by value differences.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cardinal {
    /// β.
    pub beta: f64,
    /// u.
    pub unit: f64,
}

impl Default for Cardinal {
    fn default() -> Self {
        Self { beta: 0.1, unit: 1.0 }
    }
}

impl Cardinal {
    fn checked(self) -> Result<Objective> {
        require_positive("cardinal", "beta", self.beta)?;
        require_positive("cardinal", "unit", self.unit)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for Cardinal {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (inputs.chosen.logratio()?, inputs.rejected.logratio()?);
        let margin = ((&chosen - &rejected)? * self.beta)?;
        let weight = (inputs.margins()? / self.unit)?;
        Ok(PairLoss {
            per_pair: (log_sigmoid(&margin)?.neg()? * weight)?,
            chosen_rewards: (chosen.detach() * self.beta)?,
            rejected_rewards: (rejected.detach() * self.beta)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, losses, pairs, row};

    #[test]
    fn hand_arithmetic() {
        let ln3 = 3f64.ln();
        let inputs = pairs(&[ln3, ln3], &[0.0, 0.0]).with_margins(row(&[2.0, 10.0]));
        let loss = losses(&Cardinal { beta: 1.0, unit: 2.0 }, &inputs);
        assert_near(loss[0], (4f64 / 3.0).ln());
        assert_near(loss[1], 5.0 * (4f64 / 3.0).ln());
    }
}
