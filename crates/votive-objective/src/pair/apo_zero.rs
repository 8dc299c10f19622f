//! Anchored preference optimization, zero (APO-zero): for chosen completions that are better than the policy's own.
//!
//! Source: D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7.
//! Loss: `1 − σ(r_w) + σ(r_l)` with DPO's implicit rewards `r = β·(log π_θ − log π_ref)`.
//! Against DPO: the chosen completion is made likelier and the rejected one less likely, each by itself; both gradients
//! fade as soon as the reward is far from 0.
//! Departures: none.
//! Checked against: trl 1.16 `loss_type="apo_zero"`.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "apo_zero",
    title: "Anchored preference optimization, zero",
    paper: "arXiv:2408.06266, Eq. 7",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" }],
    defaults: || json!(ApoZero::default()),
    build: |options| read_options::<ApoZero>("apo_zero", options)?.checked(),
};

/// ApoZero with its option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApoZero {
    /// β.
    pub beta: f64,
}

impl Default for ApoZero {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl ApoZero {
    fn checked(self) -> Result<Objective> {
        require_positive("apo_zero", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for ApoZero {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let [chosen, rejected] = inputs.implicit_rewards(self.beta)?;
        let per_pair = (log_sigmoid(&chosen.neg()?)?.exp()? + log_sigmoid(&rejected)?.exp()?)?;
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
        assert_near(loss(&ApoZero { beta: 1.0 }, &logratios(ln3, -ln3)), 0.5);
        assert_near(loss(&ApoZero { beta: 1.0 }, &logratios(-ln3, 0.0)), 1.25);
    }
}
