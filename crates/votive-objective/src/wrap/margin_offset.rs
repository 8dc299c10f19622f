//! Margin offset: a pair must be won by more, the more it was preferred.
//!
//! Source: Amini et al. 2024 (ODPO), arXiv:2402.10571, whose offset is α·log of the scores' difference; a constant offset is
//! the γ of Meng et al. 2024, arXiv:2405.14734.
//! Loss: `ℓ(h − γ − α·f(m))` of a loss ℓ of the margin h, with the row's scored margin m and f the identity or log.
//! Departures: none. Offsets are in the units of the method's margin. With log, rows that were not preferred by more than 0
//! are an error.

use crate::contract::{PairInputs, PairObjective};
use crate::error::{ObjectiveError, Result};
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{OptionDoc, read_options, require};
use crate::wrap::{Around, WrapperSpec};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The row of this wrapper.
pub static SPEC: WrapperSpec = WrapperSpec {
    name: "margin_offset",
    title: "Margin offset: a margin that a pair must exceed, the same for all or as the row was scored",
    paper: "arXiv:2402.10571; arXiv:2405.14734",
    options: &[
        OptionDoc { name: "gamma", doc: "γ, any number, in units of the margin: offset of every pair" },
        OptionDoc {
            name: "alpha",
            doc: "α, any number: weight of the scored margin's offset; 0 reads no scores",
        },
        OptionDoc { name: "of", doc: "what of the scored margin counts: `margin` itself or its `log`" },
    ],
    defaults: || json!(MarginOffset::default()),
    around: Around::Margin(|options, inner| {
        let options: MarginOffset = read_options("with.margin_offset", options)?;
        Ok(Box::new(options.around(inner)?) as Box<dyn PairObjective>)
    }),
};

/// The options of the offset.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MarginOffset {
    /// γ.
    pub gamma: f64,
    /// α.
    pub alpha: f64,
    /// f.
    pub of: Of,
}

/// What of a scored margin counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// It itself.
    Margin,
    /// Its logarithm.
    Log,
}

impl Default for MarginOffset {
    fn default() -> Self {
        Self { gamma: 0.0, alpha: 1.0, of: Of::Margin }
    }
}

impl MarginOffset {
    /// Puts an offset around a loss of a margin.
    ///
    /// # Errors
    /// If an option is not a number.
    pub fn around(self, inner: Arc<dyn MarginObjective>) -> Result<Offset> {
        for (option, value) in [("gamma", self.gamma), ("alpha", self.alpha)] {
            require("with.margin_offset", option, value, value.is_finite(), "a finite number")?;
        }
        Ok(Offset { inner, options: self })
    }
}

/// A loss of a margin that must exceed an offset.
#[derive(Clone, Debug)]
pub struct Offset {
    inner: Arc<dyn MarginObjective>,
    options: MarginOffset,
}

impl MarginObjective for Offset {
    fn needs(&self) -> Needs {
        let needs = self.inner.needs();
        if self.options.alpha == 0.0 { needs } else { needs.or(Needs::MARGINS) }
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let MarginOffset { gamma, alpha, of } = self.options;
        let [chosen, rejected] = self.inner.scores(inputs)?;
        let chosen = (chosen - gamma)?;
        if alpha == 0.0 {
            return Ok([chosen, rejected]);
        }
        let margins = inputs.margins()?;
        let counted = match of {
            Of::Margin => margins,
            Of::Log => {
                let least = margins.min_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                if least <= 0.0 {
                    let (name, what) = ("margins", "above 0, because their logarithm is read");
                    return Err(ObjectiveError::Input { name, found: least, what });
                }
                margins.log()?
            }
        };
        Ok([(chosen - (counted * alpha)?)?, rejected])
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
        if wrapper == SPEC.name { Some("it has an offset already") } else { self.inner.refuses(wrapper) }
    }
}
