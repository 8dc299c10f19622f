//! Multi-level aware preference learning (MAPL), its level within a sample: one answer under two prompts.
//!
//! Source: Sun et al. 2025, arXiv:2505.12845, with the response-conditioned form of Cai et al. 2025, arXiv:2502.00814.
//! Loss: `−log σ(β·(log π_θ(y|x⁺) − log π_ref(y|x⁺) − log π_θ(y|x⁻) + log π_ref(y|x⁻)))`: y keeps all instructions of the
//! prompt x⁺ and breaks some of x⁻, so x⁺ is the better prompt for it.
//! Against DPO: two prompts and one answer instead of two answers to one prompt; equal prompts are ln 2 and no gradient. The
//! paper trains on ordinary pairs beside it, which DPO's loss counts in the same way.
//! Departures: this is [`dpo`](super::dpo); what is MAPL's is the rows, of the layout `two_prompts`. The paper's second level,
//! which compares the margins of two pairs, is left out, because its loss could not be confirmed, and so are both levels'
//! weights.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "mapl",
    title: "Multi-level aware preference learning, the level within a sample",
    paper: "arXiv:2505.12845",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[OptionDoc {
        name: "beta",
        doc: "β > 0, per nat: strength of the pull to the reference. The paper's loss between samples is left out: its form \
              could not be confirmed",
    }],
    defaults: || json!(Mapl::default()),
    build: |options| read_options::<Mapl>("mapl", options)?.checked(),
};

/// MAPL with its one option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mapl {
    /// β.
    pub beta: f64,
}

impl Default for Mapl {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl Mapl {
    fn checked(self) -> Result<Objective> {
        require_positive("mapl", "beta", self.beta)?;
        Ok(Objective::Pair(Box::new(Dpo { beta: self.beta })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, at, built};

    #[test]
    fn hand_arithmetic() {
        let mapl = built(&SPEC, json!({"beta": 1.0}));
        // The answer has become three times as likely under the prompt whose instructions it keeps.
        let (loss, slopes) = at(&*mapl, 3f64.ln(), 0.0);
        assert_near(loss, (4f64 / 3.0).ln());
        assert_near(slopes[0], -0.25);
        assert_near(slopes[1], 0.25);
        assert_near(at(&*mapl, -2.5, -2.5).0, 2f64.ln());
    }
}
