//! Sequence likelihood calibration with human feedback (SLiC-HF).
//!
//! Source: Zhao et al. 2023, arXiv:2305.10425, the rank calibration loss.
//! Loss: `max(0, δ − log π_θ(y_w) + log π_θ(y_l)) − λ·log π_θ(y_w)`, in nats, summed over tokens.
//! Against DPO: no reference and no logarithm; a pair that is won by δ nats is left alone.
//! Departures: the likelihood term is of the chosen completion; the paper's is of a target of supervised fine-tuning, which
//! `with.gold_nll` adds where rows have one.
//! Checked against: the formula, written independently in tools/parity/objectives.py.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::positive_part::positive_part;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use crate::wrap::nll::Nll;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "slic",
    title: "Sequence likelihood calibration",
    paper: "arXiv:2305.10425",
    domains: &[Domain::Text],
    needs: Needs::NONE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "delta", doc: "δ > 0, nats: margin that a pair must be won by" },
        OptionDoc { name: "lambda", doc: "λ ≥ 0: weight of the likelihood term" },
    ],
    defaults: || json!(Slic::default()),
    build: |options| read_options::<Slic>("slic", options)?.checked(),
};

/// Slic with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slic {
    /// δ.
    pub delta: f64,
    /// λ.
    pub lambda: f64,
}

impl Default for Slic {
    fn default() -> Self {
        Self { delta: 1.0, lambda: 0.1 }
    }
}

impl Slic {
    fn checked(self) -> Result<Objective> {
        require_positive("slic", "delta", self.delta)?;
        require_not_negative("slic", "lambda", self.lambda)?;
        let ranks = Box::new(RankCalibration { delta: self.delta });
        let nll = Nll { weight: self.lambda, per_token: false };
        Ok(Objective::Pair(Box::new(nll.around(ranks)?)))
    }
}

/// The rank calibration loss.
#[derive(Clone, Debug)]
struct RankCalibration {
    delta: f64,
}

impl MarginObjective for RankCalibration {
    fn needs(&self) -> Needs {
        Needs::NONE
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        Ok([inputs.chosen.policy_logps.clone(), inputs.rejected.policy_logps.clone()])
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        positive_part(&(self.delta - margin)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, logps, loss};

    #[test]
    fn hand_arithmetic() {
        let slic = built(&SPEC, json!({"delta": 3.0, "lambda": 0.5}));
        assert_near(loss(&*slic, &logps([-4.0, -6.0], [1.0, 1.0])), 1.0 + 2.0);
        assert_near(loss(&*slic, &logps([-2.0, -6.0], [1.0, 1.0])), 1.0);
    }
}
