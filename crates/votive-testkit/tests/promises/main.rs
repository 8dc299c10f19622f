//! Each method's promise, on a world whose optimum is known: the minimiser of its own loss over all pairs of completions
//! against the formula.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bandits;
mod exploring;
mod games;
mod lists;
mod population;
mod single;
mod trees;
