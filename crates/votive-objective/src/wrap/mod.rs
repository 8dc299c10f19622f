//! Wrappers: changes that are the same whatever pair objective they are made to, one file each.
//!
//! A recipe writes `[objective.<id>.with.<wrapper>]`. What a wrapper makes of an objective is an objective, so several may be
//! given; they go on in the order of [`WRAPPERS`], the first one innermost. A method that is another with a wrapper around it
//! is written as that.

pub mod beta_distribution;
pub mod center_rewards;
pub mod f_divergence;
pub mod gold_nll;
pub mod label_smoothing;
pub mod length;
pub mod margin_offset;
pub mod nll;
pub mod policy_weight;
pub mod token_mask;
pub mod token_weights;

use crate::contract::PairObjective;
use crate::error::{ObjectiveError, Result};
use crate::header::Header;
use crate::margin::MarginObjective;
use crate::spec::{MethodSpec, Objective, OptionDoc};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The key of an objective's options under which its wrappers stand.
pub const WITH: &str = "with";

/// One row of [`WRAPPERS`].
#[derive(Debug)]
pub struct WrapperSpec {
    /// Name in recipes and on the command line.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub title: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// What each option means; names and defaults come from `defaults`.
    pub options: &'static [OptionDoc],
    /// The default options, as an object.
    pub defaults: fn() -> Value,
    /// Puts it around an objective.
    pub around: Around,
}

/// What a wrapper makes of an objective.
pub type Wrapped = Result<Box<dyn PairObjective>>;

/// What a wrapper goes around; it is given its options and the objective.
#[derive(Clone, Copy, Debug)]
pub enum Around {
    /// Losses of a margin.
    Margin(fn(Value, Arc<dyn MarginObjective>) -> Wrapped),
    /// Any pair objective.
    Pair(fn(Value, Box<dyn PairObjective>) -> Wrapped),
}

/// Makes the table, and takes the head of each file along.
macro_rules! wrappers {
    ($(&$file:ident::SPEC),* $(,)?) => {
        /// Every wrapper, in the order in which they go around an objective, the innermost first: those that change what is read of
        /// completions, then the margin, then the loss of the margin, then the loss of the pair.
        pub static WRAPPERS: &[&WrapperSpec] = &[$(&$file::SPEC),*];

        /// The file of each.
        static FILES: &[&str] = &[$(include_str!(concat!(stringify!($file), ".rs"))),*];
    };
}

wrappers![
    &token_mask::SPEC,
    &token_weights::SPEC,
    &f_divergence::SPEC,
    &length::SPEC,
    &margin_offset::SPEC,
    &beta_distribution::SPEC,
    &label_smoothing::SPEC,
    &policy_weight::SPEC,
    &nll::SPEC,
    &gold_nll::SPEC,
    &center_rewards::SPEC,
];

/// Makes an objective from a method's options and, below `with`, its wrappers' options.
///
/// # Errors
/// If an option is unknown or out of range, or a wrapper makes no sense around the method.
pub fn build(spec: &MethodSpec, mut options: Value) -> Result<Objective> {
    let with = options.as_object_mut().and_then(|options| options.remove(WITH));
    let objective = (spec.build)(options)?;
    match with {
        Some(Value::Object(with)) => wrapped(spec.id, objective, with),
        Some(other) => Err(ObjectiveError::Options {
            id: spec.id,
            reason: format!("`{WITH}` is a table of wrappers, not {other}"),
        }),
        None => Ok(objective),
    }
}

fn wrapped(id: &'static str, objective: Objective, mut with: Map<String, Value>) -> Result<Objective> {
    let known = || WRAPPERS.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ");
    if let Some(name) = with.keys().find(|name| WRAPPERS.iter().all(|spec| spec.name != name.as_str())) {
        let reason = format!("unknown wrapper `{name}`; known: {}", known());
        return Err(ObjectiveError::Options { id, reason });
    }
    let mut wrappers = WRAPPERS.iter().filter_map(|spec| Some((spec, with.remove(spec.name)?))).peekable();
    match (objective, wrappers.peek()) {
        (objective, None) => Ok(objective),
        (Objective::Unpaired(_), Some((spec, _))) => {
            Err(spec.refusal("wrappers go around losses of pairs, and this is one of single completions"))
        }
        (Objective::List(_), Some((spec, _))) => {
            Err(spec.refusal("wrappers go around losses of pairs, and this is one of lists"))
        }
        (Objective::Pair(objective), Some(_)) => {
            let put_on = |inner, (spec, options): (&&WrapperSpec, _)| spec.put_around(inner, options);
            Ok(Objective::Pair(wrappers.try_fold(objective, put_on)?))
        }
    }
}

impl WrapperSpec {
    /// What the head of its file says.
    #[must_use]
    pub fn header(&self) -> Header {
        let place = WRAPPERS.iter().position(|spec| spec.name == self.name);
        Header::of(place.and_then(|place| FILES.get(place)).copied().unwrap_or_default())
    }

    fn put_around(&self, inner: Box<dyn PairObjective>, options: Value) -> Wrapped {
        if let Some(reason) = inner.refuses(self.name) {
            return Err(self.refusal(reason));
        }
        match self.around {
            Around::Pair(around) => around(options, inner),
            Around::Margin(around) => {
                let inner = inner.of_margin().ok_or_else(|| {
                    self.refusal(
                        "its loss is not one of a margin alone: it looks at completions by themselves",
                    )
                })?;
                around(options, inner)
            }
        }
    }

    fn refusal(&self, reason: &'static str) -> ObjectiveError {
        ObjectiveError::Refused { wrapper: self.name, reason }
    }
}
