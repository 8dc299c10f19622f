//! Regularised preference optimization (RPO of Liu et al.): DPO with a likelihood term as an adversary of over-optimization.
//!
//! Source: Liu et al. 2024, arXiv:2405.16436. Another RPO is a recipe of diffusion, and IRPO's term is the same one with
//! another weight.
//! Loss: `−log σ(β·h) − η·log π_θ(y_w|x)/|y_w|` with DPO's margin h in nats.
//! Against DPO: the likelihood of what was chosen is kept from falling.
//! Departures: the paper's term has the weight η·β and the sum over tokens. As in trl's recipe of this paper it is η times the
//! mean over tokens here; what the authors' code divides by could not be confirmed (a guess).
//! Checked against: trl 1.16 `loss_type=["sigmoid", "sft"]` with `loss_weights=[1, η]`, pair by pair.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use crate::wrap::nll::Nll;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "rpo_regularized",
    title: "Regularised preference optimization",
    paper: "arXiv:2405.16436",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::LENGTHS),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "eta",
            doc: "η ≥ 0: weight of the likelihood term; that it is a mean over tokens is a guess",
        },
    ],
    defaults: || json!(RpoRegularized::default()),
    build: |options| read_options::<RpoRegularized>("rpo_regularized", options)?.checked(),
};

/// RpoRegularized with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpoRegularized {
    /// β.
    pub beta: f64,
    /// η.
    pub eta: f64,
}

impl Default for RpoRegularized {
    fn default() -> Self {
        Self { beta: 0.1, eta: 0.005 }
    }
}

impl RpoRegularized {
    fn checked(self) -> Result<Objective> {
        require_positive("rpo_regularized", "beta", self.beta)?;
        require_not_negative("rpo_regularized", "eta", self.eta)?;
        let dpo = Box::new(Dpo { beta: self.beta });
        let nll = Nll { weight: self.eta, per_token: true };
        Ok(Objective::Pair(Box::new(nll.around(dpo)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, logratios, loss, row};

    #[test]
    fn hand_arithmetic() {
        let rpo = built(&SPEC, json!({"beta": 1.0, "eta": 0.5}));
        // log π(y_w) is 5 − 3 nats over 4 tokens.
        let inputs = logratios(5.0, 5.0).with_lengths(row(&[4.0]), row(&[9.0]));
        assert_near(loss(&*rpo, &inputs), 2f64.ln() - 0.25);
    }
}
