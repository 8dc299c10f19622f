//! General preference optimization (GPO), the policy's loss beside a general preference model.
//!
//! Source: Zhang et al. 2024, arXiv:2410.02197.
//! Loss: `½·Σ_{y ∈ {y_w, y_l}} (log π_θ(y) − log π_ref(y) − E_{y'}[s(y ≻ y')]/β)²` with the mean preference score s of
//! a completion over completions y' of π_ref; π_ref is the policy of the round before.
//! Against SPPO: preference scores instead of win rates. They are antisymmetric, `s(y ≻ y') = −s(y' ≻ y)`, so a tie is 0
//! and not ½, and they have no bounds, so a cycle and a landslide are told apart.
//! Departures: none known. That the loss is SPPO's with scores in the place of `P − ½`, and its factor of ½, is recalled and
//! could not be confirmed (a guess); `beta` is that of the authors' script.
//! The paper says GPO, which is also Tang et al.'s name (arXiv:2402.05749) for a family of losses; hence the id.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;

const ID: &str = "general-preference";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "General preference optimization (GPO of Zhang et al.)",
    paper: "arXiv:2410.02197",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::SCORES),
    reduction: Reduction::Mean,
    options: &[OptionDoc {
        name: "beta",
        doc: "β > 0: a mean preference score of β is worth one nat; scores are mean scores against others, 0 for a tie. That \
              the loss is SPPO's with scores in the place of win rates, and its factor ½, could not be confirmed (a guess)",
    }],
    defaults: || json!(GeneralPreference::default()),
    build: |options| read_options::<GeneralPreference>(ID, options)?.checked(),
};

/// GPO with its one option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeneralPreference {
    /// β.
    pub beta: f64,
}

impl Default for GeneralPreference {
    fn default() -> Self {
        Self { beta: 0.001 }
    }
}

impl GeneralPreference {
    fn checked(self) -> Result<Objective> {
        require_positive(ID, "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for GeneralPreference {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (inputs.chosen.logratio()?, inputs.rejected.logratio()?);
        let of_chosen = (&chosen - (inputs.chosen.scores()? / self.beta)?)?.sqr()?;
        let of_rejected = (&rejected - (inputs.rejected.scores()? / self.beta)?)?.sqr()?;
        Ok(PairLoss {
            per_pair: ((of_chosen + of_rejected)? * 0.5)?,
            chosen_rewards: (chosen.detach() * self.beta)?,
            rejected_rewards: (rejected.detach() * self.beta)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::game::sppo::Sppo;
    use crate::tests::{assert_near, losses, pairs, row, with_slopes};

    #[test]
    fn hand_arithmetic() {
        let gpo = GeneralPreference { beta: 0.5 };
        // Targets 4 and −3 nats.
        let inputs = pairs(&[2.0], &[1.0]).with_scores(row(&[2.0]), row(&[-1.5]));
        let (loss, [chosen, rejected]) = with_slopes(&gpo, &inputs);
        assert_near(loss, 10.0);
        assert_near(chosen, -2.0);
        assert_near(rejected, 4.0);
    }

    #[test]
    fn scores_about_zero_are_win_rates_about_one_half() {
        let gpo = losses(
            &GeneralPreference { beta: 0.1 },
            &pairs(&[0.7], &[0.2]).with_scores(row(&[0.25]), row(&[-0.5])),
        );
        let sppo = losses(&Sppo { beta: 0.1 }, &pairs(&[0.7], &[0.2]).with_scores(row(&[0.75]), row(&[0.0])));
        assert_near(gpo[0], sppo[0]);
    }

    #[test]
    fn on_a_cycle_of_three_no_completion_has_a_score_above_the_others() {
        // A preference model's embedding of rock, paper and scissors: v_k on the circle, s(i ≻ j) = v_i × v_j.
        let at = |k: f64| (2.0 * std::f64::consts::PI * k / 3.0).sin_cos();
        let score = |i: f64, j: f64| at(i).1 * at(j).0 - at(i).0 * at(j).1;
        assert_near(score(0.0, 1.0), 3f64.sqrt() / 2.0);
        for i in [0.0, 1.0, 2.0] {
            let mean = [0.0, 1.0, 2.0].map(|j| score(i, j)).iter().sum::<f64>() / 3.0;
            assert!(mean.abs() < 1e-15, "{mean}");
        }
        // So the loss is least, 0, where the policy stays.
        let (loss, slopes) = with_slopes(
            &GeneralPreference { beta: 0.1 },
            &pairs(&[0.0], &[0.0]).with_scores(row(&[0.0]), row(&[0.0])),
        );
        assert_eq!((loss, slopes), (0.0, [0.0, 0.0]));
    }
}
