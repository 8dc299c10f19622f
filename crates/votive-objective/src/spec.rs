//! What a row of the registry says about a method, and how options are read.

use crate::contract::{PairObjective, UnpairedObjective};
use crate::error::{ObjectiveError, Result};
use crate::list::contract::ListObjective;
use crate::needs::Needs;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Where a method has been published or checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Language models.
    Text,
    /// Diffusion models.
    Image,
}

impl Domain {
    /// The name in lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
        }
    }
}

/// One row of [`METHODS`](crate::METHODS).
#[derive(Debug)]
pub struct MethodSpec {
    /// Name in recipes and on the command line.
    pub id: &'static str,
    /// Full name.
    pub title: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// Where it has been published or checked.
    pub domains: &'static [Domain],
    /// What it reads besides the policy.
    pub needs: Needs,
    /// What its authors divide the sum of its losses over a batch by; a recipe may say otherwise.
    pub reduction: Reduction,
    /// What each option means; names and defaults come from `defaults`.
    pub options: &'static [OptionDoc],
    /// The default options, as an object.
    pub defaults: fn() -> Value,
    /// Makes the objective from its options.
    pub build: fn(Value) -> Result<Objective>,
}

/// What the sum of an objective's losses over a batch is divided by. Objectives never divide: a batch may come in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// By the number of losses: pairs, or completions that have one.
    Mean,
    /// By nothing.
    Sum,
    /// By the number of tokens of the completions that have a loss.
    Tokens,
}

impl Reduction {
    /// All with their names in recipes.
    pub const NAMES: [(Self, &'static str); 3] =
        [(Self::Mean, Self::Mean.name()), (Self::Sum, Self::Sum.name()), (Self::Tokens, Self::Tokens.name())];

    /// The name in recipes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Sum => "sum",
            Self::Tokens => "tokens",
        }
    }
}

/// What an option means.
#[derive(Debug)]
pub struct OptionDoc {
    /// Name in recipes.
    pub name: &'static str,
    /// One sentence, with the unit and the paper's symbol.
    pub doc: &'static str,
}

/// An objective of either kind.
#[derive(Debug)]
pub enum Objective {
    /// On pairs.
    Pair(Box<dyn PairObjective>),
    /// On labelled single completions.
    Unpaired(Box<dyn UnpairedObjective>),
    /// On lists of completions of one prompt.
    List(Box<dyn ListObjective>),
}

impl Objective {
    /// Whether completions that are not desirable have a loss.
    #[must_use]
    pub fn reads_undesirable(&self) -> bool {
        match self {
            Self::Pair(_) | Self::List(_) => true,
            Self::Unpaired(objective) => objective.reads_undesirable(),
        }
    }

    /// What it reads.
    #[must_use]
    pub fn needs(&self) -> Needs {
        match self {
            Self::Pair(objective) => objective.needs(),
            Self::Unpaired(objective) => objective.needs(),
            Self::List(objective) => objective.needs(),
        }
    }
}

/// Reads a method's options, absent ones at their defaults and unknown ones refused.
pub(crate) fn read_options<T: DeserializeOwned>(id: &'static str, options: Value) -> Result<T> {
    serde_json::from_value(options).map_err(|error| ObjectiveError::Options { id, reason: error.to_string() })
}

/// Refuses an option's value unless it is where its range says.
pub(crate) fn require(
    id: &'static str,
    option: &'static str,
    value: f64,
    is_within: bool,
    range: &'static str,
) -> Result<()> {
    if is_within { Ok(()) } else { Err(ObjectiveError::Range { id, option, value, range }) }
}

/// Refuses an option that is not a finite number above zero.
pub(crate) fn require_positive(id: &'static str, option: &'static str, value: f64) -> Result<()> {
    require(id, option, value, value.is_finite() && value > 0.0, "a finite number above 0")
}

/// Refuses a share of wrong labels that is not in [0, ½): at ½ labels say nothing.
pub(crate) fn require_noise(id: &'static str, option: &'static str, value: f64) -> Result<()> {
    require(id, option, value, (0.0..0.5).contains(&value), "at least 0 and below 0.5")
}

/// Refuses an option that is not a finite number of at least zero.
pub(crate) fn require_not_negative(id: &'static str, option: &'static str, value: f64) -> Result<()> {
    require(id, option, value, value.is_finite() && value >= 0.0, "a finite number of at least 0")
}
