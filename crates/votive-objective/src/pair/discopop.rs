//! Discovered preference optimization (DiscoPOP, the log-ratio modulated loss).
//!
//! Source: Lu et al. 2024, arXiv:2406.08414, Eq. 5.
//! Loss: `(1 − m)·(−log σ(z)) + m·exp(−z)` with `z = β·h`, DPO's margin h, and `m = σ(z/τ)`: DPO's loss where the pair is
//! lost and an exponential one where it is won.
//! Against DPO: not convex. Between the two branches there is a hill, on whose far side, around z = 0, a step of descent
//! lowers the margin; a run that starts at its reference starts there.
//! Departures: none. `m·exp(−z)` is computed as `exp(log σ(z/τ) − z)`, which does not overflow at a lost pair.
//! Checked against: trl 1.16 `loss_type="discopop"`.

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
    id: "discopop",
    title: "Discovered preference optimization",
    paper: "arXiv:2406.08414, Eq. 5",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "tau",
            doc: "τ > 0: width of the passage from one branch to the other, in rewards",
        },
    ],
    defaults: || json!(DiscoPop::default()),
    build: |options| read_options::<DiscoPop>("discopop", options)?.checked(),
};

/// DiscoPop with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoPop {
    /// β.
    pub beta: f64,
    /// τ.
    pub tau: f64,
}

impl Default for DiscoPop {
    fn default() -> Self {
        Self { beta: 0.05, tau: 0.05 }
    }
}

impl DiscoPop {
    fn checked(self) -> Result<Objective> {
        require_positive("discopop", "beta", self.beta)?;
        require_positive("discopop", "tau", self.tau)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for DiscoPop {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        let mixing = (margin / self.tau)?;
        let logistic = (log_sigmoid(&mixing.neg()?)?.exp()? * log_sigmoid(margin)?.neg()?)?;
        let exponential = (log_sigmoid(&mixing)? - margin)?.exp()?;
        Ok((logistic + exponential)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, logratios, loss};

    #[test]
    fn hand_arithmetic() {
        let discopop = DiscoPop { beta: 1.0, tau: 2.0 };
        assert_near(loss(&discopop, &logratios(0.0, 0.0)), 0.5 * 2f64.ln() + 0.5);
        // z = log 9 is won with 9 : 1 and mixed with 3 : 1.
        let expected = 0.25 * (10f64 / 9.0).ln() + 0.75 / 9.0;
        assert_near(loss(&discopop, &logratios(9f64.ln(), 0.0)), expected);
    }
}
