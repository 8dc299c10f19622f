//! Scaled Bradley-Terry: a pair counts the more, the more strongly it was preferred.
//!
//! Source: Wang et al. 2024 (HelpSteer2-Preference), arXiv:2410.01257, the loss that it names so.
//! Loss: `−m·log σ(r_w − r_l)` with the rewards of the pair and the strength m of its preference, as the row was scored.
//! Against Bradley-Terry: a strong preference is as if it had been observed m times, where a margin demands a distance of
//! rewards. Equal strengths of 1 are Bradley-Terry.
//! Departures: none. The paper's strengths are 1, 2 and 3; any number of at least 0 is taken here.
//! Checked against: the formula, written independently in tools/parity/objectives.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::{ObjectiveError, Result};
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, Reduction, read_options};
use candle_core::DType;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "scaled_bradley_terry",
    title: "Scaled Bradley-Terry reward model",
    paper: "arXiv:2410.01257",
    domains: &[Domain::Text],
    needs: Needs::REWARDS.or(Needs::MARGINS),
    reduction: Reduction::Mean,
    options: &[],
    defaults: || json!(ScaledBradleyTerry::default()),
    build: |options| {
        let objective = read_options::<ScaledBradleyTerry>("scaled_bradley_terry", options)?;
        Ok(Objective::Pair(Box::new(objective)))
    },
};

/// Scaled Bradley-Terry, which has no option.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScaledBradleyTerry {}

impl PairObjective for ScaledBradleyTerry {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (rewards, strengths) = (inputs.rewards()?, inputs.margins()?);
        let least = strengths.min_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if least < 0.0 {
            let (name, what) = ("margins", "at least 0, because pairs are weighed by them");
            return Err(ObjectiveError::Input { name, found: least, what });
        }
        let [chosen, rejected] = &rewards;
        let per_pair = (log_sigmoid(&(chosen - rejected)?)?.neg()? * strengths)?;
        Ok(PairLoss::new(per_pair, rewards))
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        super::refuses(wrapper)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, numbers, row};

    #[test]
    fn hand_arithmetic() {
        let ln3 = 3f64.ln();
        let pairs = PairInputs::of_rewards(row(&[ln3, ln3]), row(&[0.0, 0.0])).unwrap();
        let found = ScaledBradleyTerry {}.evaluate(&pairs.clone().with_margins(row(&[3.0, 0.0]))).unwrap();
        let losses = numbers(&found.per_pair);
        assert_near(losses[0], 3.0 * (4f64 / 3.0).ln());
        assert_near(losses[1], 0.0);
        let message = ScaledBradleyTerry {}.evaluate(&pairs.with_margins(row(&[1.0, -0.5]))).unwrap_err();
        assert!(message.to_string().contains("at least 0"), "{message}");
    }
}
