//! Contrastive preference optimization (CPO).
//!
//! Source: Xu et al. 2024, arXiv:2401.08417, Eq. 3 to 5.
//! Loss: `−log σ(β·(log π_θ(y_w) − log π_θ(y_l))) − λ·log π_θ(y_w)/|y_w|`, in nats.
//! Against DPO: the reference is taken to be uniform, so there is none, and a likelihood term holds the policy instead.
//! Departures: the likelihood term is a mean over tokens, as in trl, where the paper has the sum; trl averages it over the
//! tokens of a micro-batch and this over completions.
//! Checked against: trl 1.16's CPO trainer with `loss_type="sigmoid"`, pair by pair.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use crate::wrap::nll::Nll;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "cpo",
    title: "Contrastive preference optimization",
    paper: "arXiv:2401.08417, Eq. 3 to 5",
    domains: &[Domain::Text],
    needs: Needs::LENGTHS,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "lambda", doc: "λ ≥ 0: weight of the likelihood term" },
    ],
    defaults: || json!(Cpo::default()),
    build: |options| read_options::<Cpo>("cpo", options)?.checked(),
};

/// Cpo with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cpo {
    /// β.
    pub beta: f64,
    /// λ.
    pub lambda: f64,
}

impl Default for Cpo {
    fn default() -> Self {
        Self { beta: 0.1, lambda: 1.0 }
    }
}

impl Cpo {
    fn checked(self) -> Result<Objective> {
        require_positive("cpo", "beta", self.beta)?;
        require_not_negative("cpo", "lambda", self.lambda)?;
        let contrast = Box::new(ReferenceFree { beta: self.beta });
        let nll = Nll { weight: self.lambda, per_token: true };
        Ok(Objective::Pair(Box::new(nll.around(contrast)?)))
    }
}

/// DPO with a uniform reference: a logistic loss of the policy's own log-probabilities.
#[derive(Clone, Debug)]
pub(crate) struct ReferenceFree {
    pub(crate) beta: f64,
}

impl MarginObjective for ReferenceFree {
    fn needs(&self) -> Needs {
        Needs::NONE
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        Ok([(&inputs.chosen.policy_logps * self.beta)?, (&inputs.rejected.policy_logps * self.beta)?])
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        Ok(log_sigmoid(margin)?.neg()?)
    }

    fn is_likelihood(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, logps, loss};

    #[test]
    fn hand_arithmetic() {
        let cpo = built(&SPEC, json!({"beta": 0.5, "lambda": 2.0}));
        // A margin of 4 nats, and a likelihood of −2 nats over 4 tokens.
        assert_near(loss(&*cpo, &logps([-2.0, -6.0], [4.0, 3.0])), (-2f64).exp().ln_1p() + 1.0);
    }
}
