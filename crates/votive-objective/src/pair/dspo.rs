//! Direct score preference optimization (DSPO).
//!
//! Source: Zhu et al., "DSPO: direct score preference optimization for diffusion model alignment", ICLR 2025; the form of
//! the authors' code for Stable Diffusion 1.5.
//! Loss: `mean[((ε_θ − ε) − c·(ε_θ − ε_ref))²]` on the chosen image, with `c = β·(1 − σ(u))` and
//! `u = −½β·[(L_w − L_l) − (R_w − R_l)]`. With `D = mean (ε_θ − ε_ref)²` that is
//! `L_w − c·(L_w + D_w − R_w) + c²·D_w`, because `2·mean (ε_θ − ε)(ε_θ − ε_ref) = L + D − R`.
//! Against Diffusion-DPO: the score of the chosen image is matched to the preference-tilted one; the rejected image only
//! decides how much, through c.
//! Departures: the other loss that the authors' code has for SDXL under the same name is not here. With
//! `stop_gradient = false`, as in that code, a gradient also goes through c.
//! Checked against: the mean over residuals, element by element, in tools/parity/objectives.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "dspo",
    title: "Direct score preference optimization",
    paper: "ICLR 2025 (Zhu et al.), code for SD 1.5",
    domains: &[Domain::Image],
    needs: Needs::REFERENCE.or(Needs::DISTANCES),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0: how far the target is tilted away from the reference" },
        OptionDoc { name: "stop_gradient", doc: "whether the pair's weight c carries no gradient" },
    ],
    defaults: || json!(Dspo::default()),
    build: |options| read_options::<Dspo>("dspo", options)?.checked(),
};

/// DSPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dspo {
    /// β.
    pub beta: f64,
    /// Whether c is a constant.
    pub stop_gradient: bool,
}

impl Default for Dspo {
    fn default() -> Self {
        Self { beta: 0.001, stop_gradient: false }
    }
}

impl Dspo {
    fn checked(self) -> Result<Objective> {
        require_positive("dspo", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for Dspo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (&inputs.chosen, &inputs.rejected);
        let (error, reference, distance) =
            (chosen.policy_errors()?, chosen.reference_errors()?, chosen.distances()?);
        // β·(change of −½ error) is the implicit reward, as in Diffusion-DPO.
        let gain = (reference - error)?;
        let other_gain = (rejected.reference_errors()? - rejected.policy_errors()?)?;
        let margin = ((&gain - &other_gain)? * (0.5 * self.beta))?;
        let weight = (log_sigmoid(&margin.neg()?)?.exp()? * self.beta)?;
        let weight = if self.stop_gradient { weight.detach() } else { weight };
        let cross = ((error + distance)? - reference)?;
        let loss = ((error - (&weight * cross)?)? + (weight.sqr()? * distance)?)?;
        Ok(PairLoss {
            per_pair: loss,
            chosen_rewards: (gain.detach() * (0.5 * self.beta))?,
            rejected_rewards: (other_gain.detach() * (0.5 * self.beta))?,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::completion::Denoised;
    use candle_core::{Device, Tensor};

    /// The scalar form is the mean over residuals.
    #[test]
    fn hand_arithmetic() {
        let (noise, policy, reference) = ([0.3, -1.2], [0.5, -0.7], [0.1, -0.9]);
        let mean = |a: [f64; 2], b: [f64; 2]| ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)) / 2.0;
        let t = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        let side = |errors: [f64; 3]| Denoised {
            policy_errors: t(errors[0]),
            reference_errors: Some(t(errors[1])),
            distances: Some(t(errors[2])),
        };
        let (error, other) = (mean(policy, noise), mean(reference, noise));
        let inputs = PairInputs::new(t(-1.0), t(-1.0))
            .with_denoised(side([error, other, mean(policy, reference)]), side([0.8, 0.7, 0.2]));
        let beta = 0.6;
        let found = Dspo { beta, stop_gradient: true }.evaluate(&inputs).unwrap().per_pair;
        let u = 0.5 * beta * ((other - error) - (0.7 - 0.8));
        let c = beta / (1.0 + u.exp());
        let residual = |i: usize| (policy[i] - noise[i]) - c * (policy[i] - reference[i]);
        let expected = (residual(0).powi(2) + residual(1).powi(2)) / 2.0;
        assert!((found.to_vec1::<f64>().unwrap()[0] - expected).abs() < 1e-14);
    }
}
