//! Conservative DPO (cDPO): DPO with smoothed labels.
//!
//! Source: Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO".
//! Loss: `−(1 − ε)·log σ(β·h) − ε·log σ(−β·h)` with DPO's margin h in nats.
//! Against DPO: a share ε of the labels is taken to be wrong, so the margin has a finite target, `log((1 − ε)/ε)/β`.
//! Departures: none. This is [`dpo`](super::dpo) with [`label_smoothing`](crate::wrap::label_smoothing) around it.
//! Checked against: the formula, written independently in tools/parity/objectives.py; trl 1.16 has the option and ignores it.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_noise, require_positive,
};
use crate::wrap::label_smoothing::LabelSmoothing;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "cdpo",
    title: "Conservative direct preference optimization",
    paper: "Mitchell 2023, cDPO",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "label_smoothing", doc: "0 ≤ ε < 0.5: share of wrong labels" },
    ],
    defaults: || json!(Cdpo::default()),
    build: |options| read_options::<Cdpo>("cdpo", options)?.checked(),
};

/// Cdpo with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cdpo {
    /// β.
    pub beta: f64,
    /// ε.
    pub label_smoothing: f64,
}

impl Default for Cdpo {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.1 }
    }
}

impl Cdpo {
    fn checked(self) -> Result<Objective> {
        require_positive("cdpo", "beta", self.beta)?;
        require_noise("cdpo", "label_smoothing", self.label_smoothing)?;
        let dpo = Arc::new(Dpo { beta: self.beta });
        let smoothing = LabelSmoothing { epsilon: self.label_smoothing };
        Ok(Objective::Pair(Box::new(smoothing.around(dpo)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, logratios, loss};

    #[test]
    fn hand_arithmetic() {
        let cdpo = built(&SPEC, json!({"beta": 1.0, "label_smoothing": 0.25}));
        let expected = 0.75 * (4f64 / 3.0).ln() + 0.25 * 4f64.ln();
        assert_near(loss(&*cdpo, &logratios(3f64.ln(), 0.0)), expected);
    }
}
