//! Direct preference optimization (DPO).
//!
//! Source: Rafailov et al. 2023, arXiv:2305.18290, Eq. 7. On denoisers: Wallace et al. 2023, arXiv:2311.12908, Eq. 14.
//! Loss: `−log σ(β·h)` with the margin `h = (log π_θ − log π_ref)(y_w) − (log π_θ − log π_ref)(y_l)` in nats.
//! The gradient pushes the margin up with weight `β·σ(−β·h)`: fully where the implicit rewards rank the pair
//! wrongly, hardly where they rank it rightly by far.
//! Departures: none. For a denoiser the log-ratio is minus half the change of the mean denoising error, which makes
//! β the β of Diffusion-DPO; whoever computes the log-ratio applies that half, so nothing here knows of it.
//! Checked against: trl 1.16 `loss_type="sigmoid"`.

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
    id: "dpo",
    title: "Direct preference optimization",
    paper: "arXiv:2305.18290, Eq. 7",
    domains: &[Domain::Text, Domain::Image],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" }],
    defaults: || json!(Dpo::default()),
    build: |options| read_options::<Dpo>("dpo", options)?.checked(),
};

/// DPO with its one option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dpo {
    /// β.
    pub beta: f64,
}

impl Default for Dpo {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl Dpo {
    fn checked(self) -> Result<Objective> {
        require_positive("dpo", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for Dpo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
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
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::PairObjective;
    use candle_core::Device;

    #[track_caller]
    fn check(margin: f64, beta: f64, expected: f64) {
        let t = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        let inputs = PairInputs::new(t(margin - 3.0), t(-5.0)).with_reference(t(-3.0), t(-5.0));
        let loss = Dpo { beta }.evaluate(&inputs).unwrap();
        let found = loss.per_pair.to_vec1::<f64>().unwrap()[0];
        assert!((found - expected).abs() < 1e-12, "{found}");
        assert!((loss.chosen_rewards.to_vec1::<f64>().unwrap()[0] - beta * margin).abs() < 1e-12);
        assert_eq!(loss.rejected_rewards.to_vec1::<f64>().unwrap(), [0.0]);
    }

    #[test]
    fn hand_arithmetic() {
        check(0.0, 0.1, std::f64::consts::LN_2);
        check(10.0 * 3f64.ln(), 0.1, (4f64 / 3.0).ln());
        check(-10.0 * 3f64.ln(), 0.1, 4f64.ln());
    }
}
