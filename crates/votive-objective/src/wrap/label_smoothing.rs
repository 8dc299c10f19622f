//! Label smoothing: every pair counts a little as if it were labelled the other way.
//!
//! Source: Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO" (cDPO).
//! Loss: `(1 − ε)·ℓ(h) + ε·ℓ(−h)` of a loss ℓ of the margin h.
//! Departures: none.

use crate::contract::{PairInputs, PairObjective};
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{OptionDoc, read_options, require_noise};
use crate::wrap::{Around, WrapperSpec};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this wrapper.
pub static SPEC: WrapperSpec = WrapperSpec {
    name: "label_smoothing",
    title: "Label smoothing: a share of the labels is taken to be wrong",
    paper: "Mitchell 2023, cDPO",
    options: &[OptionDoc { name: "epsilon", doc: "0 ≤ ε < 0.5: share of wrong labels" }],
    defaults: || json!(LabelSmoothing::default()),
    around: Around::Margin(|options, inner| {
        let options: LabelSmoothing = read_options("with.label_smoothing", options)?;
        Ok(Box::new(options.around(inner)?) as Box<dyn PairObjective>)
    }),
};

/// The option of label smoothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelSmoothing {
    /// ε.
    pub epsilon: f64,
}

impl Default for LabelSmoothing {
    fn default() -> Self {
        Self { epsilon: 0.1 }
    }
}

impl LabelSmoothing {
    /// Puts label smoothing around a loss of a margin.
    ///
    /// # Errors
    /// If ε is out of range.
    pub fn around(self, inner: Arc<dyn MarginObjective>) -> Result<Smoothed> {
        require_noise("with.label_smoothing", "epsilon", self.epsilon)?;
        Ok(Smoothed { inner, epsilon: self.epsilon })
    }
}

/// A loss of a margin with smoothed labels.
#[derive(Clone, Debug)]
pub struct Smoothed {
    inner: Arc<dyn MarginObjective>,
    epsilon: f64,
}

/// `(1 − ε)·ℓ(h) + ε·ℓ(−h)`.
pub(crate) fn smoothed(
    margin: &Tensor,
    epsilon: f64,
    loss: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let kept = (loss(margin)? * (1.0 - epsilon))?;
    Ok((kept + (loss(&margin.neg()?)? * epsilon)?)?)
}

impl MarginObjective for Smoothed {
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
        smoothed(margin, self.epsilon, |margin| self.inner.loss(margin))
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        if wrapper == SPEC.name {
            Some("its labels are smoothed already")
        } else {
            self.inner.refuses(wrapper)
        }
    }
}
