//! Centring: the rewards of a pair are drawn to a sum of 0, so that a reward model's numbers have an origin.
//!
//! Source: Eisenstein et al. 2023 ("Helping or herding?"), arXiv:2312.09244, Eq. 2; TRL's `center_rewards_coefficient`.
//! Loss: `ℓ + c·(r_w + r_l)²` of a loss ℓ of a pair and the rewards of the reward model that is trained.
//! Departures: none.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{OptionDoc, read_options, require_not_negative};
use crate::wrap::{Around, WrapperSpec};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this wrapper.
pub static SPEC: WrapperSpec = WrapperSpec {
    name: "center_rewards",
    title: "Centring: a reward model's rewards get an origin",
    paper: "arXiv:2312.09244, Eq. 2",
    options: &[OptionDoc {
        name: "coefficient",
        doc: "c ≥ 0: what the square of the sum of a pair's rewards counts, TRL's center_rewards_coefficient",
    }],
    defaults: || json!(CenterRewards::default()),
    around: Around::Pair(|options, inner| {
        let options: CenterRewards = read_options("with.center_rewards", options)?;
        require_not_negative("with.center_rewards", "coefficient", options.coefficient)?;
        if !inner.needs().contains(Needs::REWARDS) {
            return Err(SPEC.refusal("it is for reward models, and this is a method of log-probabilities"));
        }
        Ok(Box::new(Centred { inner, coefficient: options.coefficient }))
    }),
};

/// The option of centring.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CenterRewards {
    /// c.
    pub coefficient: f64,
}

impl Default for CenterRewards {
    fn default() -> Self {
        Self { coefficient: 0.01 }
    }
}

/// A loss of rewards that are drawn to 0.
#[derive(Debug)]
pub struct Centred {
    inner: Box<dyn PairObjective>,
    coefficient: f64,
}

impl PairObjective for Centred {
    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        let loss = self.inner.evaluate(inputs)?;
        let [chosen, rejected] = inputs.rewards()?;
        let pull = ((chosen + rejected)?.sqr()? * self.coefficient)?;
        Ok(PairLoss { per_pair: (loss.per_pair + pull)?, ..loss })
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        if wrapper == SPEC.name {
            Some("its rewards are centred already")
        } else {
            self.inner.refuses(wrapper)
        }
    }
}
