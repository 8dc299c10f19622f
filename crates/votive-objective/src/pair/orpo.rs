//! Odds ratio preference optimization (ORPO).
//!
//! Source: Hong et al. 2024, arXiv:2403.07691, Eq. 6 and 7.
//! Loss: `−log π_θ(y_w)/|y_w| − λ·log σ(log odds(y_w) − log odds(y_l))` with `odds = p/(1 − p)` and p the geometric mean of the
//! completion's token probabilities under the policy.
//! Against DPO: supervised fine-tuning and preference in one step, without a reference.
//! Departures: the likelihood term is of the completion; trl's is of prompt and completion, over the tokens of a micro-batch.
//! `log odds` is computed as `log σ(−y) − log tanh(y/2)` of `y = −log p`, which loses no digits where p is near 1.
//! Checked against: trl 1.16's ORPO trainer for the ratio, computed in f64, pair by pair; the likelihood by its formula.

use crate::contract::{PairInputs, PairObjective};
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use crate::wrap::nll::Nll;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "orpo",
    title: "Odds ratio preference optimization",
    paper: "arXiv:2403.07691, Eq. 6 and 7",
    domains: &[Domain::Text],
    needs: Needs::LENGTHS,
    reduction: Reduction::Mean,
    options: &[OptionDoc { name: "lambda", doc: "λ > 0: weight of the odds ratio; trl calls it β" }],
    defaults: || json!(Orpo::default()),
    build: |options| read_options::<Orpo>("orpo", options)?.checked(),
};

/// Orpo with its option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Orpo {
    /// λ.
    pub lambda: f64,
}

impl Default for Orpo {
    fn default() -> Self {
        Self { lambda: 0.1 }
    }
}

impl Orpo {
    fn checked(self) -> Result<Objective> {
        Ok(Objective::Pair(self.built()?))
    }

    /// The ratio with its likelihood term.
    pub(crate) fn built(self) -> Result<Box<dyn PairObjective>> {
        require_positive("orpo", "lambda", self.lambda)?;
        let ratio = Box::new(OddsRatio { lambda: self.lambda });
        let nll = Nll { weight: 1.0, per_token: true };
        Ok(Box::new(nll.around(ratio)?))
    }
}

/// The logistic loss of the ratio of odds.
#[derive(Clone, Debug)]
struct OddsRatio {
    lambda: f64,
}

/// Smallest −log p that is told from 0.
const SMALLEST: f64 = 1e-30;

fn log_odds(log_p: &Tensor) -> Result<Tensor> {
    let y = log_p.neg()?.maximum(SMALLEST)?;
    Ok((log_sigmoid(&y.neg()?)? - (y * 0.5)?.tanh()?.log()?)?)
}

impl MarginObjective for OddsRatio {
    fn needs(&self) -> Needs {
        Needs::LENGTHS
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let [chosen, rejected] = inputs.mean_logps()?;
        Ok([log_odds(&chosen)?, log_odds(&rejected)?])
    }

    fn rewards(&self, inputs: &PairInputs, _scores: [Tensor; 2]) -> Result<[Tensor; 2]> {
        let [chosen, rejected] = inputs.mean_logps()?;
        Ok([(chosen * self.lambda)?, (rejected * self.lambda)?])
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        Ok((log_sigmoid(margin)? * -self.lambda)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, logps, loss};

    #[test]
    fn hand_arithmetic() {
        let orpo = built(&SPEC, json!({"lambda": 0.5}));
        // Mean probabilities of ½ and ¼: odds of 1 and ⅓, whose ratio wins 3 : 1.
        let inputs = logps([-2.0 * 2f64.ln(), -6.0 * 2f64.ln()], [2.0, 3.0]);
        assert_near(loss(&*orpo, &inputs), 2f64.ln() + 0.5 * (4f64 / 3.0).ln());
    }
}
