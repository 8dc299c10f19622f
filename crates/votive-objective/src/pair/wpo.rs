//! Weighted preference optimization (WPO).
//!
//! Source: Zhou et al. 2024, arXiv:2406.11827, Eq. 2, with sampled alignment.
//! Loss: `−w(y_w)·w(y_l)·log σ(β·h)` with DPO's margin h in nats and `w(y) = exp(1/|y| Σ_t (log π_θ(y_t) − log Σ_v π_θ(v)²))`, which
//! carries no gradient.
//! Against DPO: pairs of another model count as likely as the policy would have written them, as if they were its own.
//! Departures: none. This is [`dpo`](super::dpo) with [`policy_weight`](crate::wrap::policy_weight) around it; the bound of 1 is that of the
//! authors' code, and trl 1.16 has none.
//! Checked against: trl 1.16 with `use_weighting`.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use crate::wrap::policy_weight::PolicyWeight;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "wpo",
    title: "Weighted preference optimization",
    paper: "arXiv:2406.11827, Eq. 2",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::ALIGNMENT),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "max_weight", doc: "w > 0: largest weight of a pair" },
    ],
    defaults: || json!(Wpo::default()),
    build: |options| read_options::<Wpo>("wpo", options)?.checked(),
};

/// Wpo with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wpo {
    /// β.
    pub beta: f64,
    /// Largest weight.
    pub max_weight: f64,
}

impl Default for Wpo {
    fn default() -> Self {
        Self { beta: 0.01, max_weight: 1.0 }
    }
}

impl Wpo {
    fn checked(self) -> Result<Objective> {
        require_positive("wpo", "beta", self.beta)?;
        require_positive("wpo", "max_weight", self.max_weight)?;
        let dpo = Box::new(Dpo { beta: self.beta });
        let weight = PolicyWeight { max: self.max_weight };
        Ok(Objective::Pair(Box::new(weight.around(dpo)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, logratios, loss, row};

    #[test]
    fn hand_arithmetic() {
        let wpo = built(&SPEC, json!({"beta": 1.0, "max_weight": 1.0}));
        let inputs = |chosen: f64, rejected: f64| {
            logratios(0.0, 0.0).with_alignment(row(&[chosen.ln()]), row(&[rejected.ln()]))
        };
        assert_near(loss(&*wpo, &inputs(0.5, 0.5)), 0.25 * 2f64.ln());
        assert_near(loss(&*wpo, &inputs(3.0, 2.0)), 2f64.ln());
    }
}
