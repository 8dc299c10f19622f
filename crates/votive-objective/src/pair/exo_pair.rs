//! Efficient exact optimization on pairs (EXO-pref).
//!
//! Source: Ji et al. 2024, arXiv:2402.00856, Eq. 16.
//! Loss: `q·(log q − log(1 − ε)) + (1 − q)·(log(1 − q) − log ε)` with `q = σ(β·h)` and DPO's margin h: the divergence
//! KL(q ‖ p) from the policy's preference to labels of which a share ε is wrong.
//! Against DPO: the divergence is turned round, so the policy's mass seeks the mode of the labels instead of covering them.
//! Departures: none.
//! Checked against: trl 1.16 `loss_type="exo_pair"`, whose `label_smoothing` is ε here.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require, require_positive,
};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "exo_pair",
    title: "Efficient exact optimization on pairs",
    paper: "arXiv:2402.00856, Eq. 16",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "epsilon",
            doc: "0 < ε < 0.5: share of wrong labels; at 0 the divergence is infinite",
        },
    ],
    defaults: || json!(ExoPair::default()),
    build: |options| read_options::<ExoPair>("exo_pair", options)?.checked(),
};

/// ExoPair with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExoPair {
    /// β.
    pub beta: f64,
    /// ε.
    pub epsilon: f64,
}

impl Default for ExoPair {
    fn default() -> Self {
        Self { beta: 0.1, epsilon: 1e-3 }
    }
}

impl ExoPair {
    fn checked(self) -> Result<Objective> {
        require_positive("exo_pair", "beta", self.beta)?;
        require(
            "exo_pair",
            "epsilon",
            self.epsilon,
            self.epsilon > 0.0 && self.epsilon < 0.5,
            "above 0 and below 0.5",
        )?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for ExoPair {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        let (log_q, log_rest) = (log_sigmoid(margin)?, log_sigmoid(&margin.neg()?)?);
        let won = (log_q.exp()? * (&log_q - (-self.epsilon).ln_1p())?)?;
        let lost = (log_rest.exp()? * (&log_rest - self.epsilon.ln())?)?;
        Ok((won + lost)?)
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
        let exo = ExoPair { beta: 1.0, epsilon: 0.25 };
        // q = ¾ is what the labels say; q = ½ is a divergence of ½ log(½/¾) + ½ log(½/¼).
        assert_near(loss(&exo, &logratios(3f64.ln(), 0.0)), 0.0);
        assert_near(loss(&exo, &logratios(0.0, 0.0)), 0.5 * (4f64 / 3.0).ln());
    }
}
