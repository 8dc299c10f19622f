//! β as a distribution: annotators of different decision, of whom only the mean is seen.
//!
//! Source: the mixed-logit form of MixDPO, arXiv:2601.06180, with a log-normal β.
//! Loss: `−log E_s[exp(−ℓ(s·h))]` of a loss ℓ of the margin h that is minus the logarithm of a probability, with s log-normal of
//! mean 1; around DPO this is `−log E[σ(β·s·h)]`. σ = 0 is the method itself.
//! Departures: the paper learns the distribution and samples it; here it is given, and the mean is a sum over 25 fixed
//! points of the normal number behind s, so nothing is random.

use crate::contract::{PairInputs, PairObjective};
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{OptionDoc, read_options, require_not_negative};
use crate::wrap::{Around, WrapperSpec};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this wrapper.
pub static SPEC: WrapperSpec = WrapperSpec {
    name: "beta_distribution",
    title: "β as a log-normal distribution instead of a number",
    paper: "arXiv:2601.06180",
    options: &[OptionDoc {
        name: "sigma",
        doc: "σ ≥ 0: standard deviation of log β; its mean β is the method's own",
    }],
    defaults: || json!(BetaDistribution::default()),
    around: Around::Margin(|options, inner| {
        let options: BetaDistribution = read_options("with.beta_distribution", options)?;
        Ok(Box::new(options.around(inner)?) as Box<dyn PairObjective>)
    }),
};

/// The option of the distribution.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BetaDistribution {
    /// σ.
    pub sigma: f64,
}

impl Default for BetaDistribution {
    fn default() -> Self {
        Self { sigma: 0.5 }
    }
}

/// Points of the standard normal number: −6, −5.5, … 6.
const POINTS: i32 = 12;
const SPACING: f64 = 0.5;

impl BetaDistribution {
    /// Puts the distribution around a loss of a margin.
    ///
    /// # Errors
    /// If σ is out of range, or the loss is not minus the logarithm of a probability.
    pub fn around(self, inner: Arc<dyn MarginObjective>) -> Result<Mixed> {
        require_not_negative("with.beta_distribution", "sigma", self.sigma)?;
        if !inner.is_likelihood() {
            return Err(
                SPEC.refusal("its loss is not minus the logarithm of a probability that could be averaged")
            );
        }
        let density = |point: i32| (-0.5 * (f64::from(point) * SPACING).powi(2)).exp();
        let total: f64 = (-POINTS..=POINTS).map(density).sum();
        let scale = |point: i32| (self.sigma * f64::from(point) * SPACING).exp();
        let mean: f64 = (-POINTS..=POINTS).map(|point| density(point) * scale(point)).sum::<f64>() / total;
        let node = |point| ((density(point) / total).ln(), scale(point) / mean);
        Ok(Mixed { inner, nodes: (-POINTS..=POINTS).map(node).collect() })
    }
}

/// A loss of a margin whose scale is a distribution.
#[derive(Clone, Debug)]
pub struct Mixed {
    inner: Arc<dyn MarginObjective>,
    /// Logarithm of each point's weight, and its s.
    nodes: Vec<(f64, f64)>,
}

impl MarginObjective for Mixed {
    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        self.inner.scores(inputs)
    }

    fn rewards(&self, inputs: &PairInputs, scores: [Tensor; 2]) -> Result<[Tensor; 2]> {
        self.inner.rewards(inputs, scores)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        let term = |(log_weight, scale): &(f64, f64)| -> Result<Tensor> {
            Ok((self.inner.loss(&(margin * *scale)?)?.neg()? + *log_weight)?)
        };
        let terms = Tensor::stack(&self.nodes.iter().map(term).collect::<Result<Vec<_>>>()?, 0)?;
        let largest = terms.max_keepdim(0)?.detach();
        let sum = terms.broadcast_sub(&largest)?.exp()?.sum(0)?.log()?;
        Ok((sum + largest.squeeze(0)?)?.neg()?)
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        self.inner.refuses(wrapper)
    }
}
