//! Mixed-logit direct preference optimization with a log-normal distribution (MixDPO).
//!
//! Source: arXiv:2601.06180.
//! Loss: `−log E[σ(b·h)]` with DPO's margin h and a log-normal b of mean β: people differ in how strongly a reward difference
//! moves them.
//! Against DPO: a margin that would be certain for β is not for everybody. s = 0 is DPO.
//! Departures: β and s are options and are not learned with the policy. This is [`dpo`](super::dpo) with
//! [`beta_distribution`](crate::wrap::beta_distribution) around it, whose mean is a sum over fixed points where the paper
//! draws 16 random numbers.
//! Not MixDPO of Pang et al. 2026, which sends pairs of small margins to supervised fine-tuning.
//! Checked against: the formula over the same points, written independently in tools/parity/objectives_papers.py.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use crate::wrap::beta_distribution::BetaDistribution;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

const ID: &str = "mixdpo-lognormal";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Mixed-logit DPO, log-normal distribution",
    paper: "arXiv:2601.06180",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: mean of β's distribution" },
        OptionDoc { name: "spread", doc: "s ≥ 0: standard deviation of log β" },
    ],
    defaults: || json!(MixDpo::default()),
    build: |options| read_options::<MixDpo>(ID, options)?.checked(),
};

/// MixDPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixDpo {
    /// β.
    pub beta: f64,
    /// s.
    pub spread: f64,
}

impl Default for MixDpo {
    fn default() -> Self {
        Self { beta: 0.1, spread: 0.5 }
    }
}

impl MixDpo {
    fn checked(self) -> Result<Objective> {
        require_positive(ID, "beta", self.beta)?;
        let distribution = BetaDistribution { sigma: self.spread };
        Ok(Objective::Pair(Box::new(distribution.around(Arc::new(Dpo { beta: self.beta }))?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, at, built};

    #[test]
    fn hand_arithmetic() {
        // At the start nobody prefers anything, and the slope is that of the mean.
        let mixed = |spread: f64| built(&SPEC, json!({"beta": 0.2, "spread": spread}));
        let (loss, [slope, _]) = at(&*mixed(1.0), 0.0, 0.0);
        assert_near(loss, 2f64.ln());
        assert_near(slope, -0.1);
        // Opposite margins have shares that add up to 1.
        let share = |h| (-at(&*mixed(0.8), h, 0.0).0).exp();
        assert_near(share(3.0) + share(-3.0), 1.0);
        // Without spread it is DPO.
        assert_near(at(&*mixed(0.0), 5.0 * 3f64.ln(), 0.0).0, (4f64 / 3.0).ln());
    }
}
