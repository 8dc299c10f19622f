//! Binary classifier optimization (BCO) on single completions, with the reward shift.
//!
//! Source: Jung et al. 2024, arXiv:2404.04656.
//! Loss: `−log σ(r − δ)` for a desirable completion and `−log σ(−(r − δ))` for an undesirable one, with DPO's implicit reward
//! `r = β·(log π_θ − log π_ref)` and its running mean δ, which carries no gradient.
//! Against KTO: a logistic loss, and rewards are counted from their own mean.
//! Departures: δ is the mean over the steps before, which the run keeps in its checkpoints; trl's removed trainer also counted the
//! batch itself. The paper's weights against unlike prompts are left to the weights of rows.
//! Checked against: the formula, written independently in tools/parity/objectives.py after trl's removed BCO trainer.

use crate::contract::{UnpairedInputs, UnpairedLoss, UnpairedObjective};
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
    id: "bco",
    title: "Binary classifier optimization",
    paper: "arXiv:2404.04656",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::MEAN_LOGRATIO),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "desirable_weight", doc: "λ_D ≥ 0: weight of desirable completions" },
        OptionDoc { name: "undesirable_weight", doc: "λ_U ≥ 0: weight of undesirable completions" },
    ],
    defaults: || json!(Bco::default()),
    build: |options| read_options::<Bco>("bco", options)?.checked(),
};

/// Bco with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bco {
    /// β.
    pub beta: f64,
    /// λ_D.
    pub desirable_weight: f64,
    /// λ_U.
    pub undesirable_weight: f64,
}

impl Default for Bco {
    fn default() -> Self {
        Self { beta: 0.01, desirable_weight: 1.0, undesirable_weight: 1.0 }
    }
}

impl Bco {
    fn checked(self) -> Result<Objective> {
        require_positive("bco", "beta", self.beta)?;
        require_not_negative("bco", "desirable_weight", self.desirable_weight)?;
        require_not_negative("bco", "undesirable_weight", self.undesirable_weight)?;
        Ok(Objective::Unpaired(Box::new(self)))
    }
}

impl UnpairedObjective for Bco {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &UnpairedInputs) -> Result<UnpairedLoss> {
        inputs.check()?;
        let logratio = inputs.completions.logratio()?;
        let shifted = (logratio.broadcast_sub(&inputs.mean_logratio()?)? * self.beta)?;
        let loss = log_sigmoid(&(shifted * inputs.signs()?)?)?.neg()?;
        let weights = inputs.by_label(self.desirable_weight, self.undesirable_weight)?;
        Ok(UnpairedLoss { per_example: (loss * weights)?, rewards: Some((logratio.detach() * self.beta)?) })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, labelled, row};

    #[test]
    fn hand_arithmetic() {
        let bco = Bco { beta: 0.5, desirable_weight: 1.0, undesirable_weight: 2.0 };
        for (label, expected) in [(true, (4f64 / 3.0).ln()), (false, 2.0 * 4f64.ln())] {
            // Rewards are log 3 above their mean.
            let mean = row(&[1.0]).squeeze(0).unwrap();
            let inputs = labelled(2.0 * 3f64.ln() + 1.0, label).with_mean_logratio(mean);
            let loss = bco.evaluate(&inputs).unwrap().per_example;
            assert_near(loss.to_vec1::<f64>().unwrap()[0], expected);
        }
    }
}
