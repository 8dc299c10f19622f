//! Value-incentivized preference optimization, offline (VPO).
//!
//! Source: Cen et al. 2024, arXiv:2405.19320.
//! Loss: `−log σ(β·h) − α·β·(log π_θ − log π_ref)(y_w)` with DPO's margin h.
//! The reward is fitted by maximum likelihood and, of those that fit, one whose best policy is worth little is taken
//! (pessimism): `max_π E r − β·KL` is `−β·E_cal[log π_θ/π_ref]` once the reward's shift is fixed by `E_cal r = 0`, and the
//! calibration completions are the chosen ones of the data.
//! Against DPO: the chosen completion's likelihood must rise, not only the margin. α = 0 is DPO; but for a constant it is
//! DPO with a likelihood term of weight α·β.
//! Departures: the calibration is the pair's own chosen completion. Online VPO has the other sign and calibrates on
//! completions of a fixed policy. The formula is recalled and its identity was checked in numbers; α is a guess.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "vpo",
    title: "Value-incentivized preference optimization, offline",
    paper: "arXiv:2405.19320",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "alpha",
            doc: "α ≥ 0: weight of the value's term, times β; the default is a guess, and the term's form is recalled",
        },
    ],
    defaults: || json!(Vpo::default()),
    build: |options| read_options::<Vpo>("vpo", options)?.checked(),
};

/// VPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vpo {
    /// β.
    pub beta: f64,
    /// α.
    pub alpha: f64,
}

impl Default for Vpo {
    fn default() -> Self {
        Self { beta: 0.1, alpha: 0.1 }
    }
}

impl Vpo {
    fn checked(self) -> Result<Objective> {
        require_positive("vpo", "beta", self.beta)?;
        require_not_negative("vpo", "alpha", self.alpha)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for Vpo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (inputs.chosen.logratio()?, inputs.rejected.logratio()?);
        let margin = ((&chosen - &rejected)? * self.beta)?;
        let value = (&chosen * (self.alpha * self.beta))?;
        Ok(PairLoss {
            per_pair: (log_sigmoid(&margin)? + value)?.neg()?,
            chosen_rewards: (chosen.detach() * self.beta)?,
            rejected_rewards: (rejected.detach() * self.beta)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, at};

    #[test]
    fn hand_arithmetic() {
        let ln3 = 3f64.ln();
        let (loss, [chosen, rejected]) = at(&Vpo { beta: 0.5, alpha: 0.2 }, 4.0, 4.0 - 2.0 * ln3);
        assert_near(loss, (4f64 / 3.0).ln() - 0.4);
        assert_near(chosen, -0.125 - 0.1);
        assert_near(rejected, 0.125);
        assert_near(at(&Vpo { beta: 0.5, alpha: 0.0 }, 4.0, 4.0 - 2.0 * ln3).0, (4f64 / 3.0).ln());
    }
}
