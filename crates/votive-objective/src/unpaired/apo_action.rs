//! Action preference optimization (APO) of policies that act: KTO with weights by how wrong an action is.
//!
//! Source: Xia et al. 2025, arXiv:2506.07127, and the authors' code (GeWu-Lab/Action-Preference-Optimization).
//! Loss: KTO's, `w·(1 − σ(±β(r − z)))`, with `w = λ_D·(1 − e^(−γ_D·b))` for a desirable action and `w = λ_U·e^(−γ_U·b)` for an
//! undesirable one. `b = (e + 10⁻⁴)/(Σe + 10⁻⁴)` is an action's share of the errors of a step's actions, e its distance
//! from the demonstrated one (the row's score).
//! Against KTO: an action that the policy gets far off is learned from more if it is right, and less if it is wrong.
//! Departures: the divergence estimate z is at least 0, as KTO's is; the authors bound it by ±5. What makes errors of
//! decoded actions and labels of interventions is left to whoever writes the rows. The name is not anchored preference
//! optimization's.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::contract::{UnpairedInputs, UnpairedLoss, UnpairedObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

const ID: &str = "apo-action";

/// What keeps the share of a single action without error a number.
const LEAST: f64 = 1e-4;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Action preference optimization",
    paper: "arXiv:2506.07127",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::KL).or(Needs::SCORES).or(Needs::WHOLE_BATCH),
    reduction: Reduction::Sum,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "desirable_weight", doc: "λ_D ≥ 0: weight of desirable actions" },
        OptionDoc { name: "undesirable_weight", doc: "λ_U ≥ 0: weight of undesirable actions" },
        OptionDoc {
            name: "desirable_rate",
            doc: "γ_D ≥ 0: how fast a desirable action's weight grows with its error",
        },
        OptionDoc {
            name: "undesirable_rate",
            doc: "γ_U ≥ 0: how fast an undesirable action's weight falls with its error",
        },
    ],
    defaults: || json!(ActionPo::default()),
    build: |options| read_options::<ActionPo>(ID, options)?.checked(),
};

/// APO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActionPo {
    /// β.
    pub beta: f64,
    /// λ_D.
    pub desirable_weight: f64,
    /// λ_U.
    pub undesirable_weight: f64,
    /// γ_D.
    pub desirable_rate: f64,
    /// γ_U.
    pub undesirable_rate: f64,
}

impl Default for ActionPo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            desirable_rate: 1.0,
            undesirable_rate: 1.0,
        }
    }
}

impl ActionPo {
    fn checked(self) -> Result<Objective> {
        require_positive(ID, "beta", self.beta)?;
        for (option, value) in [
            ("desirable_weight", self.desirable_weight),
            ("undesirable_weight", self.undesirable_weight),
            ("desirable_rate", self.desirable_rate),
            ("undesirable_rate", self.undesirable_rate),
        ] {
            require_not_negative(ID, option, value)?;
        }
        Ok(Objective::Unpaired(Box::new(self)))
    }

    /// Weights of actions with these errors and labels, `(B,)`.
    fn weights(&self, errors: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let share = (errors + LEAST)?.broadcast_div(&(errors.sum_all()? + LEAST)?)?;
        let decay = |rate: f64| (&share * -rate)?.exp();
        let desirable = ((1.0 - decay(self.desirable_rate)?)? * self.desirable_weight)?;
        let undesirable = (decay(self.undesirable_rate)? * self.undesirable_weight)?;
        Ok(((desirable * labels)? + (undesirable * (1.0 - labels)?)?)?)
    }
}

impl UnpairedObjective for ActionPo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &UnpairedInputs) -> Result<UnpairedLoss> {
        inputs.check()?;
        let logratio = inputs.completions.logratio()?;
        let sign = ((&inputs.labels * 2.0)? - 1.0)?;
        let gain = ((logratio.broadcast_sub(&inputs.kl()?)? * sign)? * self.beta)?;
        let weights = self.weights(&inputs.completions.scores()?, &inputs.labels)?;
        Ok(UnpairedLoss {
            per_example: (log_sigmoid(&gain.neg()?)?.exp()? * weights)?,
            rewards: Some((logratio.detach() * self.beta)?),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, numbers, row, unpaired_losses};
    use candle_core::Device;

    #[test]
    fn weights_of_three_errors() {
        let weights = |label: f64| {
            numbers(&ActionPo::default().weights(&row(&[0.1, 0.2, 0.3]), &row(&[label; 3])).unwrap())
        };
        for (found, expected) in
            [(weights(1.0), [0.15364, 0.28355, 0.39352]), (weights(0.0), [0.84636, 0.71645, 0.60648])]
        {
            assert!(
                found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 5e-6),
                "{found:?}"
            );
        }
    }

    #[test]
    fn hand_arithmetic() {
        // A single action without an error has the whole share: b = 1. Policy and reference agree: 1 − σ(0) = ½.
        let at_start = |label: f64| {
            let inputs = UnpairedInputs::new(row(&[-3.0]), row(&[label]))
                .with_reference(row(&[-3.0]))
                .with_scores(row(&[0.0]))
                .with_kl(candle_core::Tensor::new(0f64, &Device::Cpu).unwrap());
            unpaired_losses(&ActionPo { undesirable_weight: 4.0, ..ActionPo::default() }, &inputs)[0]
        };
        assert_near(at_start(1.0), 0.5 * (1.0 - (-1f64).exp()));
        assert_near(at_start(0.0), 2.0 * (-1f64).exp());
    }
}
