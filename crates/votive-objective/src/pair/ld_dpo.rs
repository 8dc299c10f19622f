//! Length-desensitized direct preference optimization (LD-DPO).
//!
//! Source: Liu et al. 2024, arXiv:2409.06411, Eq. 11.
//! Loss: DPO's, with `log π(y) = Σ_{t ≤ l} log π(y_t) + α·Σ_{t > l} log π(y_t)` and l the length of the shorter
//! completion of the pair: tokens that only the longer one has count α times.
//! Against DPO: the longer completion is not preferred or rejected for its length; α = 1 is DPO.
//! Departures: none. This is [`dpo`](super::dpo) with [`token_mask`](crate::wrap::token_mask) before it, which acts on policy and
//! reference alike, as in trl; LLaMA-Factory weighs the policy alone.
//! Checked against: trl 1.16 with `ld_alpha`.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require, require_positive,
};
use crate::wrap::token_mask::TokenMask;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

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

/// LdDpo with its options.
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
        require("ld_dpo", "alpha", self.alpha, (0.0..=1.0).contains(&self.alpha), "from 0 to 1")?;
        let dpo = Arc::new(Dpo { beta: self.beta });
        let mask = TokenMask { alpha: self.alpha };
        Ok(Objective::Pair(Box::new(mask.around(dpo)?)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::PairInputs;
    use crate::completion::Tokens;
    use crate::tests::{assert_near, built, row};
    use candle_core::{Device, Tensor};

    #[test]
    fn hand_arithmetic() {
        let t = |row: [f64; 3]| Tensor::new(&[row], &Device::Cpu).unwrap();
        let side = |policy: [f64; 3], mask: [f64; 3]| Tokens {
            mask: t(mask),
            policy_logps: Some(t(policy)),
            reference_logps: Some(t([0.0; 3])),
            kl: None,
        };
        // Chosen 1 + 2 + ½·4, its third token being beyond the shorter; rejected 1 + 1; the 9 is padding.
        let inputs = PairInputs::new(row(&[7.0]), row(&[2.0]))
            .with_tokens(side([1.0, 2.0, 4.0], [1.0; 3]), side([1.0, 1.0, 9.0], [1.0, 1.0, 0.0]));
        let loss = built(&SPEC, json!({"beta": 0.5, "alpha": 0.5})).evaluate(&inputs).unwrap();
        assert_near(loss.per_pair.to_vec1::<f64>().unwrap()[0], (-1.5f64).exp().ln_1p());
        assert_eq!(loss.chosen_rewards.to_vec1::<f64>().unwrap(), [2.5]);
        assert_eq!(loss.rejected_rewards.to_vec1::<f64>().unwrap(), [1.0]);
    }
}
