//! Policy-focused loss (PFL), found by DiscoPOP's search.
//!
//! Source: Lu et al. 2024, arXiv:2406.08414, Eq. 29 and 30 (appendix E.7).
//! Loss: `½·(−log σ(z))` where the policy itself finds the chosen completion more likely, `2·max(0, 1 − z)` where it does
//! not, with `z = β·h/τ`, DPO's margin h and τ = 0.05.
//! Against DPO: the policy's own ranking, not its change, decides which loss a pair gets, and a pair that is ranked
//! wrongly counts four times as much.
//! Departures: none. The authors' later code for small models leaves τ out, which is `tau = 1`.
//! Checked against: the equation, written independently in tools/parity/objectives_papers.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::positive_part::positive_part;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "discopop-pfl",
    title: "Policy-focused loss",
    paper: "arXiv:2406.08414, Eq. 29",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "tau", doc: "τ > 0: what β·h is divided by" },
    ],
    defaults: || json!(Pfl::default()),
    build: |options| read_options::<Pfl>("discopop-pfl", options)?.checked(),
};

/// PFL with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pfl {
    /// β.
    pub beta: f64,
    /// τ.
    pub tau: f64,
}

impl Default for Pfl {
    fn default() -> Self {
        Self { beta: 0.05, tau: 0.05 }
    }
}

impl Pfl {
    fn checked(self) -> Result<Objective> {
        require_positive("discopop-pfl", "beta", self.beta)?;
        require_positive("discopop-pfl", "tau", self.tau)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for Pfl {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (inputs.chosen.logratio()?, inputs.rejected.logratio()?);
        let z = ((&chosen - &rejected)? * (self.beta / self.tau))?;
        let is_ranked = inputs.chosen.policy_logps.gt(&inputs.rejected.policy_logps)?.to_dtype(z.dtype())?;
        let hinge = positive_part(&(1.0 - &z)?)?;
        let ranked = (log_sigmoid(&z)? * -0.5)?;
        Ok(PairLoss {
            per_pair: ((ranked * &is_ranked)? + ((hinge * 2.0)? * (1.0 - &is_ranked)?)?)?,
            chosen_rewards: (chosen.detach() * self.beta)?,
            rejected_rewards: (rejected.detach() * self.beta)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, row, with_slopes};

    /// A pair with these log-probabilities of the policy and of the reference.
    fn run(policy: [f64; 2], reference: [f64; 2]) -> (f64, f64) {
        let inputs = PairInputs::new(row(&[policy[0]]), row(&[policy[1]]))
            .with_reference(row(&[reference[0]]), row(&[reference[1]]));
        let (loss, [slope, _]) = with_slopes(&Pfl { beta: 0.1, tau: 0.2 }, &inputs);
        (loss, slope)
    }

    #[test]
    fn hand_arithmetic() {
        let ln3 = 3f64.ln();
        // Ranked rightly, z = ln 3: ½·ln(4/3).
        let (loss, slope) = run([2.0 * ln3, 0.0], [0.0, 0.0]);
        assert_near(loss, 0.5 * (4f64 / 3.0).ln());
        assert_near(slope, -0.5 * 0.25 * 0.5);
        // Ranked wrongly, z = ½ although the margin has grown: 2·½.
        let (loss, slope) = run([-3.0, -2.0], [-4.0, -2.0]);
        assert_near(loss, 1.0);
        assert_near(slope, -1.0);
        // Ranked wrongly, but z = 2 is beyond the hinge.
        assert_eq!(run([-3.0, -2.0], [-7.0, -2.0]), (0.0, 0.0));
    }
}
