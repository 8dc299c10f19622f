//! Another divergence from the reference than the reverse KL of DPO.
//!
//! Source: Wang et al. 2023 (f-DPO), arXiv:2309.16240, Table 1 and Eq. 5.
//! Loss: that of the method with `f′(π_θ/π_ref)` in the place of the log-ratio u: `1 − e^(−u)` for the forward KL,
//! `log 2 + log σ(u)` for Jensen-Shannon, `(e^((α−1)u) − 1)/(α − 1)` for the α-divergence, which is the log-ratio at α = 1.
//! Only differences of the two sides may be read: what normalises the policy cancels in no other way.
//! Departures: exponents are held at 80, past which f32 has no numbers; there a score has no gradient. Implicit rewards are
//! those of the divergence; trl logs those of the reverse KL.

use crate::completion::Completion;
use crate::contract::{PairInputs, PairObjective};
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{OptionDoc, read_options, require};
use crate::wrap::{Around, WrapperSpec};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::f64::consts::LN_2;
use std::sync::Arc;
use votive_tensor::log_sigmoid;

/// The row of this wrapper.
pub static SPEC: WrapperSpec = WrapperSpec {
    name: "f_divergence",
    title: "Another divergence that holds the policy to the reference",
    paper: "arXiv:2309.16240, Table 1",
    options: &[
        OptionDoc { name: "kind", doc: "the divergence: `forward_kl`, `js` or `alpha`" },
        OptionDoc {
            name: "alpha",
            doc: "α, any number: order of the α-divergence (`alpha`); 0 is the forward KL",
        },
    ],
    defaults: || json!(FDivergence::default()),
    around: Around::Margin(|options, inner| {
        let options: FDivergence = read_options("with.f_divergence", options)?;
        Ok(Box::new(options.around(inner)?) as Box<dyn PairObjective>)
    }),
};

/// The options of the divergence.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FDivergence {
    /// Which one.
    pub kind: Kind,
    /// α.
    pub alpha: f64,
}

/// A divergence of policy and reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// KL(π_ref ‖ π_θ).
    ForwardKl,
    /// Jensen-Shannon.
    Js,
    /// The α-divergence.
    Alpha,
}

impl Default for FDivergence {
    fn default() -> Self {
        Self { kind: Kind::ForwardKl, alpha: 0.5 }
    }
}

/// Largest exponent whose power and its sums f32 holds.
const LARGEST_EXPONENT: f64 = 80.0;

impl FDivergence {
    /// Puts the divergence into a loss of a margin.
    ///
    /// # Errors
    /// If α is not a number, or the margin is not one of log-ratios.
    pub fn around(self, inner: Arc<dyn MarginObjective>) -> Result<WithDivergence> {
        require("with.f_divergence", "alpha", self.alpha, self.alpha.is_finite(), "a finite number")?;
        if !inner.needs().contains(Needs::REFERENCE) {
            return Err(SPEC.refusal("it reads no reference, from which a policy could diverge"));
        }
        if inner.needs().contains(Needs::TOKENS) {
            return Err(SPEC.refusal("it reads single tokens, and a divergence is one of whole completions"));
        }
        Ok(WithDivergence { inner, options: self })
    }

    /// f′ at a log-ratio.
    fn score(&self, logratio: &Tensor) -> Result<Tensor> {
        let order = match self.kind {
            Kind::Js => return Ok((log_sigmoid(logratio)? + LN_2)?),
            Kind::ForwardKl => 0.0,
            Kind::Alpha => self.alpha,
        };
        if order == 1.0 {
            return Ok(logratio.clone());
        }
        let power = (logratio * (order - 1.0))?.minimum(LARGEST_EXPONENT)?.exp()?;
        Ok(((power - 1.0)? / (order - 1.0))?)
    }

    /// A completion whose log-ratio is the score of its own.
    fn scored(&self, side: &Completion) -> Result<Completion> {
        let score = self.score(&side.logratio()?)?;
        let zero = score.zeros_like()?;
        Ok(Completion { policy_logps: score, reference_logps: Some(zero), ..side.clone() })
    }
}

/// A loss of a margin with another divergence.
#[derive(Clone, Debug)]
pub struct WithDivergence {
    inner: Arc<dyn MarginObjective>,
    options: FDivergence,
}

impl WithDivergence {
    fn scored(&self, inputs: &PairInputs) -> Result<PairInputs> {
        let (chosen, rejected) =
            (self.options.scored(&inputs.chosen)?, self.options.scored(&inputs.rejected)?);
        Ok(PairInputs { chosen, rejected, ..inputs.clone() })
    }
}

impl MarginObjective for WithDivergence {
    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        self.inner.scores(&self.scored(inputs)?)
    }

    fn rewards(&self, inputs: &PairInputs, scores: [Tensor; 2]) -> Result<[Tensor; 2]> {
        self.inner.rewards(&self.scored(inputs)?, scores)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        self.inner.loss(margin)
    }

    fn is_likelihood(&self) -> bool {
        self.inner.is_likelihood()
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        if wrapper == SPEC.name { Some("it has a divergence already") } else { self.inner.refuses(wrapper) }
    }
}
