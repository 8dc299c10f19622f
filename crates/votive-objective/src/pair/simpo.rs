//! Simple preference optimization (SimPO).
//!
//! Source: Meng, Xia & Chen 2024, arXiv:2405.14734, Eq. 6.
//! Loss: `−log σ(β·(log π_θ(y_w)/|y_w| − log π_θ(y_l)/|y_l|) − γ)`.
//! Against DPO: the reward is the policy's own mean log-probability, so there is no reference and no bias to length,
//! and a pair must be won by the target margin γ.
//! Departures: none.
//! Checked against: trl 1.16's CPO trainer with `loss_type="simpo"`, `cpo_alpha=0`.

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

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "simpo",
    title: "Simple preference optimization",
    paper: "arXiv:2405.14734, Eq. 6",
    domains: &[Domain::Text],
    needs: Needs::LENGTHS,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, tokens per nat: scale of the mean log-probability" },
        OptionDoc { name: "target_margin", doc: "γ ≥ 0: the reward difference that a pair must exceed" },
    ],
    defaults: || json!(Simpo::default()),
    build: |options| read_options::<Simpo>("simpo", options)?.checked(),
};

/// SimPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Simpo {
    /// β.
    pub beta: f64,
    /// γ.
    pub target_margin: f64,
}

impl Default for Simpo {
    fn default() -> Self {
        Self { beta: 2.0, target_margin: 1.0 }
    }
}

impl Simpo {
    fn checked(self) -> Result<Objective> {
        require_positive("simpo", "beta", self.beta)?;
        require_not_negative("simpo", "target_margin", self.target_margin)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for Simpo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let [chosen, rejected] = inputs.mean_logps()?;
        Ok([(chosen * self.beta)?, (rejected * self.beta)?])
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        Ok(log_sigmoid(&(margin - self.target_margin)?)?.neg()?)
    }

    fn is_likelihood(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::PairObjective;
    use candle_core::Device;

    #[test]
    fn hand_arithmetic() {
        let t = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        // Means −1 and −2 nats per token, β = 2: the rewards differ by 2.
        let inputs = PairInputs::new(t(-4.0), t(-6.0)).with_lengths(t(4.0), t(3.0));
        let loss = |target_margin| {
            Simpo { beta: 2.0, target_margin }.evaluate(&inputs).unwrap().per_pair.to_vec1::<f64>().unwrap()
                [0]
        };
        assert!((loss(2.0) - std::f64::consts::LN_2).abs() < 1e-12);
        assert!((loss(0.0) - (1.0 + (-2f64).exp()).ln()).abs() < 1e-12);
    }
}
