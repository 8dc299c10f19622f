//! Iterative Nash policy optimization (INPO).
//!
//! Source: Zhang et al. 2024, arXiv:2407.00617, Sec. 3.
//! Loss: `(h − 1/(2η))²` with
//! `h = Δlog π_θ − (τ/η)·Δlog π_base − (1 − τ/η)·Δlog π_ref`, Δ being y_w's minus y_l's. π_ref is the policy of the round
//! before (the paper's π_t), π_base the model that the first round started from (its π_ref).
//! One round minimises the regret of online mirror descent in the game of two policies that pay τ for every nat of
//! divergence from π_base: the minimiser is `π ∝ exp(P(y ≻ π_ref)/η)·π_base^(τ/η)·π_ref^(1 − τ/η)`, and the rounds
//! converge to that game's Nash equilibrium.
//! Against IPO: two anchors. τ = η is IPO on π_base with β = η.
//! Departures: none. In the first round base and reference are one model. The name is not InPO's, which inverts DDIM.
//! Checked against: the equation, written independently in tools/parity/objectives_papers.py.

use crate::completion::Completion;
use crate::contract::PairInputs;
use crate::error::{ObjectiveError, Result};
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;

const ID: &str = "inpo-nash";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Iterative Nash policy optimization",
    paper: "arXiv:2407.00617, Sec. 3",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::BASE),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "eta", doc: "η > 0, per nat: the margin's target is 1/(2η) nats" },
        OptionDoc { name: "tau", doc: "0 ≤ τ ≤ η, per nat: strength of the pull to the base" },
    ],
    defaults: || json!(Inpo::default()),
    build: |options| read_options::<Inpo>(ID, options)?.checked(),
};

/// INPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inpo {
    /// η.
    pub eta: f64,
    /// τ.
    pub tau: f64,
}

impl Default for Inpo {
    fn default() -> Self {
        Self { eta: 0.0075, tau: 0.0025 }
    }
}

impl Inpo {
    fn checked(self) -> Result<Objective> {
        require_positive(ID, "eta", self.eta)?;
        require_not_negative(ID, "tau", self.tau)?;
        if self.tau > self.eta {
            return Err(ObjectiveError::Range {
                id: ID,
                option: "tau",
                value: self.tau,
                range: "at most eta",
            });
        }
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for Inpo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let share = self.tau / self.eta;
        // η·(log π_θ − share·log π_base − (1 − share)·log π_ref)
        let side = |side: &Completion| -> Result<Tensor> {
            Ok(((side.logratio()? + (side.reference_logratio()? * share)?)? * self.eta)?)
        };
        Ok([side(&inputs.chosen)?, side(&inputs.rejected)?])
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        // In nats: the scores are η times as large.
        Ok(((margin - 0.5)? / self.eta)?.sqr()?)
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

    /// log π_θ = (2, −1), log π_ref = (0, 0), log π_base = (−3, 1).
    fn run(eta: f64, tau: f64) -> (f64, [f64; 2]) {
        with_slopes(&Inpo { eta, tau }, &pairs(&[2.0], &[-1.0]).with_base(row(&[-3.0]), row(&[1.0])))
    }

    #[test]
    fn hand_arithmetic() {
        // h = 3 + ¼·4 = 4, target 1.
        let (loss, [chosen, rejected]) = run(0.5, 0.125);
        assert_near(loss, 9.0);
        assert_near(chosen, 6.0);
        assert_near(rejected, -6.0);
        // τ = η: the base alone, h = 3 + 4; τ = 0: the reference alone.
        assert_near(run(0.5, 0.5).0, 36.0);
        assert_near(run(0.5, 0.0).0, 4.0);
    }
}
