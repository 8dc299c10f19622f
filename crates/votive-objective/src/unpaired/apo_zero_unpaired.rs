//! Anchored preference optimization, zero, on single completions: KTO anchored at 0.
//!
//! Source: D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7, side by side; in trl a loss of the KTO trainer.
//! Loss: `λ_D·(1 − σ(β·r))` for a desirable completion and `λ_U·σ(β·r)` for an undesirable one, with
//! `r = log π_θ − log π_ref` in nats.
//! Against KTO: gains and losses are counted from 0 and not from an estimated divergence, so no other rows are read.
//! Departures: none.
//! Checked against: trl 1.16's KTO trainer with `loss_type="apo_zero_unpaired"`.

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
    id: "apo_zero_unpaired",
    title: "Anchored preference optimization, zero, on single completions",
    paper: "arXiv:2408.06266, Eq. 7",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "desirable_weight", doc: "λ_D ≥ 0: weight of desirable completions" },
        OptionDoc { name: "undesirable_weight", doc: "λ_U ≥ 0: weight of undesirable completions" },
    ],
    defaults: || json!(ApoZeroUnpaired::default()),
    build: |options| read_options::<ApoZeroUnpaired>("apo_zero_unpaired", options)?.checked(),
};

/// ApoZeroUnpaired with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApoZeroUnpaired {
    /// β.
    pub beta: f64,
    /// λ_D.
    pub desirable_weight: f64,
    /// λ_U.
    pub undesirable_weight: f64,
}

impl Default for ApoZeroUnpaired {
    fn default() -> Self {
        Self { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0 }
    }
}

impl ApoZeroUnpaired {
    fn checked(self) -> Result<Objective> {
        require_positive("apo_zero_unpaired", "beta", self.beta)?;
        require_not_negative("apo_zero_unpaired", "desirable_weight", self.desirable_weight)?;
        require_not_negative("apo_zero_unpaired", "undesirable_weight", self.undesirable_weight)?;
        Ok(Objective::Unpaired(Box::new(self)))
    }
}

impl UnpairedObjective for ApoZeroUnpaired {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &UnpairedInputs) -> Result<UnpairedLoss> {
        inputs.check()?;
        let rewards = (inputs.completions.logratio()? * self.beta)?;
        let loss = log_sigmoid(&(&rewards * inputs.signs()?)?.neg()?)?.exp()?;
        let weights = inputs.by_label(self.desirable_weight, self.undesirable_weight)?;
        Ok(UnpairedLoss { per_example: (loss * weights)?, rewards: Some(rewards.detach()) })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, labelled};

    #[test]
    fn hand_arithmetic() {
        let apo = ApoZeroUnpaired { beta: 1.0, desirable_weight: 1.0, undesirable_weight: 2.0 };
        for (label, expected) in [(true, 0.25), (false, 1.5)] {
            let loss = apo.evaluate(&labelled(3f64.ln(), label)).unwrap().per_example;
            assert_near(loss.to_vec1::<f64>().unwrap()[0], expected);
        }
    }
}
