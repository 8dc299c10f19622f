//! Self-exploring language models (SELM).
//!
//! Source: Zhang et al. 2024, arXiv:2405.19332, and the authors' code (shenao-zhang/SELM).
//! Loss: `−log σ(β·h) + α·β·log π_θ(y')` with DPO's margin h and a third completion y' that the policy of the round before
//! has written (the row's gold completion; here it is not better, only its own).
//! The sign is plus: what the old policy writes anyway becomes less likely, so the policy looks for rewards where it has not
//! been (optimism). Online VPO (Cen et al. 2024, arXiv:2405.19320) is the same loss with y' of a fixed policy.
//! Departures: the constant `−α·β·log π_ref(y')` of the authors' code is left out; no gradient changes.
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
    id: "selm",
    title: "Self-exploring language models",
    paper: "arXiv:2405.19332",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::GOLD),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "alpha",
            doc: "α ≥ 0: weight of the term that pushes the policy's own completions down",
        },
    ],
    defaults: || json!(Selm::default()),
    build: |options| read_options::<Selm>("selm", options)?.checked(),
};

/// SELM with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selm {
    /// β.
    pub beta: f64,
    /// α.
    pub alpha: f64,
}

impl Default for Selm {
    fn default() -> Self {
        Self { beta: 0.01, alpha: 0.001 }
    }
}

impl Selm {
    fn checked(self) -> Result<Objective> {
        require_positive("selm", "beta", self.beta)?;
        require_not_negative("selm", "alpha", self.alpha)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for Selm {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let [chosen, rejected] = inputs.implicit_rewards(self.beta)?;
        let own = (&inputs.gold()?.policy_logps * (self.alpha * self.beta))?;
        let per_pair = (own - log_sigmoid(&(&chosen - &rejected)?)?)?;
        Ok(PairLoss::new(per_pair, [chosen, rejected]))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{numbers, pairs, row, var};

    #[test]
    fn hand_arithmetic() {
        let own = var(&[3.0]);
        let inputs = pairs(&[2.0], &[0.0]).with_gold(own.as_tensor().clone(), row(&[5.0]));
        let loss = Selm { beta: 0.1, alpha: 0.001 }.evaluate(&inputs).unwrap().per_pair;
        assert!((numbers(&loss)[0] - 0.598_438_9).abs() < 1e-7);
        let gradients = loss.backward().unwrap();
        assert_eq!(
            numbers(gradients.get(&own).unwrap()),
            [0.001 * 0.1],
            "upwards: the old policy's own sinks"
        );
    }
}
