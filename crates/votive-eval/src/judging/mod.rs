//! How far a judge can be trusted: agreement with the truth or with people, calibration, and the biases that judges are known
//! for. Numbers come in, whoever the judge is.

mod agreement;
mod bias;
mod calibration;
mod injection;
mod order;
mod ratings;
mod transitivity;

pub use agreement::{Agreement, Kappa, agreement};
pub use bias::{Leaning, SelfPreference, leaning, self_preference};
pub use calibration::{Bin, Calibration, calibration};
pub use injection::{Injection, injection};
pub use order::{OrderEffects, order_effects};
pub use ratings::{Game, Rating, ratings};
pub use transitivity::{Transitivity, transitivity};
