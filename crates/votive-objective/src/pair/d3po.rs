//! Direct preference for denoising diffusion policy optimization (D3PO), also the loss of step-aware preference
//! optimization (SPO).
//!
//! Source: Yang et al., arXiv:2311.13231, and Liang et al., arXiv:2406.04314; the bound as in both authors' code.
//! Loss: `−log σ(β·(log r_w − log r_l))` with `r = clamp(π_θ/π_ref, 1 − δ, 1 + δ)`: DPO on the probabilities of single
//! denoising steps, whose ratios are kept near 1.
//! Against DPO: a completion whose ratio has reached the bound gets no further gradient.
//! Departures: D3PO's code writes each side with a label of ±1; a pair has one of each. Images of which none is preferred
//! are not pairs.
//! Checked against: the formula in tools/parity/objectives.py.

use crate::contract::PairInputs;
use crate::error::{ObjectiveError, Result};
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "d3po",
    title: "Direct preference for denoising diffusion policies",
    paper: "arXiv:2311.13231; arXiv:2406.04314",
    domains: &[Domain::Image],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "clip", doc: "0 < δ < 1: how far a ratio counts away from 1" },
    ],
    defaults: || json!(D3po::default()),
    build: |options| read_options::<D3po>("d3po", options)?.checked(),
};

/// D3PO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct D3po {
    /// β.
    pub beta: f64,
    /// δ.
    pub clip: f64,
}

impl Default for D3po {
    fn default() -> Self {
        Self { beta: 0.1, clip: 0.1 }
    }
}

impl D3po {
    fn checked(self) -> Result<Objective> {
        require_positive("d3po", "beta", self.beta)?;
        if !(self.clip > 0.0 && self.clip < 1.0) {
            let (value, range) = (self.clip, "between 0 and 1");
            return Err(ObjectiveError::Range { id: "d3po", option: "clip", value, range });
        }
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for D3po {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let (low, high) = ((1.0 - self.clip).ln(), (1.0 + self.clip).ln());
        let [chosen, rejected] = inputs.logratios()?;
        Ok([(chosen.clamp(low, high)? * self.beta)?, (rejected.clamp(low, high)? * self.beta)?])
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        Ok(log_sigmoid(margin)?.neg()?)
    }

    fn is_likelihood(&self) -> bool {
        true
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        (wrapper == "f_divergence").then_some("its ratios are of single denoising steps and held near 1")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::PairObjective;
    use candle_core::{Device, Var};

    /// Within the bound it is DPO, and beyond it there is no gradient.
    #[test]
    fn hand_arithmetic() {
        let t = |x: &[f64]| Tensor::new(x, &Device::Cpu).unwrap();
        let chosen = Var::from_tensor(&t(&[0.05, 3.0])).unwrap();
        let inputs = PairInputs::new(chosen.as_tensor().clone(), t(&[0.02, 0.0]))
            .with_reference(t(&[0.0; 2]), t(&[0.0; 2]));
        let loss = D3po { beta: 2.0, clip: 0.1 }.evaluate(&inputs).unwrap().per_pair;
        let slopes = loss.sum_all().unwrap().backward().unwrap().remove(&chosen).unwrap();
        let slopes = slopes.to_vec1::<f64>().unwrap();
        let expected = -2.0 / (1.0 + 0.06f64.exp());
        assert!((slopes[0] - expected).abs() < 1e-12 && slopes[1] == 0.0, "{slopes:?}");
        let loss = loss.to_vec1::<f64>().unwrap();
        assert!((loss[1] - (-2.0 * 1.1f64.ln()).exp().ln_1p()).abs() < 1e-12);
    }
}
