//! Iterative preference learning with focal masks (IterPref, later Target-DPO).
//!
//! Source: Wu et al. 2025, arXiv:2503.02783, and the authors' code (JieWu02/Target-DPO).
//! Loss: `−log σ(β·(Σ_t (log π_θ − log π_ref)(y_w,t) − Σ_{t ∈ D} (log π_θ − log π_ref)(y_l,t))) − α·log π_θ(y_w)/|y_w|`
//! where the chosen completion is a program that passes its tests, the rejected one an earlier version that fails, and D are
//! the tokens of the lines that only the rejected one has.
//! Against DPO: what both versions share is not pushed down with the mistake. All weights 1 are DPO with a likelihood term.
//! Departures: none. This is [`dpo`](super::dpo) with [`token_weights`](crate::wrap::token_weights) and
//! [`nll`](crate::wrap::nll) around it; `data.token_weights = "differing_lines"` makes the mask. Identical texts have an
//! empty D, whose sum is 0.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use crate::wrap::nll::Nll;
use crate::wrap::token_weights::WeighTokens;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "iterpref",
    title: "Iterative preference learning with focal masks",
    paper: "arXiv:2503.02783",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::TOKEN_LOGPS).or(Needs::TOKEN_WEIGHTS).or(Needs::LENGTHS),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "alpha",
            doc: "α ≥ 0, tokens per nat: weight of the chosen completion's mean log-probability",
        },
    ],
    defaults: || json!(IterPref::default()),
    build: |options| read_options::<IterPref>("iterpref", options)?.checked(),
};

/// IterPref with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IterPref {
    /// β.
    pub beta: f64,
    /// α.
    pub alpha: f64,
}

impl Default for IterPref {
    fn default() -> Self {
        Self { beta: 0.1, alpha: 1.0 }
    }
}

impl IterPref {
    fn checked(self) -> Result<Objective> {
        require_positive("iterpref", "beta", self.beta)?;
        require_not_negative("iterpref", "alpha", self.alpha)?;
        let focal = WeighTokens {}.around(Arc::new(Dpo { beta: self.beta }))?;
        let nll = Nll { weight: self.alpha, per_token: true };
        Ok(Objective::Pair(Box::new(nll.around(Box::new(focal))?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, loss, of_two_tokens};

    /// The loss with these weights of the rejected completion's two tokens, whose log-ratios are 0 and −1; those of the chosen
    /// one are 2 and 0, and its log-probability is 0.
    fn run(rejected: [f64; 2]) -> f64 {
        let iterpref = built(&SPEC, json!({"beta": 0.5, "alpha": 0.25}));
        loss(&*iterpref, &of_two_tokens([1.0, 1.0], rejected))
    }

    #[test]
    fn hand_arithmetic() {
        assert_near(run([1.0, 1.0]), (-1.5f64).exp().ln_1p());
        // The second token is in a line that both have, or the mistake is in neither.
        assert_near(run([1.0, 0.0]), (-1f64).exp().ln_1p());
        assert_near(run([0.0, 0.0]), (-1f64).exp().ln_1p());
    }
}
