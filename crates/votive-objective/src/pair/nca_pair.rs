//! Noise contrastive alignment on pairs (NCA).
//!
//! Source: Chen et al. 2024, arXiv:2402.05369, the loss for preference data (K = 2).
//! Loss: `−log σ(r_w) − ½·log σ(−r_w) − ½·log σ(−r_l)` with DPO's implicit rewards `r = β·(log π_θ − log π_ref)`.
//! Against DPO: each completion is told from the reference's by itself, so the chosen one's likelihood cannot fall for
//! the margin's sake; at the optimum for a single pair its reward is log 2.
//! Departures: none. β is the paper's α.
//! Checked against: trl 1.16 `loss_type="nca_pair"`.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "nca_pair",
    title: "Noise contrastive alignment on pairs",
    paper: "arXiv:2402.05369",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" }],
    defaults: || json!(NcaPair::default()),
    build: |options| read_options::<NcaPair>("nca_pair", options)?.checked(),
};

/// NcaPair with its option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NcaPair {
    /// β.
    pub beta: f64,
}

impl Default for NcaPair {
    fn default() -> Self {
        Self { beta: 0.01 }
    }
}

impl NcaPair {
    fn checked(self) -> Result<Objective> {
        require_positive("nca_pair", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for NcaPair {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let [chosen, rejected] = inputs.implicit_rewards(self.beta)?;
        let noise = (log_sigmoid(&chosen.neg()?)? + log_sigmoid(&rejected.neg()?)?)?;
        let per_pair = (log_sigmoid(&chosen)? + (noise * 0.5)?)?.neg()?;
        Ok(PairLoss::new(per_pair, [chosen, rejected]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, logratios, loss};

    #[test]
    fn hand_arithmetic() {
        let nca = NcaPair { beta: 1.0 };
        assert_near(loss(&nca, &logratios(0.0, 0.0)), 2.0 * 2f64.ln());
        // σ is ¾ of the chosen one and ¼ of the rejected one.
        let ln3 = 3f64.ln();
        let expected = (4f64 / 3.0).ln() + 0.5 * 4f64.ln() + 0.5 * (4f64 / 3.0).ln();
        assert_near(loss(&nca, &logratios(ln3, -ln3)), expected);
    }
}
