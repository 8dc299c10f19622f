//! Hinge loss on DPO's margin.
//!
//! Source: Liu et al. 2023 (RSO), arXiv:2309.06657, where it is the normalised form of SLiC's loss (Zhao et al. 2023,
//! arXiv:2305.10425).
//! Loss: `max(0, 1 − β·h)` with DPO's margin h in nats; γ is the paper's name of β.
//! Against DPO: a pair that is won by 1/β nats has no gradient at all, and one that is lost always has the whole.
//! Departures: none. Where the hinge is just closed its slope is 0, as in PyTorch.
//! Checked against: trl 1.16 `loss_type="hinge"`.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::positive_part::positive_part;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "hinge",
    title: "Hinge loss on DPO's margin",
    paper: "arXiv:2309.06657; arXiv:2305.10425",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" }],
    defaults: || json!(Hinge::default()),
    build: |options| read_options::<Hinge>("hinge", options)?.checked(),
};

/// Hinge with its option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hinge {
    /// β.
    pub beta: f64,
}

impl Default for Hinge {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl Hinge {
    fn checked(self) -> Result<Objective> {
        require_positive("hinge", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for Hinge {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        positive_part(&(1.0 - margin)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, logratios, loss};

    #[test]
    fn hand_arithmetic() {
        for (logratio, expected) in [(1.0, 0.5), (2.0, 0.0), (9.0, 0.0), (-3.0, 2.5)] {
            assert_near(loss(&Hinge { beta: 0.5 }, &logratios(logratio, 0.0)), expected);
        }
    }
}
