//! A pair's rationale: why people preferred the one, in words, learned beside the preference.
//!
//! Source: Just et al. 2024, arXiv:2407.14477, and the authors' code. Both of the paper's methods add this term.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use votive_tensor::log_sigmoid;

/// `ℓ − log σ(γ·log π_θ(rationale))` around a pair objective.
#[derive(Debug)]
pub(crate) struct WithRationale {
    pub(crate) inner: Box<dyn PairObjective>,
    pub(crate) gamma: f64,
}

impl PairObjective for WithRationale {
    fn needs(&self) -> Needs {
        self.inner.needs().or(Needs::GOLD)
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        let loss = self.inner.evaluate(inputs)?;
        let rationale = log_sigmoid(&(&inputs.gold()?.policy_logps * self.gamma)?)?;
        Ok(PairLoss { per_pair: (loss.per_pair - rationale)?, ..loss })
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        self.inner.refuses(wrapper)
    }
}
