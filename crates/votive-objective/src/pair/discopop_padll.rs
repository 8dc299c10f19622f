//! Performance-adaptive decay logistic loss (PADLL), found by DiscoPOP's search.
//!
//! Source: Lu et al. 2024, arXiv:2406.08414, Eq. 15 to 19 (appendix E.3).
//! Loss: `0.9·(1 − ½·[h < 0])·(−log σ(β·h))` with DPO's margin h: half of the weight where the policy has moved against
//! the label.
//! Against DPO: such a pair, which may well be labelled wrongly, pulls half as much; at h = 0 the loss jumps from 0.45·ln 2
//! to 0.9·ln 2, so it is not continuous.
//! Departures: none.
//! Checked against: the equation, written independently in tools/parity/objectives_papers.py.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "discopop-padll",
    title: "Performance-adaptive decay logistic loss",
    paper: "arXiv:2406.08414, Eq. 15",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" }],
    defaults: || json!(Padll::default()),
    build: |options| read_options::<Padll>("discopop-padll", options)?.checked(),
};

/// PADLL with its one option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Padll {
    /// β.
    pub beta: f64,
}

impl Default for Padll {
    fn default() -> Self {
        Self { beta: 0.05 }
    }
}

impl Padll {
    fn checked(self) -> Result<Objective> {
        require_positive("discopop-padll", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for Padll {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        let is_against = margin.detach().lt(0.0)?.to_dtype(margin.dtype())?;
        let decay = ((1.0 - (is_against * 0.5)?)? * 0.9)?;
        Ok((log_sigmoid(margin)?.neg()? * decay)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, at};

    #[test]
    fn hand_arithmetic() {
        let padll = Padll { beta: 0.5 };
        let ln3 = 3f64.ln();
        // σ(βh) is ¾, ½ and ¼.
        let (loss, [slope, _]) = at(&padll, 2.0 * ln3, 0.0);
        assert_near(loss, 0.9 * (4f64 / 3.0).ln());
        assert_near(slope, -0.9 * 0.5 / 4.0);
        assert_near(at(&padll, 1.0, 1.0).0, 0.9 * 2f64.ln());
        let (loss, [slope, _]) = at(&padll, -2.0 * ln3, 0.0);
        assert_near(loss, 0.45 * 4f64.ln());
        assert_near(slope, -0.45 * 0.5 * 0.75);
    }
}
