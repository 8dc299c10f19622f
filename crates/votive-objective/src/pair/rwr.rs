//! Reward-weighted regression on pairs (RWR).
//!
//! Source: Lee et al., arXiv:2302.12192 (reward-weighted likelihood of images); Peters & Schaal, ICML 2007
//! (weights `∝ exp(r/τ)`).
//! Loss: `−p·log π_θ(y_w) − (1 − p)·log π_θ(y_l)` with `p = σ(margin/τ)`: the weights `exp(r/τ)` of the two completions of
//! a prompt, made to sum to 1.
//! Against DPO: both are imitated, the better one more; nothing is pushed away, and there is no reference.
//! Departures: weights are normalised within a pair, since scores of different prompts have no common scale.
//! Checked against: the formula in tools/parity/objectives.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "rwr",
    title: "Reward-weighted regression",
    paper: "arXiv:2302.12192",
    domains: &[Domain::Text, Domain::Image],
    needs: Needs::MARGINS,
    reduction: Reduction::Mean,
    options: &[OptionDoc {
        name: "temperature",
        doc: "τ > 0, in the scorer's units: small prefers the chosen one in full",
    }],
    defaults: || json!(Rwr::default()),
    build: |options| read_options::<Rwr>("rwr", options)?.checked(),
};

/// RWR with its option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rwr {
    /// τ.
    pub temperature: f64,
}

impl Default for Rwr {
    fn default() -> Self {
        Self { temperature: 1.0 }
    }
}

impl Rwr {
    fn checked(self) -> Result<Objective> {
        require_positive("rwr", "temperature", self.temperature)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for Rwr {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (&inputs.chosen.policy_logps, &inputs.rejected.policy_logps);
        let share = log_sigmoid(&(inputs.margins()? / self.temperature)?)?.exp()?;
        let rest = (1.0 - &share)?;
        Ok(PairLoss {
            per_pair: ((share * chosen)? + (rest * rejected)?)?.neg()?,
            chosen_rewards: chosen.detach(),
            rejected_rewards: rejected.detach(),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn hand_arithmetic() {
        let t = |x: &[f64]| Tensor::new(x, &Device::Cpu).unwrap();
        let inputs =
            PairInputs::new(t(&[-2.0, -2.0]), t(&[-6.0, -6.0])).with_margins(t(&[0.0, 2.0 * 3f64.ln()]));
        let loss = Rwr { temperature: 2.0 }.evaluate(&inputs).unwrap().per_pair.to_vec1::<f64>().unwrap();
        assert!((loss[0] - 4.0).abs() < 1e-12 && (loss[1] - 3.0).abs() < 1e-12, "{loss:?}");
    }
}
