//! Rationale-enriched odds ratio preference optimization (RORPO).
//!
//! Source: Just et al. 2024, arXiv:2407.14477, and the authors' code.
//! Loss: ORPO's, `−log π_θ(y_w)/|y_w| − λ·log σ(log odds(y_w) − log odds(y_l))`, and `−log σ(γ·log π_θ(r))` of the rationale r
//! of the preference (the row's gold completion).
//! Against ORPO: as [`rdpo-rationale`](super::rdpo_rationale) against DPO.
//! Departures: the form inside of log σ, as there. The code's other form, γ times the log-likelihood, is ORPO with
//! [`gold_nll`](crate::wrap::gold_nll), but for its length. λ is ORPO's.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::orpo::Orpo;
use crate::pair::rationale::WithRationale;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "rorpo",
    title: "Rationale-enriched odds ratio preference optimization",
    paper: "arXiv:2407.14477",
    domains: &[Domain::Text],
    needs: Needs::LENGTHS.or(Needs::GOLD),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "lambda", doc: "λ > 0: weight of the odds ratio" },
        OptionDoc {
            name: "gamma",
            doc: "γ ≥ 0, per nat: weight of the rationale's log-probability, inside of log σ",
        },
    ],
    defaults: || json!(Rorpo::default()),
    build: |options| read_options::<Rorpo>("rorpo", options)?.checked(),
};

/// RORPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rorpo {
    /// λ.
    pub lambda: f64,
    /// γ.
    pub gamma: f64,
}

impl Default for Rorpo {
    fn default() -> Self {
        Self { lambda: 0.1, gamma: 1.0 }
    }
}

impl Rorpo {
    fn checked(self) -> Result<Objective> {
        require_not_negative("rorpo", "gamma", self.gamma)?;
        let inner = Orpo { lambda: self.lambda }.built()?;
        Ok(Objective::Pair(Box::new(WithRationale { inner, gamma: self.gamma })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, logps, loss, row};

    #[test]
    fn hand_arithmetic() {
        let rorpo = built(&SPEC, json!({"lambda": 0.5, "gamma": 0.5}));
        // Mean probabilities of ½ and ¼ have odds of 1 and ⅓; the rationale's half log-probability is −ln 3.
        let inputs = logps([-2.0 * 2f64.ln(), -6.0 * 2f64.ln()], [2.0, 3.0])
            .with_gold(row(&[-2.0 * 3f64.ln()]), row(&[4.0]));
        assert_near(loss(&*rorpo, &inputs), 2f64.ln() + 0.5 * (4f64 / 3.0).ln() + 4f64.ln());
    }
}
