//! Smoothed preference optimization (SmPO).
//!
//! Source: Lu et al., "Smoothed preference optimization via ReNoise inversion for aligning diffusion models with varied human
//! preferences", ICML 2025; constants as in the authors' code.
//! Loss: `−log σ(β·g·(2p − 1)·h)` with DPO's margin h and the probability p that the chosen one is preferred, by a
//! scorer: `p = σ((score_w − score_l)/range)`, a softmax over scores that were brought to 0 … 1 over `range`.
//! Against DPO: a pair counts by how sure its label is; a tie counts nothing.
//! Departures: the inversion of the paper is a noise policy (`diffusion.noise = "inversion"`), not part of the loss. A negative
//! margin, where the scorer contradicts the label, turns the pair round, as the formula says.
//! Checked against: the formula in tools/parity/objectives.py.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "smpo",
    title: "Smoothed preference optimization",
    paper: "ICML 2025 (Lu et al.), code of SmPO-Diffusion",
    domains: &[Domain::Text, Domain::Image],
    needs: Needs::REFERENCE.or(Needs::MARGINS),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "gain", doc: "g > 0: what 2p − 1 is multiplied by" },
        OptionDoc {
            name: "range",
            doc: "R > 0, in the scorer's units: largest minus smallest score; the default is that of PickScore's cosines",
        },
    ],
    defaults: || json!(SmPo::default()),
    build: |options| read_options::<SmPo>("smpo", options)?.checked(),
};

/// SmPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmPo {
    /// β.
    pub beta: f64,
    /// g.
    pub gain: f64,
    /// Span of the scores.
    pub range: f64,
}

impl Default for SmPo {
    fn default() -> Self {
        Self { beta: 0.1, gain: 10.0, range: 0.166_580_4 }
    }
}

impl SmPo {
    fn checked(self) -> Result<Objective> {
        require_positive("smpo", "beta", self.beta)?;
        require_positive("smpo", "gain", self.gain)?;
        require_positive("smpo", "range", self.range)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for SmPo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let certainty = log_sigmoid(&(inputs.margins()? / self.range)?)?.exp()?;
        let scale = (((certainty * 2.0)? - 1.0)? * self.gain)?;
        let [chosen, rejected] = inputs.implicit_rewards(self.beta)?;
        Ok([(chosen * &scale)?, (rejected * scale)?])
    }

    fn rewards(&self, inputs: &PairInputs, _scores: [Tensor; 2]) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        Ok(log_sigmoid(margin)?.neg()?)
    }

    fn is_likelihood(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::PairObjective;
    use candle_core::Device;

    /// A tie counts nothing, and certainty counts in full.
    #[test]
    fn hand_arithmetic() {
        let t = |x: &[f64]| Tensor::new(x, &Device::Cpu).unwrap();
        let inputs = PairInputs::new(t(&[2.0, 2.0]), t(&[1.0, 1.0]))
            .with_reference(t(&[0.0, 0.0]), t(&[0.0, 0.0]))
            .with_margins(t(&[0.0, 1e3]));
        let loss = SmPo { beta: 0.5, gain: 2.0, range: 1.0 }.evaluate(&inputs).unwrap().per_pair;
        let loss = loss.to_vec1::<f64>().unwrap();
        assert!((loss[0] - 2f64.ln()).abs() < 1e-12 && (loss[1] - (-1f64).exp().ln_1p()).abs() < 1e-12);
    }
}
