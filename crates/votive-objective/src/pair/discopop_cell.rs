//! Combined exponential and logistic loss (CELL), found by DiscoPOP's search.
//!
//! Source: Lu et al. 2024, arXiv:2406.08414, Eq. 26 (appendix E.5).
//! Loss: `½·(−log σ(β·h)) + ½·exp(−β·h)` with DPO's margin h.
//! Against DPO: a pair that is ranked wrongly pulls exponentially hard instead of at most β.
//! Departures: beyond `β·h = −50` the exponential goes on as its tangent, whose slope stays e⁵⁰; e^(−β·h) itself leaves
//! f32 at −88.
//! Checked against: the equation, written independently in tools/parity/objectives_papers.py.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::pair::tangent_exp::tangent_exp;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "discopop-cell",
    title: "Combined exponential and logistic loss",
    paper: "arXiv:2406.08414, Eq. 26",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" }],
    defaults: || json!(Cell::default()),
    build: |options| read_options::<Cell>("discopop-cell", options)?.checked(),
};

/// CELL with its one option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cell {
    /// β.
    pub beta: f64,
}

impl Default for Cell {
    fn default() -> Self {
        Self { beta: 0.05 }
    }
}

impl Cell {
    fn checked(self) -> Result<Objective> {
        require_positive("discopop-cell", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for Cell {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        let sum = (tangent_exp(&margin.neg()?)? - log_sigmoid(margin)?)?;
        Ok((sum * 0.5)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, at};

    #[test]
    fn hand_arithmetic() {
        let cell = Cell { beta: 0.5 };
        let ln3 = 3f64.ln();
        let (loss, [slope, _]) = at(&cell, 0.0, 0.0);
        assert_near(loss, 0.5 * (1.0 + 2f64.ln()));
        assert_near(slope, -0.5 * 0.75);
        // e^(−βh) is ⅓ and 3, σ(−βh) is ¼ and ¾.
        let (loss, [slope, _]) = at(&cell, 2.0 * ln3, 0.0);
        assert_near(loss, 0.5 * ((4f64 / 3.0).ln() + 1.0 / 3.0));
        assert_near(slope, -0.25 * (0.25 + 1.0 / 3.0));
        assert_near(at(&cell, 0.0, 2.0 * ln3).0, 0.5 * (4f64.ln() + 3.0));
    }
}
