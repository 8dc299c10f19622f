//! β and τ of the losses that look at the statistics of a batch: several of DiscoPOP's discoveries have both.

use crate::error::Result;
use crate::spec::{OptionDoc, read_options, require_positive};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the options mean.
pub(crate) const OPTIONS: &[OptionDoc] = &[
    OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
    OptionDoc { name: "tau", doc: "τ > 0: what β·h is divided by where the batch's statistics are taken" },
];

/// The options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tempered {
    /// β.
    pub beta: f64,
    /// τ.
    pub tau: f64,
}

impl Default for Tempered {
    fn default() -> Self {
        Self { beta: 0.05, tau: 0.05 }
    }
}

impl Tempered {
    /// Reads the options of the method with this id.
    ///
    /// # Errors
    /// If one is unknown or out of range.
    pub(crate) fn read(id: &'static str, options: Value) -> Result<Self> {
        let read: Self = read_options(id, options)?;
        require_positive(id, "beta", read.beta)?;
        require_positive(id, "tau", read.tau)?;
        Ok(read)
    }
}
