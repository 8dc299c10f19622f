//! Rationale-enriched direct preference optimization (RDPO).
//!
//! Source: Just et al. 2024, arXiv:2407.14477, and the authors' code.
//! Loss: `−log σ(β·h) − log σ(γ·log π_θ(r))` with DPO's margin h and the rationale r of the preference (the row's gold
//! completion).
//! Against DPO: why the one is better is said, too, in as many words as it takes; so fewer pairs do.
//! Departures: the term is `log σ(γ·log π)`, as the code has it, and not γ times the log-likelihood, as the text does: a
//! rationale that is certain costs ln 2 and not 0, and its slope is between γ/2 and γ. The authors' prompt of a rationale
//! holds the pair; rows that are trained on give it as a completion of the pair's own prompt. Not R-DPO, which is regularised by
//! length.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::pair::rationale::WithRationale;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const ID: &str = "rdpo-rationale";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Rationale-enriched direct preference optimization",
    paper: "arXiv:2407.14477",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::GOLD),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "gamma",
            doc: "γ ≥ 0, per nat: weight of the rationale's log-probability, inside of log σ",
        },
    ],
    defaults: || json!(RationaleDpo::default()),
    build: |options| read_options::<RationaleDpo>(ID, options)?.checked(),
};

/// RDPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RationaleDpo {
    /// β.
    pub beta: f64,
    /// γ.
    pub gamma: f64,
}

impl Default for RationaleDpo {
    fn default() -> Self {
        Self { beta: 0.1, gamma: 0.1 }
    }
}

impl RationaleDpo {
    fn checked(self) -> Result<Objective> {
        require_positive(ID, "beta", self.beta)?;
        require_not_negative(ID, "gamma", self.gamma)?;
        let inner = Box::new(Dpo { beta: self.beta });
        Ok(Objective::Pair(Box::new(WithRationale { inner, gamma: self.gamma })))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, numbers, pairs, row, var};

    /// Loss with a rationale of −20 nats, and its slope by them.
    fn run(gamma: f64) -> (f64, f64) {
        let rdpo = built(&SPEC, json!({"beta": 0.1, "gamma": gamma}));
        let rationale = var(&[-20.0]);
        let inputs = pairs(&[2.0], &[0.0]).with_gold(rationale.as_tensor().clone(), row(&[9.0]));
        let loss = rdpo.evaluate(&inputs).unwrap().per_pair;
        let gradients = loss.backward().unwrap();
        (numbers(&loss)[0], gradients.get(&rationale).map_or(0.0, |slope| numbers(slope)[0]))
    }

    #[test]
    fn hand_arithmetic() {
        let (loss, slope) = run(0.1);
        assert!((loss - 2.725_067).abs() < 1e-6, "{loss}");
        assert_near(slope, -0.1 / (1.0 + (-2f64).exp()));
        let (loss, slope) = run(0.0);
        assert_near(loss, (-0.2f64).exp().ln_1p() + 2f64.ln());
        assert_eq!(slope, 0.0);
    }
}
