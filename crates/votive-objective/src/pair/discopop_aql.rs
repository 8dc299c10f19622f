//! Adaptive quantile loss (AQL), found by DiscoPOP's search.
//!
//! Source: Lu et al. 2024, arXiv:2406.08414, Eq. 11 to 14 (appendix E.2).
//! Loss: `q·(−log σ(β·h)) + (1 − q)·max(0, 1 − β·h)` with DPO's margin h, `q = σ(τ·m − β·h)` and
//! `m = 0.5 + 0.01·(σ(E[β·h/τ]) − 0.5)`, the mean being that of the batch, with its gradient.
//! Against DPO: the further a pair is ahead, the more its loss is SLiC's hinge, which ends at β·h = 1.
//! Departures: Eq. 13 has the mean of σ; this is σ of the mean, as in the code that the paper prints and that was run. m
//! lies between 0.495 and 0.505 either way.
//! Checked against: the equation, written independently in tools/parity/objectives_papers.py.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::pair::tempered::{self, Tempered};
use crate::positive_part::positive_part;
use crate::spec::{Domain, MethodSpec, Objective, Reduction};
use candle_core::Tensor;
use serde_json::json;
use votive_tensor::log_sigmoid;

const ID: &str = "discopop-aql";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Adaptive quantile loss",
    paper: "arXiv:2406.08414, Eq. 11",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::WHOLE_BATCH),
    reduction: Reduction::Mean,
    options: tempered::OPTIONS,
    defaults: || json!(Tempered::default()),
    build: |options| Ok(Objective::Pair(Box::new(Aql(Tempered::read(ID, options)?)))),
};

/// AQL with its options.
#[derive(Clone, Debug)]
pub struct Aql(pub Tempered);

impl MarginObjective for Aql {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.0.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        let mean = log_sigmoid(&(margin / self.0.tau)?.mean_all()?)?.exp()?;
        let quantile = ((mean - 0.5)?.affine(0.01, 0.5)? * self.0.tau)?;
        let share = log_sigmoid(&margin.neg()?.broadcast_add(&quantile)?)?.exp()?;
        let hinge = positive_part(&(1.0 - margin)?)?;
        let logistic = log_sigmoid(margin)?.neg()?;
        Ok(((logistic * &share)? + (hinge * (1.0 - &share)?)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, losses, pairs};

    #[test]
    fn hand_arithmetic() {
        let ln3 = 3f64.ln();
        // The mean is 0, so m = ½; with τ = 2·ln 3 the middle pair's share is σ(ln 3).
        let loss =
            losses(&Aql(Tempered { beta: 1.0, tau: 2.0 * ln3 }), &pairs(&[0.0, ln3, 0.0], &[0.0, 0.0, ln3]));
        assert_near(loss[0], 0.75 * 2f64.ln() + 0.25);
        assert_near(loss[1], 0.5 * (4f64 / 3.0).ln());
        assert_near(loss[2], 0.9 * 4f64.ln() + 0.1 * (1.0 + ln3));
    }
}
