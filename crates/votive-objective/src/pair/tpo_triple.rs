//! Triple preference optimization (TPO of Saeidi et al.): CPO whose likelihood term is of a gold completion.
//!
//! Source: Saeidi et al. 2024, arXiv:2405.16681. Another TPO optimizes trees of preferences.
//! Loss: `−log σ(β·(log π_θ(y_w) − log π_θ(y_l))) − α·log π_θ(y_gold)/|y_gold|`, in nats.
//! Against CPO: what is imitated is a third, gold completion, so the chosen one may be the policy's own.
//! Departures: none. trl averages the likelihood term over the gold tokens of a micro-batch and this over completions.
//! Checked against: the formula, written independently in tools/parity/objectives.py after trl 1.16's TPO trainer.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::cpo::ReferenceFree;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use crate::wrap::gold_nll::GoldNll;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "tpo_triple",
    title: "Triple preference optimization",
    paper: "arXiv:2405.16681",
    domains: &[Domain::Text],
    needs: Needs::GOLD,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: scale of the margin" },
        OptionDoc { name: "alpha", doc: "α ≥ 0: weight of the gold completion" },
    ],
    defaults: || json!(TpoTriple::default()),
    build: |options| read_options::<TpoTriple>("tpo_triple", options)?.checked(),
};

/// TpoTriple with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TpoTriple {
    /// β.
    pub beta: f64,
    /// α.
    pub alpha: f64,
}

impl Default for TpoTriple {
    fn default() -> Self {
        Self { beta: 0.01, alpha: 1.0 }
    }
}

impl TpoTriple {
    fn checked(self) -> Result<Objective> {
        require_positive("tpo_triple", "beta", self.beta)?;
        require_not_negative("tpo_triple", "alpha", self.alpha)?;
        let contrast = Box::new(ReferenceFree { beta: self.beta });
        let gold = GoldNll { weight: self.alpha };
        Ok(Objective::Pair(Box::new(gold.around(contrast)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, logps, loss, row};

    #[test]
    fn hand_arithmetic() {
        let tpo = built(&SPEC, json!({"beta": 0.5, "alpha": 2.0}));
        let inputs = logps([-2.0, -6.0], [4.0, 3.0]).with_gold(row(&[-3.0]), row(&[2.0]));
        assert_near(loss(&*tpo, &inputs), (-2f64).exp().ln_1p() + 3.0);
    }
}
