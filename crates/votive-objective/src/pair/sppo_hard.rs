//! Self-play preference optimization with certain preferences (SPPO, hard).
//!
//! Source: Wu et al. 2024, arXiv:2405.00675, Eq. 4.7 with P = 1 for the chosen completion and 0 for the rejected one.
//! Loss: `(r_w − 1/(2β))² + (r_l + 1/(2β))²` with log-ratios `r = log π_θ − log π_ref` in nats.
//! Against DPO: each log-ratio has a target of its own, so the chosen one's likelihood rises instead of only the margin.
//! Departures: none. η of the paper is 1/β. With probabilities from a judge the targets lie between: that is another id.
//! Checked against: trl 1.16 `loss_type="sppo_hard"`.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "sppo_hard",
    title: "Self-play preference optimization, certain preferences",
    paper: "arXiv:2405.00675, Eq. 4.7",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[OptionDoc { name: "beta", doc: "β > 0, per nat: the targets are ±1/(2β) nats" }],
    defaults: || json!(SppoHard::default()),
    build: |options| read_options::<SppoHard>("sppo_hard", options)?.checked(),
};

/// SppoHard with its option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SppoHard {
    /// β.
    pub beta: f64,
}

impl Default for SppoHard {
    fn default() -> Self {
        Self { beta: 0.001 }
    }
}

impl SppoHard {
    fn checked(self) -> Result<Objective> {
        require_positive("sppo_hard", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for SppoHard {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let target = 0.5 / self.beta;
        let [chosen, rejected] = inputs.logratios()?;
        let per_pair = ((&chosen - target)?.sqr()? + (&rejected + target)?.sqr()?)?;
        Ok(PairLoss::new(per_pair, [(chosen * self.beta)?, (rejected * self.beta)?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, logratios, loss};

    #[test]
    fn hand_arithmetic() {
        // Targets of ±2 nats.
        assert_near(loss(&SppoHard { beta: 0.25 }, &logratios(5.0, 1.0)), 9.0 + 9.0);
        assert_near(loss(&SppoHard { beta: 0.25 }, &logratios(2.0, -2.0)), 0.0);
    }
}
