//! Kahneman-Tversky optimization (KTO).
//!
//! Source: Ethayarajh et al. 2024, arXiv:2402.01306, Eq. 8.
//! Loss: `λ_D·(1 − σ(β(r − z)))` for a desirable completion and `λ_U·(1 − σ(β(z − r)))` for an undesirable one, with
//! `r = log π_θ − log π_ref` in nats and z the divergence estimate, which carries no gradient.
//! Against DPO: labels on single completions; a completion counts as a gain or a loss against z.
//! Departures: the paper's constant λ_y is dropped as trl does, so the loss is at least 0.
//! Checked against: trl 1.16's KTO trainer with `loss_type="kto"`.

use crate::contract::{UnpairedInputs, UnpairedLoss, UnpairedObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "kto",
    title: "Kahneman-Tversky optimization",
    paper: "arXiv:2402.01306, Eq. 8",
    domains: &[Domain::Text, Domain::Image],
    needs: Needs::REFERENCE.or(Needs::KL),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "desirable_weight", doc: "λ_D ≥ 0: weight of desirable completions" },
        OptionDoc { name: "undesirable_weight", doc: "λ_U ≥ 0: weight of undesirable completions" },
    ],
    defaults: || json!(Kto::default()),
    build: |options| read_options::<Kto>("kto", options)?.checked(),
};

/// KTO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kto {
    /// β.
    pub beta: f64,
    /// λ_D.
    pub desirable_weight: f64,
    /// λ_U.
    pub undesirable_weight: f64,
}

impl Default for Kto {
    fn default() -> Self {
        Self { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0 }
    }
}

impl Kto {
    fn checked(self) -> Result<Objective> {
        require_positive("kto", "beta", self.beta)?;
        require_not_negative("kto", "desirable_weight", self.desirable_weight)?;
        require_not_negative("kto", "undesirable_weight", self.undesirable_weight)?;
        Ok(Objective::Unpaired(Box::new(self)))
    }
}

impl UnpairedObjective for Kto {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &UnpairedInputs) -> Result<UnpairedLoss> {
        inputs.check()?;
        let logratio = inputs.completions.logratio()?;
        // +1 for a gain, −1 for a loss: both branches are 1 − σ(sign·β(r − z)) = σ(−sign·β(r − z)).
        let gain = ((logratio.broadcast_sub(&inputs.kl()?)? * inputs.signs()?)? * self.beta)?;
        let weight = inputs.by_label(self.desirable_weight, self.undesirable_weight)?;
        Ok(UnpairedLoss {
            per_example: (log_sigmoid(&gain.neg()?)?.exp()? * weight)?,
            rewards: Some((logratio.detach() * self.beta)?),
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
        let ln3 = 3f64.ln();
        // r − z = ±ln 3 at β = 1: σ is ¾ or ¼.
        let inputs = UnpairedInputs::new(t(&[ln3 + 0.5, -ln3 + 0.5, ln3 + 0.5]), t(&[1.0, 1.0, 0.0]))
            .with_reference(t(&[0.0; 3]))
            .with_kl(Tensor::new(0.5f64, &Device::Cpu).unwrap());
        let kto = Kto { beta: 1.0, desirable_weight: 1.0, undesirable_weight: 2.0 };
        let loss = kto.evaluate(&inputs).unwrap().per_example.to_vec1::<f64>().unwrap();
        for (found, expected) in loss.iter().zip([0.25, 0.75, 1.5]) {
            assert!((found - expected).abs() < 1e-12, "{loss:?}");
        }
    }
}
