//! How far a judge can be trusted: agreement with the truth or with people, calibration, and the biases that judges are known
//! for. Numbers come in, whoever the judge is.

mod agreement;
mod bias;
mod calibration;
mod order;
mod ratings;
mod transitivity;

pub use agreement::{Agreement, Kappa, agreement, cohens_kappa};
pub use bias::{Leaning, SelfPreference, leaning, self_preference};
pub use calibration::{Bin, Calibration, calibration};
pub use order::{OrderEffects, order_effects};
pub use ratings::{Game, Rating, ratings};
pub use transitivity::{Transitivity, transitivity};

/// A verdict on two candidates: whether the first wins, or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The first is better.
    First,
    /// The second is better.
    Second,
    /// Neither is.
    Tie,
}

impl Verdict {
    /// All, in the order of a confusion matrix.
    pub const ALL: [Self; 3] = [Self::First, Self::Second, Self::Tie];

    /// The verdict on the candidates in the other order.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            Self::Tie => Self::Tie,
        }
    }
}
