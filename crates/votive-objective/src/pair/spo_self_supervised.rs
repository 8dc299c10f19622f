//! Self-supervised preference optimization (SPO): DPO beside a task of telling how much of an answer is missing.
//!
//! Source: Li et al. 2024, arXiv:2409.17791 (the published repository holds no code).
//! Loss: `−log σ(β·h) − γ·log p(d | x, ỹ)` with DPO's margin h. ỹ is a copy of the chosen completion out of which key phrases
//! were taken, d how many of D degrees, and p is what a linear head on the policy's last state of ỹ says of each degree.
//! Against DPO: pairs say that one answer is better, copies by how much, so the states that the policy writes from keep the
//! degree of a preference apart. `γ = 0` is DPO.
//! Departures: that key phrases are found by RAKE and taken out in growing numbers, and that the policy learns to name the
//! number, is the paper's; the number of degrees, γ, that the chosen side alone is copied, once at every step, and that the head
//! is linear could not be confirmed and are guesses.
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

const ID: &str = "spo-self-supervised";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Self-supervised preference optimization",
    paper: "arXiv:2409.17791",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::DEGREES),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "gamma",
            doc: "γ ≥ 0: weight of the degree's cross-entropy; the default is a guess, and that each chosen completion has \
                  one copy a step could not be confirmed",
        },
    ],
    defaults: || json!(SelfSupervisedPo::default()),
    build: |options| read_options::<SelfSupervisedPo>(ID, options)?.checked(),
};

/// SPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfSupervisedPo {
    /// β.
    pub beta: f64,
    /// γ.
    pub gamma: f64,
}

impl Default for SelfSupervisedPo {
    fn default() -> Self {
        Self { beta: 0.1, gamma: 0.1 }
    }
}

impl SelfSupervisedPo {
    fn checked(self) -> Result<Objective> {
        require_positive(ID, "beta", self.beta)?;
        require_not_negative(ID, "gamma", self.gamma)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for SelfSupervisedPo {
    fn needs(&self) -> Needs {
        if self.gamma > 0.0 { SPEC.needs } else { Needs::REFERENCE }
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let [chosen, rejected] = inputs.implicit_rewards(self.beta)?;
        let dpo = log_sigmoid(&(&chosen - &rejected)?)?.neg()?;
        let per_pair = match self.gamma > 0.0 {
            true => (dpo - (inputs.degree_logps()? * self.gamma)?)?,
            false => dpo,
        };
        Ok(PairLoss::new(per_pair, [chosen, rejected]))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::pair::dpo::Dpo;
    use crate::tests::{assert_near, losses, numbers, pairs, var};

    #[test]
    fn hand_arithmetic() {
        // Of four degrees none is likelier than another.
        let degree = var(&[0.25f64.ln()]);
        let inputs = pairs(&[3f64.ln()], &[0.0]).with_degree_logps(degree.as_tensor().clone());
        let loss = SelfSupervisedPo { beta: 1.0, gamma: 0.5 }.evaluate(&inputs).unwrap().per_pair;
        assert_near(numbers(&loss)[0], (4f64 / 3.0).ln() + 0.5 * 4f64.ln());
        assert_eq!(numbers(loss.backward().unwrap().get(&degree).unwrap()), [-0.5], "the head learns");
    }

    #[test]
    fn without_the_task_it_is_dpo_bit_for_bit() {
        let pairs = pairs(&[0.7, -3.0], &[0.2, 1.5]);
        let spo = SelfSupervisedPo { beta: 0.1, gamma: 0.0 };
        assert_eq!(spo.needs(), Needs::REFERENCE);
        assert_eq!(losses(&spo, &pairs), losses(&Dpo { beta: 0.1 }, &pairs));
    }
}
