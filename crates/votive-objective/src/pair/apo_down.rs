//! Anchored preference optimization, down (APO-down): for chosen completions that are worse than the policy's own.
//!
//! Source: D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 8.
//! Loss: `σ(r_w) + 1 − σ(r_w − r_l)` with DPO's implicit rewards `r = β·(log π_θ − log π_ref)`.
//! Against DPO: both completions are made less likely, the rejected one more. At the start the pulls on the chosen one
//! cancel.
//! Departures: none.
//! Checked against: trl 1.16 `loss_type="apo_down"`.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "apo_down",
    title: "Anchored preference optimization, down",
    paper: "arXiv:2408.06266, Eq. 8",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" }],
    defaults: || json!(ApoDown::default()),
    build: |options| read_options::<ApoDown>("apo_down", options)?.checked(),
};

/// ApoDown with its option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApoDown {
    /// β.
    pub beta: f64,
}

impl Default for ApoDown {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl ApoDown {
    fn checked(self) -> Result<Objective> {
        require_positive("apo_down", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for ApoDown {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let [chosen, rejected] = inputs.implicit_rewards(self.beta)?;
        let lost = log_sigmoid(&(&rejected - &chosen)?)?.exp()?;
        let per_pair = (log_sigmoid(&chosen)?.exp()? + lost)?;
        Ok(PairLoss::new(per_pair, [chosen, rejected]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, logratios, loss};

    #[test]
    fn hand_arithmetic() {
        let ln3 = 3f64.ln();
        assert_near(loss(&ApoDown { beta: 1.0 }, &logratios(-ln3, -2.0 * ln3)), 0.25 + 0.25);
        assert_near(loss(&ApoDown { beta: 1.0 }, &logratios(0.0, ln3)), 0.5 + 0.75);
    }
}
