//! Self-play preference optimization (SPPO).
//!
//! Source: Wu et al. 2024, arXiv:2405.00675, Sec. 4, as the authors' code (uclaml/SPPO) computes it.
//! Loss: `½·Σ_{y ∈ {y_w, y_l}} (log π_θ(y) − log π_ref(y) − (P(y ≻ π_ref) − ½)/β)²`, where π_ref is the policy of the
//! round before and P(y ≻ π_ref) the share of its completions that y beats. 1/β is the paper's η.
//! Against DPO: each log-ratio has a target of its own, so the chosen completion's likelihood must really rise and a
//! completion that wins half of its comparisons must stay where it is. The step approximates multiplicative weights
//! `π ∝ π_ref·exp(P(y ≻ π_ref)/β)`, whose average over rounds is a Nash equilibrium.
//! Departures: none. The rejected completion's target is its own win rate; TRL's `sppo_hard` takes 1 and 0 instead.
//! Checked against: the equation, written independently in tools/parity/objectives_papers.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "sppo",
    title: "Self-play preference optimization",
    paper: "arXiv:2405.00675, Sec. 4",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::SCORES),
    reduction: Reduction::Mean,
    options: &[OptionDoc {
        name: "beta",
        doc: "β > 0: 1/η, a win rate above ½ by β is worth one nat; scores are win rates from 0 to 1",
    }],
    defaults: || json!(Sppo::default()),
    build: |options| read_options::<Sppo>("sppo", options)?.checked(),
};

/// SPPO with its one option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sppo {
    /// β.
    pub beta: f64,
}

impl Default for Sppo {
    fn default() -> Self {
        Self { beta: 0.001 }
    }
}

impl Sppo {
    fn checked(self) -> Result<Objective> {
        require_positive("sppo", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for Sppo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (inputs.chosen.logratio()?, inputs.rejected.logratio()?);
        let target = |win_rates: candle_core::Tensor| (win_rates - 0.5)? / self.beta;
        let of_chosen = (&chosen - target(inputs.chosen.scores()?)?)?.sqr()?;
        let of_rejected = (&rejected - target(inputs.rejected.scores()?)?)?.sqr()?;
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
    use crate::tests::{assert_near, pairs, row, with_slopes};

    /// Targets of win rates 0.75 and 0.4 at β = 0.05: 5 and −2 nats.
    fn run(chosen: f64, rejected: f64) -> (f64, [f64; 2]) {
        with_slopes(
            &Sppo { beta: 0.05 },
            &pairs(&[chosen], &[rejected]).with_scores(row(&[0.75]), row(&[0.4])),
        )
    }

    #[test]
    fn hand_arithmetic() {
        let (loss, slopes) = run(5.0, -2.0);
        assert!(loss.abs() < 1e-24 && slopes.iter().all(|slope| slope.abs() < 1e-12), "zero at the targets");
        let (loss, [chosen, rejected]) = run(2.0, 1.0);
        assert_near(loss, 9.0);
        assert_near(chosen, -3.0);
        assert_near(rejected, 3.0);
        // Each side has its own target: what the other does changes nothing.
        assert_near(run(2.0, -7.0).1[0], -3.0);
    }

    #[test]
    fn what_wins_half_of_its_games_must_not_move() {
        let (loss, slopes) =
            with_slopes(&Sppo { beta: 0.001 }, &pairs(&[0.3], &[-0.3]).with_scores(row(&[0.5]), row(&[0.5])));
        assert_near(loss, 0.09);
        assert!(slopes[0] > 0.0 && slopes[1] < 0.0, "a margin is drift here: {slopes:?}");
    }
}
