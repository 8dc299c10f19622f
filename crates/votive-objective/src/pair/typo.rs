//! Preference optimization between the people's policy and the reference's (TYPO).
//!
//! Source: Hu et al. 2024 (New desiderata for direct preference optimization), arXiv:2407.09072.
//! Loss: `−log(π_θ(y_w)/(π_θ(y_w) + π_θ(y_l))) − λ·log π_θ(y_ref)` with a completion y_ref that the reference has written (the
//! row's gold completion): `KL(p* ‖ p_θ)` of the labels and `λ·KL(π_ref ‖ π_θ)` in samples.
//! Against DPO: no reference in the part that learns from labels. As λ → 0 the minimiser is the policy whose odds are the
//! people's, `π ∝ exp(r)`, and not one completion alone; as λ → ∞ it is the reference.
//! Departures: none known; the formula is recalled and its two ends were checked in numbers. λ is a guess.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method. The name is the paper's.
pub static SPEC: MethodSpec = MethodSpec {
    id: "typo",
    title: "Preference optimization between people's odds and the reference",
    paper: "arXiv:2407.09072",
    domains: &[Domain::Text],
    needs: Needs::GOLD,
    reduction: Reduction::Mean,
    options: &[OptionDoc {
        name: "lambda",
        doc: "λ ≥ 0: weight of the reference's own completions; the default is a guess, and the loss's form is recalled",
    }],
    defaults: || json!(Typo::default()),
    build: |options| read_options::<Typo>("typo", options)?.checked(),
};

/// TYPO with its one option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Typo {
    /// λ.
    pub lambda: f64,
}

impl Default for Typo {
    fn default() -> Self {
        Self { lambda: 0.1 }
    }
}

impl Typo {
    fn checked(self) -> Result<Objective> {
        require_not_negative("typo", "lambda", self.lambda)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for Typo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (&inputs.chosen.policy_logps, &inputs.rejected.policy_logps);
        let labels = log_sigmoid(&(chosen - rejected)?)?;
        let kept = (&inputs.gold()?.policy_logps * self.lambda)?;
        Ok(PairLoss::new((labels + kept)?.neg()?, [chosen.clone(), rejected.clone()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, logps, loss, row};

    #[test]
    fn hand_arithmetic() {
        // Probabilities ⅜ and ⅛ of the pair, and ½ of what the reference wrote.
        let inputs =
            logps([0.375f64.ln(), 0.125f64.ln()], [1.0, 1.0]).with_gold(row(&[0.5f64.ln()]), row(&[1.0]));
        assert_near(loss(&Typo { lambda: 3.0 }, &inputs), (4f64 / 3.0).ln() + 3.0 * 2f64.ln());
    }
}
