//! Preference-based recursive language modelling for exploratory optimization of reasoning (PRefLexOR), its second phase.
//!
//! Source: Buehler 2024, arXiv:2410.12375, and the author's code: TRL's `exo_pair` on masked completions.
//! Loss: EXO's, `q·(log q − log(1 − ε)) + (1 − q)·(log(1 − q) − log ε)` with `q = σ(β·h)`, where DPO's margin h is over the tokens
//! behind the last end of thinking alone.
//! Against EXO: the thoughts are free. Whatever leads to the better answer may be thought.
//! Departures: none. This is [`exo_pair`](super::exo_pair) with [`token_weights`](crate::wrap::token_weights) around it;
//! `data.token_weights = "after_last"` with `data.marker = "<|/thinking|>"` makes the mask, which keeps completions without
//! a mark whole. The alternative, masking a random share of thoughts, is not here.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::exo_pair::ExoPair;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require, require_positive,
};
use crate::wrap::token_weights::WeighTokens;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "preflexor",
    title: "EXO behind the last thought (PRefLexOR)",
    paper: "arXiv:2410.12375",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::TOKEN_LOGPS).or(Needs::TOKEN_WEIGHTS),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "epsilon",
            doc: "0 < ε < 0.5: share of wrong labels; at 0 the divergence is infinite",
        },
    ],
    defaults: || json!(PRefLexOr::default()),
    build: |options| read_options::<PRefLexOr>("preflexor", options)?.checked(),
};

/// PRefLexOR's loss with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PRefLexOr {
    /// β.
    pub beta: f64,
    /// ε.
    pub epsilon: f64,
}

impl Default for PRefLexOr {
    fn default() -> Self {
        Self { beta: 0.5, epsilon: 5e-3 }
    }
}

impl PRefLexOr {
    fn checked(self) -> Result<Objective> {
        require_positive("preflexor", "beta", self.beta)?;
        let is_within = self.epsilon > 0.0 && self.epsilon < 0.5;
        require("preflexor", "epsilon", self.epsilon, is_within, "above 0 and below 0.5")?;
        let exo = Arc::new(ExoPair { beta: self.beta, epsilon: self.epsilon });
        Ok(Objective::Pair(Box::new(WeighTokens {}.around(exo)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, loss, of_two_tokens};

    #[test]
    fn hand_arithmetic() {
        let run = |chosen, rejected| {
            let preflexor = built(&SPEC, json!({"beta": 3f64.ln(), "epsilon": 0.25}));
            loss(&*preflexor, &of_two_tokens(chosen, rejected))
        };
        // The first tokens are thoughts: behind them h = 0 − (−1), q = ¾ is what the labels say.
        assert_near(run([0.0, 1.0], [0.0, 1.0]), 0.0);
        // Without them h = 2 − 0, q = 9/10.
        let (q, rest): (f64, f64) = (0.9, 0.1);
        assert_near(run([1.0, 0.0], [1.0, 0.0]), q * (q / 0.75).ln() + rest * (rest / 0.25).ln());
    }
}
