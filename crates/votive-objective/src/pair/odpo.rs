//! DPO with an offset (ODPO).
//!
//! Source: Amini et al. 2024, arXiv:2402.10571.
//! Loss: `−log σ(β·h − α·f(m))` with DPO's margin h in nats, the difference m of the completions' scores, and f the logarithm or
//! the identity.
//! Against DPO: a pair must be won by the more, the better its chosen completion was scored.
//! Departures: none. This is [`dpo`](super::dpo) with [`margin_offset`](crate::wrap::margin_offset) around it.
//! Checked against: the formula, written independently in tools/parity/objectives.py.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use crate::wrap::margin_offset::{MarginOffset, Of};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "odpo",
    title: "Direct preference optimization with an offset",
    paper: "arXiv:2402.10571",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::MARGINS),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "alpha", doc: "α > 0: weight of the offset" },
        OptionDoc {
            name: "of",
            doc: "what of the difference of scores counts: `log`, for which it must be above 0, or `margin`",
        },
    ],
    defaults: || json!(Odpo::default()),
    build: |options| read_options::<Odpo>("odpo", options)?.checked(),
};

/// Odpo with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Odpo {
    /// β.
    pub beta: f64,
    /// α.
    pub alpha: f64,
    /// f.
    pub of: Of,
}

impl Default for Odpo {
    fn default() -> Self {
        Self { beta: 0.1, alpha: 1.0, of: Of::Log }
    }
}

impl Odpo {
    fn checked(self) -> Result<Objective> {
        require_positive("odpo", "beta", self.beta)?;
        require_positive("odpo", "alpha", self.alpha)?;

        let dpo = Arc::new(Dpo { beta: self.beta });
        let offset = MarginOffset { gamma: 0.0, alpha: self.alpha, of: self.of };
        Ok(Objective::Pair(Box::new(offset.around(dpo)?)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, logratios, loss, row};

    #[test]
    fn hand_arithmetic() {
        let inputs = logratios(4.0, 0.0).with_margins(row(&[9.0]));
        let log = built(&SPEC, json!({"beta": 0.5, "alpha": 0.5, "of": "log"}));
        assert_near(loss(&*log, &inputs), (3f64.ln() - 2.0).exp().ln_1p());
        let margin = built(&SPEC, json!({"beta": 0.5, "alpha": 0.5, "of": "margin"}));
        assert_near(loss(&*margin, &inputs), 2.5f64.exp().ln_1p());
        let unscored = logratios(4.0, 0.0).with_margins(row(&[0.0]));
        assert!(log.evaluate(&unscored).unwrap_err().to_string().contains("above 0"));
    }
}
