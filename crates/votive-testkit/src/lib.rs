//! Worlds so small that the best policy of each is known exactly: bandits, games and token trees.
//!
//! A preference method is published with a promise: its minimiser is a certain policy, its rounds end at an equilibrium.
//! In a table the promise can be computed two ways, by minimising the method's own loss over all pairs of completions and
//! by a formula, and the two must agree. `tests/promises` does that; this crate has the formulas. Rewards and
//! log-ratios are in nats, policies are probabilities that add up to 1.
//!
//! Invariant: numbers and the standard library; no tensor, no objective. Only tests depend on it.

pub mod bandit;
pub mod game;
pub mod simplex;
pub mod tree;

pub use bandit::Bandit;
pub use game::Game;
pub use tree::Tree;
