//! Length term: what is longer is taken to be preferred a little for its length.
//!
//! Source: Park et al. 2024 (R-DPO), arXiv:2403.19159, Eq. 9.
//! Loss: `ℓ(h + α·(|y_w| − |y_l|))` of a loss ℓ of the margin h: the optimum of a reward `r − α·|y|`.
//! Departures: none. The term is in the units of the method's margin, which are those of DPO's implicit rewards around DPO.

use crate::contract::{PairInputs, PairObjective};
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{OptionDoc, read_options, require};
use crate::wrap::{Around, WrapperSpec};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this wrapper.
pub static SPEC: WrapperSpec = WrapperSpec {
    name: "length",
    title: "Length term: a reward for length is taken out of the preference",
    paper: "arXiv:2403.19159, Eq. 9",
    options: &[OptionDoc {
        name: "alpha",
        doc: "α, any number, per token: what a token counts in the margin; above 0 completions become shorter",
    }],
    defaults: || json!(Length::default()),
    around: Around::Margin(|options, inner| {
        let options: Length = read_options("with.length", options)?;
        Ok(Box::new(options.around(inner)?) as Box<dyn PairObjective>)
    }),
};

/// The option of the length term.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Length {
    /// α.
    pub alpha: f64,
}

impl Default for Length {
    fn default() -> Self {
        Self { alpha: 0.01 }
    }
}

impl Length {
    /// Puts a length term around a loss of a margin.
    ///
    /// # Errors
    /// If α is not a number, or the margin is one of means over tokens.
    pub fn around(self, inner: Arc<dyn MarginObjective>) -> Result<LengthTerm> {
        require("with.length", "alpha", self.alpha, self.alpha.is_finite(), "a finite number")?;
        if inner.needs().contains(Needs::LENGTHS) {
            return Err(
                SPEC.refusal("its scores are divided by lengths, so there is no length in them to take out")
            );
        }
        Ok(LengthTerm { inner, alpha: self.alpha })
    }
}

/// A loss of a margin with a length term.
#[derive(Clone, Debug)]
pub struct LengthTerm {
    inner: Arc<dyn MarginObjective>,
    alpha: f64,
}

impl MarginObjective for LengthTerm {
    fn needs(&self) -> Needs {
        self.inner.needs().or(Needs::LENGTHS)
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let [chosen, rejected] = self.inner.scores(inputs)?;
        let term = |lengths: &Tensor| lengths.detach() * self.alpha;
        Ok([(chosen + term(inputs.chosen.lengths()?)?)?, (rejected + term(inputs.rejected.lengths()?)?)?])
    }

    fn rewards(&self, inputs: &PairInputs, _scores: [Tensor; 2]) -> Result<[Tensor; 2]> {
        self.inner.rewards(inputs, self.inner.scores(inputs)?)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        self.inner.loss(margin)
    }

    fn is_likelihood(&self) -> bool {
        self.inner.is_likelihood()
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        if wrapper == SPEC.name { Some("it has a length term already") } else { self.inner.refuses(wrapper) }
    }
}
