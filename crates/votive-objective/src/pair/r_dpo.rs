//! Length-regularised DPO (R-DPO).
//!
//! Source: Park et al. 2024, arXiv:2403.19159, Eq. 9.
//! Loss: `−log σ(β·h + α·(|y_w| − |y_l|))` with DPO's margin h in nats and lengths in tokens.
//! Against DPO: part of why the longer completion was preferred is put down to its length, so the policy learns less of it.
//! Departures: none. This is [`dpo`](super::dpo) with [`length`](crate::wrap::length) around it.
//! Checked against: the formula, written independently in tools/parity/objectives.py.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require, require_positive,
};
use crate::wrap::length::Length;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "r_dpo",
    title: "Length-regularised direct preference optimization",
    paper: "arXiv:2403.19159, Eq. 9",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::LENGTHS),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "alpha",
            doc: "α, any number, per token: what a token counts in the margin; above 0 completions become shorter",
        },
    ],
    defaults: || json!(RDpo::default()),
    build: |options| read_options::<RDpo>("r_dpo", options)?.checked(),
};

/// RDpo with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RDpo {
    /// β.
    pub beta: f64,
    /// α.
    pub alpha: f64,
}

impl Default for RDpo {
    fn default() -> Self {
        Self { beta: 0.1, alpha: 0.01 }
    }
}

impl RDpo {
    fn checked(self) -> Result<Objective> {
        require_positive("r_dpo", "beta", self.beta)?;
        require("r_dpo", "alpha", self.alpha, self.alpha.is_finite(), "a finite number")?;
        let dpo = Arc::new(Dpo { beta: self.beta });
        let length = Length { alpha: self.alpha };
        Ok(Objective::Pair(Box::new(length.around(dpo)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, logratios, loss, row};

    #[test]
    fn hand_arithmetic() {
        let r_dpo = built(&SPEC, json!({"beta": 0.5, "alpha": 0.25}));
        // Half of 2 nats, and a quarter of 8 tokens that the chosen one is shorter.
        let inputs = logratios(2.0, 0.0).with_lengths(row(&[4.0]), row(&[12.0]));
        assert_near(loss(&*r_dpo, &inputs), 1f64.exp().ln_1p());
    }
}
