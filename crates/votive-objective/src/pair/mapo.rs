//! Margin-aware preference optimization without a reference (MaPO).
//!
//! Source: Hong et al. 2024, arXiv:2406.06424, as the authors' `mapo/utils.py` computes it.
//! Loss: `L_w − β·log σ(T·(s(L_w) − s(L_l)))` with the denoising errors L and the likelihood ratio
//! `s(L) = a/(eᵃ − 1)`, `a = L/2`, which falls from 1 at L = 0.
//! Against Diffusion-DPO: no reference; the error of the chosen image itself holds the policy where it is, and the margin
//! is between the images and not between policy and reference.
//! Departures: s is written `(a/2)/tanh(a/2) − a/2`, the same number without `eᵃ − 1`, which loses digits where errors
//! are small and T·s is not. A timestep's weight is part of L.
//! Checked against: the authors' formula in f64, in tools/parity/objectives.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "mapo",
    title: "Margin-aware preference optimization",
    paper: "arXiv:2406.06424",
    domains: &[Domain::Image],
    needs: Needs::ERRORS,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0: weight of the margin beside the chosen image's error" },
        OptionDoc { name: "scale", doc: "T > 0: what the margin of likelihood ratios is multiplied by" },
    ],
    defaults: || json!(MaPo::default()),
    build: |options| read_options::<MaPo>("mapo", options)?.checked(),
};

/// MaPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaPo {
    /// β.
    pub beta: f64,
    /// T.
    pub scale: f64,
}

impl Default for MaPo {
    fn default() -> Self {
        Self { beta: 0.1, scale: 1000.0 }
    }
}

impl MaPo {
    fn checked(self) -> Result<Objective> {
        require_positive("mapo", "beta", self.beta)?;
        require_positive("mapo", "scale", self.scale)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

/// `s(L)`. Errors of exactly 0, which no network has, are moved to the smallest number whose quotient is one.
fn likelihood_ratio(errors: &Tensor) -> Result<Tensor> {
    let half = ((errors * 0.25)? + 1e-30)?;
    Ok(((&half / half.tanh()?)? - half)?)
}

impl PairObjective for MaPo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (inputs.chosen.policy_errors()?, inputs.rejected.policy_errors()?);
        let (of_chosen, of_rejected) = (likelihood_ratio(chosen)?, likelihood_ratio(rejected)?);
        let margin = ((&of_chosen - &of_rejected)? * self.scale)?;
        Ok(PairLoss {
            per_pair: (chosen - (log_sigmoid(&margin)? * self.beta)?)?,
            chosen_rewards: (of_chosen.detach() * self.scale)?,
            rejected_rewards: (of_rejected.detach() * self.scale)?,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::completion::Denoised;
    use candle_core::Device;

    #[test]
    fn hand_arithmetic() {
        // Errors 2·ln 2 and 2·ln 3 have the ratios ln 2 and ½·ln 3, whose difference is ½·ln(4/3).
        let t = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        let side = |error: f64| Denoised { policy_errors: t(error), reference_errors: None, distances: None };
        let inputs =
            PairInputs::new(t(0.0), t(0.0)).with_denoised(side(2.0 * 2f64.ln()), side(2.0 * 3f64.ln()));
        let found = MaPo { beta: 0.5, scale: 1.0 }.evaluate(&inputs).unwrap();
        let expected = 2.0 * 2f64.ln() + 0.5 * 0.75f64.sqrt().ln_1p();
        assert!((found.per_pair.to_vec1::<f64>().unwrap()[0] - expected).abs() < 1e-14);
        assert!((found.chosen_rewards.to_vec1::<f64>().unwrap()[0] - 2f64.ln()).abs() < 1e-14);
    }

    #[test]
    fn the_likelihood_ratio_is_a_over_exp_a_minus_one() {
        for error in [1e-6, 0.01, 0.3, 2.0, 40.0] {
            let a: f64 = error / 2.0;
            let found = likelihood_ratio(&Tensor::new(&[error], &Device::Cpu).unwrap()).unwrap();
            let found = found.to_vec1::<f64>().unwrap()[0];
            assert!((found - a / a.exp_m1()).abs() < 1e-14, "{error}: {found}");
        }
    }
}
