//! Provably robust DPO (rDPO).
//!
//! Source: Chowdhury et al. 2024, arXiv:2403.00409.
//! Loss: `[−(1 − ε)·log σ(β·h) + ε·log σ(−β·h)]/(1 − 2ε)` with DPO's margin h: its mean over labels of which a share ε is
//! flipped is DPO's loss on the labels as they should be.
//! Against DPO with label smoothing: the flipped label is subtracted instead of added, so noise does not shrink the margin.
//! The loss of a single pair has no lower bound.
//! Departures: none.
//! Checked against: trl 1.16 `loss_type="robust"`, whose `label_smoothing` is ε here.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_noise, require_positive,
};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "robust",
    title: "Provably robust direct preference optimization",
    paper: "arXiv:2403.00409",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "epsilon", doc: "0 ≤ ε < 0.5: share of flipped labels" },
    ],
    defaults: || json!(Robust::default()),
    build: |options| read_options::<Robust>("robust", options)?.checked(),
};

/// Robust with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Robust {
    /// β.
    pub beta: f64,
    /// ε.
    pub epsilon: f64,
}

impl Default for Robust {
    fn default() -> Self {
        Self { beta: 0.1, epsilon: 0.1 }
    }
}

impl Robust {
    fn checked(self) -> Result<Objective> {
        require_positive("robust", "beta", self.beta)?;
        require_noise("robust", "epsilon", self.epsilon)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for Robust {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        let kept = (log_sigmoid(margin)? * (self.epsilon - 1.0))?;
        let flipped = (log_sigmoid(&margin.neg()?)? * self.epsilon)?;
        Ok(((kept + flipped)? / (1.0 - 2.0 * self.epsilon))?)
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        (wrapper == "label_smoothing").then_some("its ε says already how many labels are wrong")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, logratios, loss};

    #[test]
    fn hand_arithmetic() {
        let inputs = logratios(3f64.ln(), 0.0);
        // −¾·log ¾ + ¼·log ¼ over ½.
        let expected = (0.75 * (4f64 / 3.0).ln() - 0.25 * 4f64.ln()) / 0.5;
        assert_near(loss(&Robust { beta: 1.0, epsilon: 0.25 }, &inputs), expected);
        assert_near(loss(&Robust { beta: 1.0, epsilon: 0.0 }, &inputs), (4f64 / 3.0).ln());
    }

    #[test]
    fn the_mean_over_flipped_labels_is_the_clean_loss() {
        let robust = Robust { beta: 0.7, epsilon: 0.2 };
        let (kept, flipped) = (loss(&robust, &logratios(1.5, 0.0)), loss(&robust, &logratios(0.0, 1.5)));
        assert_near(0.8 * kept + 0.2 * flipped, (-0.7f64 * 1.5).exp().ln_1p());
    }
}
