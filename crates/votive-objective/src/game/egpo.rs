//! Extragradient preference optimization (EGPO): the loss that both of its steps minimise.
//!
//! Source: Zhou et al. 2025, arXiv:2503.08942, the loss of online IPO with independent uniform samples; the authors' code
//! (zhourunlong/EGPO).
//! Loss: `(h − (P(y ≻ π') − P(y' ≻ π'))/β)²` with DPO's margin h of two completions y, y' and the probabilities that
//! each beats a completion of the opponent π', which carry no gradient. A row's margin is that difference.
//! Its zero is the best response to π' in the game that pays β for every nat of divergence from the reference.
//! With π' = π_θ, step after step, this is online mirror descent, which may circle where β is small; EGPO first takes a
//! trial step with π' = π_θ, then steps from where it was with π' = the trial: that converges in its last iterate.
//! Departures: this is the loss alone. The opponent is whoever the rows' win rates were judged against, so rows that were
//! judged once give one step of mirror descent.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "egpo",
    title: "Extragradient preference optimization, its operator's loss",
    paper: "arXiv:2503.08942",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::MARGINS),
    reduction: Reduction::Mean,
    options: &[OptionDoc {
        name: "beta",
        doc: "β > 0, per nat: strength of the pull to the reference; margins are differences of win rates",
    }],
    defaults: || json!(Egpo::default()),
    build: |options| read_options::<Egpo>("egpo", options)?.checked(),
};

/// EGPO's loss with its one option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egpo {
    /// β.
    pub beta: f64,
}

impl Default for Egpo {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl Egpo {
    fn checked(self) -> Result<Objective> {
        require_positive("egpo", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for Egpo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (inputs.chosen.logratio()?, inputs.rejected.logratio()?);
        let margin = (&chosen - &rejected)?;
        Ok(PairLoss {
            per_pair: (margin - (inputs.margins()? / self.beta)?)?.sqr()?,
            chosen_rewards: (chosen.detach() * self.beta)?,
            rejected_rewards: (rejected.detach() * self.beta)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, pairs, row, with_slopes};

    #[test]
    fn hand_arithmetic() {
        // Win rates 0.8 and 0.5 at β = 0.1: the margin's target is 3 nats.
        let egpo = Egpo { beta: 0.1 };
        let run = |chosen, rejected| {
            with_slopes(&egpo, &pairs(&[chosen], &[rejected]).with_margins(row(&[0.8 - 0.5])))
        };
        let (loss, [chosen, rejected]) = run(0.5, -0.5);
        assert_near(loss, 4.0);
        assert_near(chosen, -4.0);
        assert_near(rejected, 4.0);
        assert!(run(2.0, -1.0).0 < 1e-24);
    }
}
