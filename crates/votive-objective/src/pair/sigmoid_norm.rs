//! Length-normalised DPO.
//!
//! Source: Lambert et al. 2024 (Tülu 3), arXiv:2411.15124; in trl `sigmoid_norm`, in open-instruct `dpo_norm`.
//! Loss: `−log σ(β·(r_w/|y_w| − r_l/|y_l|))` with DPO's log-ratios r in nats.
//! Against DPO: each completion counts by its mean log-ratio, so a long one does not win for its length. β is larger: Tülu 3
//! has 5.
//! Departures: none. Implicit rewards are those of DPO, not divided by lengths, as in trl.
//! Checked against: trl 1.16 `loss_type="sigmoid_norm"`.

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
    id: "sigmoid_norm",
    title: "Length-normalised direct preference optimization",
    paper: "arXiv:2411.15124",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::LENGTHS),
    reduction: Reduction::Mean,
    options: &[OptionDoc {
        name: "beta",
        doc: "β > 0, tokens per nat: strength of the pull to the reference",
    }],
    defaults: || json!(SigmoidNorm::default()),
    build: |options| read_options::<SigmoidNorm>("sigmoid_norm", options)?.checked(),
};

/// SigmoidNorm with its option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SigmoidNorm {
    /// β.
    pub beta: f64,
}

impl Default for SigmoidNorm {
    fn default() -> Self {
        Self { beta: 5.0 }
    }
}

impl SigmoidNorm {
    fn checked(self) -> Result<Objective> {
        require_positive("sigmoid_norm", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for SigmoidNorm {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let [chosen, rejected] = inputs.implicit_rewards(self.beta)?;
        Ok([inputs.chosen.per_token(&chosen)?, inputs.rejected.per_token(&rejected)?])
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, logratios, loss, row};

    #[test]
    fn hand_arithmetic() {
        // 6 nats over 3 tokens against −1 over 2, at β = 2: rewards of 4 and −1.
        let inputs = logratios(6.0, -1.0).with_lengths(row(&[3.0]), row(&[2.0]));
        assert_near(loss(&SigmoidNorm { beta: 2.0 }, &inputs), (-5f64).exp().ln_1p());
    }
}
