//! DPO under another divergence (f-DPO).
//!
//! Source: Wang et al. 2023, arXiv:2309.16240, Eq. 5 and Table 1.
//! Loss: `−log σ(β·(f′(t_w) − f′(t_l)))` with `t = π_θ/π_ref`: f′ is `log t` for the reverse KL of DPO, `1 − 1/t` for the forward
//! KL, `log(2t/(1 + t))` for Jensen-Shannon, `(t^(α−1) − 1)/(α − 1)` for the α-divergence.
//! Against DPO: what a ratio is worth does not grow without bound (Jensen-Shannon, forward KL, α < 1), so diversity is kept.
//! Departures: those of [`f_divergence`](crate::wrap::f_divergence), which this is around [`dpo`](super::dpo).
//! Checked against: trl 1.16 with `f_divergence_type`; the α-divergence, which trl rounds to f32, by its formula.

use crate::error::Result;
use crate::needs::Needs;
use crate::pair::dpo::Dpo;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require, require_positive,
};
use crate::wrap::f_divergence::{FDivergence, Kind};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "f_dpo",
    title: "Direct preference optimization under other divergences",
    paper: "arXiv:2309.16240, Eq. 5",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "divergence", doc: "`forward_kl`, `js` or `alpha`" },
        OptionDoc {
            name: "alpha",
            doc: "α, any number: order of the α-divergence; 0 is the forward KL, 1 the reverse",
        },
    ],
    defaults: || json!(FDpo::default()),
    build: |options| read_options::<FDpo>("f_dpo", options)?.checked(),
};

/// FDpo with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FDpo {
    /// β.
    pub beta: f64,
    /// Which divergence.
    pub divergence: Kind,
    /// α.
    pub alpha: f64,
}

impl Default for FDpo {
    fn default() -> Self {
        Self { beta: 0.1, divergence: Kind::Js, alpha: 0.5 }
    }
}

impl FDpo {
    fn checked(self) -> Result<Objective> {
        require_positive("f_dpo", "beta", self.beta)?;
        require("f_dpo", "alpha", self.alpha, self.alpha.is_finite(), "a finite number")?;
        let dpo = Arc::new(Dpo { beta: self.beta });
        let divergence = FDivergence { kind: self.divergence, alpha: self.alpha };
        Ok(Objective::Pair(Box::new(divergence.around(dpo)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, built, logratios, loss};

    #[test]
    fn hand_arithmetic() {
        // Ratios of 2 and 1: f′ is ½, log 4/3, and (2^(1/2) − 1)·2.
        let inputs = logratios(2f64.ln(), 0.0);
        let root = (2f64.sqrt() - 1.0) * 2.0;
        for (divergence, alpha, margin) in [
            ("forward_kl", 9.0, 0.5),
            ("js", 9.0, (4f64 / 3.0).ln()),
            ("alpha", 1.5, root),
            ("alpha", 1.0, 2f64.ln()),
        ] {
            let f_dpo = built(&SPEC, json!({"beta": 1.0, "divergence": divergence, "alpha": alpha}));
            assert_near(loss(&*f_dpo, &inputs), (-margin).exp().ln_1p());
        }
    }
}
