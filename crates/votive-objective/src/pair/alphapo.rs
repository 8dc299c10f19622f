//! AlphaPO: SimPO with a reward of another shape.
//!
//! Source: Gupta et al. 2025, arXiv:2501.03884.
//! Loss: `−log σ(β·(r_w − r_l) − γ)` with `r = (1 − p^(−α))/α` and p the geometric mean of the completion's token
//! probabilities under the policy; in the limit α → 0, `r = log p`, this is SimPO.
//! Against SimPO: α > 0 makes the reward of an unlikely completion fall faster, so that the chosen one's likelihood drops less.
//! Departures: the exponent −α·log p is held at 80, past which f32 has no numbers; there a reward has no gradient.
//! Checked against: trl 1.16's CPO trainer with `loss_type="alphapo"`.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require, require_not_negative,
    require_positive,
};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// Largest exponent whose power and its sums f32 holds.
const LARGEST_EXPONENT: f64 = 80.0;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "alphapo",
    title: "AlphaPO",
    paper: "arXiv:2501.03884",
    domains: &[Domain::Text],
    needs: Needs::LENGTHS,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0: scale of the rewards" },
        OptionDoc { name: "target_margin", doc: "γ ≥ 0: the reward difference that a pair must exceed" },
        OptionDoc { name: "alpha", doc: "α, any number: shape of the reward; 0 is SimPO" },
    ],
    defaults: || json!(AlphaPo::default()),
    build: |options| read_options::<AlphaPo>("alphapo", options)?.checked(),
};

/// AlphaPo with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlphaPo {
    /// β.
    pub beta: f64,
    /// γ.
    pub target_margin: f64,
    /// α.
    pub alpha: f64,
}

impl Default for AlphaPo {
    fn default() -> Self {
        Self { beta: 2.5, target_margin: 0.1, alpha: 0.25 }
    }
}

impl AlphaPo {
    fn checked(self) -> Result<Objective> {
        require_positive("alphapo", "beta", self.beta)?;
        require_not_negative("alphapo", "target_margin", self.target_margin)?;
        require("alphapo", "alpha", self.alpha, self.alpha.is_finite(), "a finite number")?;
        Ok(Objective::Pair(Box::new(self)))
    }

    /// β·(1 − p^(−α))/α of `log p`.
    fn score(&self, log_p: Tensor) -> Result<Tensor> {
        if self.alpha == 0.0 {
            return Ok((log_p * self.beta)?);
        }
        let power = (log_p * -self.alpha)?.minimum(LARGEST_EXPONENT)?.exp()?;
        Ok(((1.0 - power)? * (self.beta / self.alpha))?)
    }
}

impl MarginObjective for AlphaPo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let [chosen, rejected] = inputs.mean_logps()?;
        Ok([self.score(chosen)?, self.score(rejected)?])
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        Ok(log_sigmoid(&(margin - self.target_margin)?)?.neg()?)
    }

    fn is_likelihood(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, logps, loss};

    #[test]
    fn hand_arithmetic() {
        // Mean probabilities of ½ and ¼ at α = 1: rewards of 1 − 2 and 1 − 4.
        let inputs = logps([-2.0 * 2f64.ln(), -6.0 * 2f64.ln()], [2.0, 3.0]);
        let alphapo = AlphaPo { beta: 2.0, target_margin: 3.0, alpha: 1.0 };
        assert_near(loss(&alphapo, &inputs), (-1f64).exp().ln_1p());
        let simpo = AlphaPo { beta: 2.0, target_margin: 0.0, alpha: 0.0 };
        assert_near(loss(&simpo, &inputs), 0.25f64.ln_1p());
    }
}
