//! Sequential preference optimization (SPO): one dimension of preference after another.
//!
//! Source: Lou et al. 2024, arXiv:2405.12739.
//! Loss: `−log σ(β·h − α·β₁·h₁)` on pairs of the second dimension, with DPO's margin h of π_θ and π_ref, and the margin
//! h₁ of π_ref and π_base. π_ref is the policy that the first dimension was learned into, with β₁, from π_base.
//! `β₁·h₁` is the first dimension's reward difference, up to a constant: the minimiser over all pairs is
//! `π ∝ π_ref·exp((R₂ + α·R₁)/β)`, so what was learned first is not given up for what is learned second.
//! Against DPO: an offset of the margin. α = 0 is DPO from π_ref.
//! Departures: the loss is derived from that minimiser; the paper's value of α could not be confirmed, so the default is a
//! guess. Two dimensions; a third one would read a sum over all rounds before, of which only the last two models are
//! known here. The name is neither self-supervised nor self-play nor step-aware preference optimization.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::completion::Completion;
use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

const ID: &str = "spo-sequential";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Sequential preference optimization",
    paper: "arXiv:2405.12739",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::BASE),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "first_beta",
            doc: "β₁ > 0, per nat: the β that the reference was made with from the base",
        },
        OptionDoc {
            name: "alpha",
            doc: "α ≥ 0: what the first dimension's reward counts; the default is a guess",
        },
    ],
    defaults: || json!(Sequential::default()),
    build: |options| read_options::<Sequential>(ID, options)?.checked(),
};

/// SPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sequential {
    /// β.
    pub beta: f64,
    /// β₁.
    pub first_beta: f64,
    /// α.
    pub alpha: f64,
}

impl Default for Sequential {
    fn default() -> Self {
        Self { beta: 0.1, first_beta: 0.1, alpha: 1.0 }
    }
}

impl Sequential {
    fn checked(self) -> Result<Objective> {
        require_positive(ID, "beta", self.beta)?;
        require_positive(ID, "first_beta", self.first_beta)?;
        require_not_negative(ID, "alpha", self.alpha)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for Sequential {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let [chosen, rejected] = inputs.implicit_rewards(self.beta)?;
        // α times the first dimension's reward.
        let first = |side: &Completion| -> Result<Tensor> {
            Ok((side.reference_logratio()? * (self.alpha * self.first_beta))?)
        };
        Ok([(chosen - first(&inputs.chosen)?)?, (rejected - first(&inputs.rejected)?)?])
    }

    fn rewards(&self, inputs: &PairInputs, _: [Tensor; 2]) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        Ok(log_sigmoid(margin)?.neg()?)
    }

    fn is_likelihood(&self) -> bool {
        true
    }
    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        let changes_likelihoods = ["token_mask", "token_weights", "f_divergence"].contains(&wrapper);
        changes_likelihoods
            .then_some("it would change the likelihoods of policy and reference and not those of the base")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, pairs, row, with_slopes};

    #[test]
    fn hand_arithmetic() {
        let run = |alpha| {
            // h = 4; the reference has moved from the base by −2 and 1: h₁ = −3.
            let inputs = pairs(&[3.0], &[-1.0]).with_base(row(&[2.0]), row(&[-1.0]));
            with_slopes(&Sequential { beta: 0.5, first_beta: 1.0, alpha }, &inputs)
        };
        // The first dimension prefers the other completion, so this one need not get as far ahead.
        let (loss, [slope, _]) = run(1.0);
        assert_near(loss, (-5f64).exp().ln_1p());
        assert_near(slope, -0.5 / (1.0 + 5f64.exp()));
        assert_near(run(0.0).0, (-2f64).exp().ln_1p());
    }
}
