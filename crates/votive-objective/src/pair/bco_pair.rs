//! Binary classifier optimization on pairs, without a reward shift.
//!
//! Source: Jung et al. 2024, arXiv:2404.04656, with δ = 0, as in trl.
//! Loss: `−log σ(r_w) − log σ(−r_l)` with DPO's implicit rewards `r = β·(log π_θ − log π_ref)`: a classifier of single
//! completions whose logit is the reward.
//! Against DPO: an upper bound of its loss, which also asks that rewards lie on either side of 0.
//! Departures: the paper shifts rewards by their running mean δ. trl 1.16 does not on pairs, and a pair's own mean changes
//! little there; the id `bco` has the shift.
//! Checked against: trl 1.16 `loss_type="bco_pair"`.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "bco_pair",
    title: "Binary classifier optimization on pairs",
    paper: "arXiv:2404.04656",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" }],
    defaults: || json!(BcoPair::default()),
    build: |options| read_options::<BcoPair>("bco_pair", options)?.checked(),
};

/// BcoPair with its option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BcoPair {
    /// β.
    pub beta: f64,
}

impl Default for BcoPair {
    fn default() -> Self {
        Self { beta: 0.01 }
    }
}

impl BcoPair {
    fn checked(self) -> Result<Objective> {
        require_positive("bco_pair", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for BcoPair {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let [chosen, rejected] = inputs.implicit_rewards(self.beta)?;
        let per_pair = (log_sigmoid(&chosen)? + log_sigmoid(&rejected.neg()?)?)?.neg()?;
        Ok(PairLoss::new(per_pair, [chosen, rejected]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, logratios, loss};

    #[test]
    fn hand_arithmetic() {
        // σ is ¾ of the chosen one and ½ of the rejected one.
        let found = loss(&BcoPair { beta: 0.5 }, &logratios(2.0 * 3f64.ln(), 0.0));
        assert_near(found, (4f64 / 3.0).ln() + 2f64.ln());
    }
}
