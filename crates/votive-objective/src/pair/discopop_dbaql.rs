//! Dynamic blended adaptive quantile loss (DBAQL), found by DiscoPOP's search.
//!
//! Source: Lu et al. 2024, arXiv:2406.08414, Eq. 9 and 10 (appendix E.1).
//! Loss: `v·(−log σ(β·h/0.9)) + (1 − v)·exp(−0.9·β·h)` with DPO's margin h and `v = σ(Var[β·h/τ])`, the variance being that of
//! the batch, with its gradient.
//! Against DPO: while all pairs are alike half of the loss is exponential; as they come apart it becomes logistic. The
//! quantile in its name was computed and never used.
//! Departures: beyond `0.9·β·h = −50` the exponential goes on as its tangent. The variance of a single pair is 0.
//! Checked against: the equation, written independently in tools/parity/objectives_papers.py.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::pair::spread::variance;
use crate::pair::tangent_exp::tangent_exp;
use crate::pair::tempered::{self, Tempered};
use crate::spec::{Domain, MethodSpec, Objective, Reduction};
use candle_core::Tensor;
use serde_json::json;
use votive_tensor::log_sigmoid;

const ID: &str = "discopop-dbaql";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Dynamic blended adaptive quantile loss",
    paper: "arXiv:2406.08414, Eq. 9",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::WHOLE_BATCH),
    reduction: Reduction::Mean,
    options: tempered::OPTIONS,
    defaults: || json!(Tempered::default()),
    build: |options| Ok(Objective::Pair(Box::new(Dbaql(Tempered::read(ID, options)?)))),
};

/// DBAQL with its options.
#[derive(Clone, Debug)]
pub struct Dbaql(pub Tempered);

impl MarginObjective for Dbaql {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.0.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        let blend = log_sigmoid(&variance(&(margin / self.0.tau)?)?)?.exp()?;
        let logistic = log_sigmoid(&(margin / 0.9)?)?.neg()?;
        let exponential = tangent_exp(&(margin * -0.9)?)?;
        let difference = (logistic - &exponential)?;
        Ok((exponential + difference.broadcast_mul(&blend)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, losses, pairs};

    #[test]
    fn hand_arithmetic() {
        let dbaql = Dbaql(Tempered { beta: 0.9, tau: 0.9 });
        // Equal pairs: half logistic, half exponential.
        assert_near(losses(&dbaql, &pairs(&[0.0, 0.0], &[0.0, 0.0]))[0], 0.5 * (2f64.ln() + 1.0));
        // Margins 0 and 2·√(ln 3/2) have the variance ln 3: ¾ logistic.
        let h = (2.0 * 3f64.ln()).sqrt();
        let loss = losses(&dbaql, &pairs(&[0.0, h], &[0.0, 0.0]));
        assert_near(loss[0], 0.75 * 2f64.ln() + 0.25);
        assert_near(loss[1], 0.75 * (-h).exp().ln_1p() + 0.25 * (-0.81 * h).exp());
    }
}
