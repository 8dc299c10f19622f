//! Uncertainty-enhanced preference optimization (UPO).
//!
//! Source: Wang et al. 2024, arXiv:2409.11212.
//! Loss: `−(1 − α)·log σ(β·h) − α·log σ(−β·h) − λ·log π_θ(y_w)/|y_w|` with DPO's margin h and an α for every pair, larger
//! where the estimator that labelled it disagrees with itself: B is the mutual information of label and dropout mask in
//! nats (BALD), from 0 to ln 2.
//! Against conservative DPO: ε is not one number but what is known of each label.
//! Departures: the paper prints `α = 1/(P + 1)` with sampling shares P that sum to 1, so α would be at least ½ and turn the
//! labels round; `label_noise = "printed"` computes that, with `P = (1 − B)/Σ(1 − B)` over a step. The default
//! `"entropy"`, `α = B/(2·ln 2)`, and `"half"`, `α = B/2`, are guesses at what is meant: 0 for a sure label, at most ½. The
//! likelihood term is divided by the length, where the paper's text has another symbol; λ is a guess.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
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
    id: "upo",
    title: "Uncertainty-enhanced preference optimization",
    paper: "arXiv:2409.11212",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::LENGTHS).or(Needs::UNCERTAINTIES),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "label_noise",
            doc: "α of a pair by its uncertainty B: `entropy` B/(2·ln 2), `half` B/2 (both guesses), or as `printed`, \
                  which turns labels round and reads whole steps",
        },
        OptionDoc {
            name: "lambda",
            doc: "λ ≥ 0, tokens per nat: weight of the likelihood term; the default is a guess",
        },
    ],
    defaults: || json!(Upo::default()),
    build: |options| read_options::<Upo>("upo", options)?.checked(),
};

/// How a pair's α follows from its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelNoise {
    /// `B/(2·ln 2)`.
    Entropy,
    /// `B/2`.
    Half,
    /// `1/(P + 1)`.
    Printed,
}

/// UPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upo {
    /// β.
    pub beta: f64,
    /// α.
    pub label_noise: LabelNoise,
    /// λ.
    pub lambda: f64,
}

impl Default for Upo {
    fn default() -> Self {
        Self { beta: 0.1, label_noise: LabelNoise::Entropy, lambda: 1.0 }
    }
}

impl Upo {
    fn checked(self) -> Result<Objective> {
        require_positive("upo", "beta", self.beta)?;
        require_not_negative("upo", "lambda", self.lambda)?;
        Ok(Objective::Pair(Box::new(self)))
    }

    /// α of every pair, `(B,)`.
    fn alpha(&self, uncertainties: &Tensor) -> Result<Tensor> {
        Ok(match self.label_noise {
            LabelNoise::Entropy => (uncertainties / (2.0 * std::f64::consts::LN_2))?,
            LabelNoise::Half => (uncertainties * 0.5)?,
            LabelNoise::Printed => {
                let certainty = (1.0 - uncertainties)?;
                let share = certainty.broadcast_div(&certainty.sum_all()?)?;
                (share + 1.0)?.recip()?
            }
        })
    }
}

impl PairObjective for Upo {
    fn needs(&self) -> Needs {
        match self.label_noise {
            LabelNoise::Printed => SPEC.needs.or(Needs::WHOLE_BATCH),
            LabelNoise::Entropy | LabelNoise::Half => SPEC.needs,
        }
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (inputs.chosen.logratio()?, inputs.rejected.logratio()?);
        let margin = ((&chosen - &rejected)? * self.beta)?;
        let alpha = self.alpha(&inputs.uncertainties()?)?;
        let right = (log_sigmoid(&margin)? * (1.0 - &alpha)?)?;
        let wrong = (log_sigmoid(&margin.neg()?)? * alpha)?;
        let likelihood = (inputs.chosen.per_token(&inputs.chosen.policy_logps)? * self.lambda)?;
        Ok(PairLoss {
            per_pair: ((right + wrong)? + likelihood)?.neg()?,
            chosen_rewards: (chosen.detach() * self.beta)?,
            rejected_rewards: (rejected.detach() * self.beta)?,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, losses, numbers, pairs, row};

    const LN2: f64 = std::f64::consts::LN_2;

    /// The loss of a pair with `βh = ln 3`, ten tokens, and log π_θ(y_w) = 2·ln 3.
    fn run(label_noise: LabelNoise, uncertainty: f64, lambda: f64) -> f64 {
        let inputs = pairs(&[2.0 * 3f64.ln()], &[0.0])
            .with_lengths(row(&[10.0]), row(&[3.0]))
            .with_uncertainties(row(&[uncertainty]));
        losses(&Upo { beta: 0.5, label_noise, lambda }, &inputs)[0]
    }

    #[test]
    fn hand_arithmetic() {
        let (right, wrong) = ((4f64 / 3.0).ln(), 4f64.ln());
        assert_near(run(LabelNoise::Entropy, 0.0, 0.0), right);
        assert_near(run(LabelNoise::Entropy, 0.5 * LN2, 0.0), 0.75 * right + 0.25 * wrong);
        assert_near(run(LabelNoise::Half, 0.5, 0.0), 0.75 * right + 0.25 * wrong);
        assert_near(run(LabelNoise::Entropy, 0.0, 1.0), right - 0.2 * 3f64.ln());
    }

    #[test]
    fn what_is_printed_turns_labels_round() {
        let upo = Upo { label_noise: LabelNoise::Printed, ..Upo::default() };
        // A hundred equally sure pairs: P = 1/100.
        let alpha = numbers(&upo.alpha(&row(&[0.2; 100])).unwrap());
        assert!(alpha.iter().all(|alpha| (alpha - 100.0 / 101.0).abs() < 1e-12), "{alpha:?}");
        assert!(upo.needs().contains(Needs::WHOLE_BATCH));
    }

    #[test]
    fn an_estimator_that_cannot_agree_with_itself_labels_nothing() {
        // Half of the masks are sure of one label and half of the other: B = ln 2.
        let (forth, back) = (run(LabelNoise::Entropy, LN2, 0.0), 0.5 * ((4f64 / 3.0).ln() + 4f64.ln()));
        assert_near(forth, back);
    }
}
