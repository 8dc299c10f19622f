//! DPO-Positive (DPOP).
//!
//! Source: Pal et al. 2024 (Smaug), arXiv:2402.13228, Eq. 3.
//! Loss: `−log σ(β·(h − λ·max(0, −r_w)))` with DPO's margin h and the log-ratio r_w of the chosen completion in nats.
//! Against DPO: a margin that is won by making both completions less likely is worth less by λ times what the chosen one
//! has lost.
//! Departures: none. Where the chosen one has lost nothing yet, the penalty's slope is 0.
//! Checked against: the equation, written independently in tools/parity/objectives.py.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::positive_part::positive_part;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "dpop",
    title: "DPO-Positive",
    paper: "arXiv:2402.13228, Eq. 3",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "lambda", doc: "λ ≥ 0: weight of what the chosen completion has lost" },
    ],
    defaults: || json!(Dpop::default()),
    build: |options| read_options::<Dpop>("dpop", options)?.checked(),
};

/// Dpop with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dpop {
    /// β.
    pub beta: f64,
    /// λ.
    pub lambda: f64,
}

impl Default for Dpop {
    fn default() -> Self {
        Self { beta: 0.3, lambda: 50.0 }
    }
}

impl Dpop {
    fn checked(self) -> Result<Objective> {
        require_positive("dpop", "beta", self.beta)?;
        require_not_negative("dpop", "lambda", self.lambda)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for Dpop {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let [chosen, rejected] = inputs.implicit_rewards(self.beta)?;
        let penalty = (positive_part(&chosen.neg()?)? * self.lambda)?;
        Ok([(chosen - penalty)?, rejected])
    }

    fn rewards(&self, inputs: &PairInputs, _scores: [Tensor; 2]) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        Ok(log_sigmoid(margin)?.neg()?)
    }

    fn is_likelihood(&self) -> bool {
        true
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        (wrapper == "f_divergence")
            .then_some("its penalty is for log-ratios below 0, which another divergence moves")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, logratios, loss};

    #[test]
    fn hand_arithmetic() {
        let dpop = Dpop { beta: 0.5, lambda: 3.0 };
        // The chosen one has lost 2 nats: the margin of 4 is worth 4 − 6.
        assert_near(loss(&dpop, &logratios(-2.0, -6.0)), 1f64.exp().ln_1p());
        assert_near(loss(&dpop, &logratios(2.0, -2.0)), (-2f64).exp().ln_1p());
    }
}
