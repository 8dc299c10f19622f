//! Iterative length-regularized direct preference optimization (iLR-DPO).
//!
//! Source: Liu et al. 2024, arXiv:2406.11817.
//! Loss: `−log σ(β·h + α·(|y_w| − |y_l|))` with DPO's margin h.
//! It maximises `r(y) − α·|y|` for the pull β: the minimiser over all pairs is `π ∝ π_ref·exp((r − α·|y|)/β)`. A chosen
//! completion that is the longer one therefore counts as won already by α a token, and is learned from less.
//! Against R-DPO: the same term; here the pairs come from several rounds with the previous round's policy as reference.
//! Departures: none known. This is [`dpo`](super::dpo) with [`length`](crate::wrap::length) around it. The sign is derived from that minimiser and not read from the authors' code.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use crate::wrap::length::Length;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "ilr_dpo",
    title: "Iterative length-regularized direct preference optimization",
    paper: "arXiv:2406.11817",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::LENGTHS),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "alpha", doc: "α ≥ 0, per token: what a token costs in the reward" },
    ],
    defaults: || json!(IlrDpo::default()),
    build: |options| read_options::<IlrDpo>("ilr_dpo", options)?.checked(),
};

/// iLR-DPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IlrDpo {
    /// β.
    pub beta: f64,
    /// α.
    pub alpha: f64,
}

impl Default for IlrDpo {
    fn default() -> Self {
        Self { beta: 0.1, alpha: 0.02 }
    }
}

impl IlrDpo {
    fn checked(self) -> Result<Objective> {
        require_positive("ilr_dpo", "beta", self.beta)?;
        require_not_negative("ilr_dpo", "alpha", self.alpha)?;
        let length = Length { alpha: self.alpha };
        Ok(Objective::Pair(Box::new(length.around(Arc::new(Dpo { beta: self.beta }))?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, pairs, row, with_slopes};

    #[test]
    fn hand_arithmetic() {
        let run = |alpha: f64| {
            let inputs = pairs(&[1.0], &[-1.0]).with_lengths(row(&[30.0]), row(&[20.0]));
            with_slopes(&*built(&SPEC, json!({"beta": 0.5, "alpha": alpha})), &inputs)
        };
        // βh = 1; ten tokens more at α = (ln 3 − 1)/10 make it ln 3.
        let (loss, [slope, _]) = run((3f64.ln() - 1.0) / 10.0);
        assert_near(loss, (4f64 / 3.0).ln());
        assert_near(slope, -0.5 / 4.0);
        let (loss, [without, _]) = run(0.0);
        assert_near(loss, (-1f64).exp().ln_1p());
        assert!(slope > without, "a longer chosen completion is learned from less: {slope}, {without}");
    }
}
