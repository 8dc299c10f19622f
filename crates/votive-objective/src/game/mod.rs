//! Methods that look for the equilibrium of a game between policies: a completion counts by how often it beats others.

pub mod egpo;
pub mod general_preference;
pub mod inpo_nash;
pub mod sppo;
