//! Length-desensitized direct preference optimization (LD-DPO).
//!
//! Source: Liu et al. 2024, arXiv:2409.06411, Eq. 11.
//! Loss: DPO's, with `log π(y) = Σ_{t ≤ l} log π(y_t) + α·Σ_{t > l} log π(y_t)` and l the length of the shorter
//! completion of the pair: tokens that only the longer one has count α times.
//! Against DPO: the longer completion is not preferred or rejected for its length; α = 1 is DPO.
//! Departures: none. The weights act on policy and reference alike, as in trl; LLaMA-Factory weighs the policy alone.
//! Checked against: trl 1.16 with `ld_alpha`.

use crate::completion::Completion;
use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::{ObjectiveError, Result};
use crate::needs::Needs;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "ld_dpo",
    title: "Length-desensitized direct preference optimization",
    paper: "arXiv:2409.06411, Eq. 11",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::TOKEN_LOGPS),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "alpha", doc: "0 ≤ α ≤ 1: weight of the tokens beyond the shorter completion"
        },
    ],
    defaults: || json!(LdDpo::default()),
    build: |options| read_options::<LdDpo>("ld_dpo", options)?.checked(),
};

/// LD-DPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LdDpo {
    /// β.
    pub beta: f64,
    /// α.
    pub alpha: f64,
}

impl Default for LdDpo {
    fn default() -> Self {
        Self { beta: 0.1, alpha: 0.5 }
    }
}

impl LdDpo {
    fn checked(self) -> Result<Objective> {
        require_positive("ld_dpo", "beta", self.beta)?;
        require_not_negative("ld_dpo", "alpha", self.alpha)?;
        if self.alpha > 1.0 {
            let (id, option, value) = ("ld_dpo", "alpha", self.alpha);
            return Err(ObjectiveError::Range { id, option, value, range: "at most 1" });
        }
        Ok(Objective::Pair(Box::new(self)))
    }

    /// The weighted sum of a side's token log-ratios; `shorter (B,)` is where α begins.
    fn reward(&self, side: &Completion, shorter: &Tensor) -> Result<Tensor> {
        let logratios = side.token_logratios()?;
        // 1 up to the shorter length, α beyond.
        let place = Tensor::ones_like(&logratios)?.cumsum(D::Minus1)?.detach();
        let is_shared = place.broadcast_le(&shorter.unsqueeze(1)?)?.to_dtype(logratios.dtype())?;
        let weights = ((is_shared * (1.0 - self.alpha))? + self.alpha)?;
        Ok((side.masked_sum(&(logratios * weights)?)? * self.beta)?)
    }
}

impl PairObjective for LdDpo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let shorter = inputs.chosen.token_counts()?.minimum(&inputs.rejected.token_counts()?)?;
        let chosen = self.reward(&inputs.chosen, &shorter)?;
        let rejected = self.reward(&inputs.rejected, &shorter)?;
        Ok(PairLoss {
            per_pair: log_sigmoid(&(&chosen - &rejected)?)?.neg()?,
            chosen_rewards: chosen.detach(),
            rejected_rewards: rejected.detach(),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::completion::Tokens;
    use candle_core::Device;

    #[test]
    fn hand_arithmetic() {
        let t = |row: [f64; 3]| Tensor::new(&[row], &Device::Cpu).unwrap();
        let side = |policy: [f64; 3], mask: [f64; 3]| Tokens {
            mask: t(mask),
            policy_logps: Some(t(policy)),
            reference_logps: Some(t([0.0; 3])),
            kl: None,
        };
        let sum = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        // Chosen 1 + 2 + ½·4, its third token being beyond the shorter; rejected 1 + 1; the 9 is padding.
        let inputs = PairInputs::new(sum(7.0), sum(2.0))
            .with_tokens(side([1.0, 2.0, 4.0], [1.0; 3]), side([1.0, 1.0, 9.0], [1.0, 1.0, 0.0]));
        let loss = LdDpo { beta: 0.5, alpha: 0.5 }.evaluate(&inputs).unwrap();
        let found = loss.per_pair.to_vec1::<f64>().unwrap()[0];
        assert!((found - (1.0 + (-1.5f64).exp()).ln()).abs() < 1e-12, "{found}");
        assert_eq!(loss.chosen_rewards.to_vec1::<f64>().unwrap(), [2.5]);
        assert_eq!(loss.rejected_rewards.to_vec1::<f64>().unwrap(), [1.0]);
    }
}
