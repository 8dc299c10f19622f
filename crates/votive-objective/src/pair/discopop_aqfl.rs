//! Adaptive quantile feedback loss (AQFL), found by DiscoPOP's search.
//!
//! Source: Lu et al. 2024, arXiv:2406.08414, Eq. 20 to 25 (appendix E.4).
//! Loss: `r·(−log σ(β·h)) + (1 − r)·max(0, 1 − β·h)` with DPO's margin h, `r = σ(0.1·|β·h/τ − m₂|)`,
//! `m₁ = E[σ(−β·h/τ)]·std[β·h/τ]` and `m₂ = m₁ + 0.05·(σ(E[β·h/τ]) − m₁)`, all of the batch and with their gradients.
//! Against DPO: pairs far from the batch's moving quantile have the logistic loss, those near it half of SLiC's hinge.
//! Departures: Eq. 24 has the variance and Eq. 23 other brackets; this is the code that the paper prints and that was run.
//! Checked against: the equations, written independently in tools/parity/objectives_papers.py.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::pair::spread::standard_deviation;
use crate::pair::tempered::{self, Tempered};
use crate::positive_part::positive_part;
use crate::spec::{Domain, MethodSpec, Objective, Reduction};
use candle_core::Tensor;
use serde_json::json;
use votive_tensor::log_sigmoid;

const ID: &str = "discopop-aqfl";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Adaptive quantile feedback loss",
    paper: "arXiv:2406.08414, Eq. 20",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::WHOLE_BATCH),
    reduction: Reduction::Mean,
    options: tempered::OPTIONS,
    defaults: || json!(Tempered::default()),
    build: |options| Ok(Objective::Pair(Box::new(Aqfl(Tempered::read(ID, options)?)))),
};

/// AQFL with its options.
#[derive(Clone, Debug)]
pub struct Aqfl(pub Tempered);

impl MarginObjective for Aqfl {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.0.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        let scaled = (margin / self.0.tau)?;
        let against = log_sigmoid(&scaled.neg()?)?.exp()?.mean_all()?;
        let first = (against * standard_deviation(&scaled)?)?;
        let mean = log_sigmoid(&scaled.mean_all()?)?.exp()?;
        let second = ((&first * 0.95)? + (mean * 0.05)?)?;
        let off = scaled.broadcast_sub(&second)?;
        let distance = (positive_part(&off)? + positive_part(&off.neg()?)?)?;
        let share = log_sigmoid(&(distance * 0.1)?)?.exp()?;
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
        let aqfl = Aqfl(Tempered { beta: 1.0, tau: 1.0 });
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        let blend = |distance: f64, loss: f64, hinge: f64| {
            let share = logistic(0.1 * distance);
            share * loss + (1.0 - share) * hinge
        };
        // Equal pairs: m₁ = 0 and m₂ = 0.05·½.
        assert_near(losses(&aqfl, &pairs(&[0.0], &[0.0]))[0], blend(0.025, 2f64.ln(), 1.0));
        // Margins ±ln 3: E[σ] = ½, std = √2·ln 3, mean 0.
        let ln3 = 3f64.ln();
        let m = 0.95 * 0.5 * 2f64.sqrt() * ln3 + 0.025;
        let loss = losses(&aqfl, &pairs(&[ln3, 0.0], &[0.0, ln3]));
        assert_near(loss[0], blend((ln3 - m).abs(), (4f64 / 3.0).ln(), 0.0));
        assert_near(loss[1], blend(ln3 + m, 4f64.ln(), 1.0 + ln3));
    }
}
