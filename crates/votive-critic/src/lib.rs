//! Critics: who says which candidate is better, how sure of it, and why; and how far that can be trusted.
//!
//! ```text
//! Question (prompt, candidates) ─▶ Judge ─▶ Judgment (finding, evidence)
//!   Asked = Template (a file) ─ Talk ─▶ Speaker (a language model, local or behind HTTP) ─ words or log-probabilities
//!           ─▶ Reading ─▶ Finding
//!   protocols (both orders, majority, jury, debate, …) are judges around judges
//! ```
//! A question has one candidate (a grade), two (a preference) or more (a ranking). What a judge cannot say becomes an
//! [`Abstention`] with its reason, which is counted, and never a guess. Every question that was put to somebody is kept as
//! [`Evidence`]: the order shown, the template's hash, the raw words, the cost.
//!
//! Invariant: nothing here updates a parameter; there is no objective, no trainer and no model: speakers are given.

mod agreement;
mod asked;
mod candidate;
mod contrast;
mod endpoint;
mod error;
mod group;
mod judge;
mod judgment;
pub mod protocol;
mod question;
mod reading;
mod revision;
mod selection;
mod speaker;
mod store;
mod template;
mod wording;

pub use agreement::cohens_kappa;
pub use asked::Asked;
pub use candidate::{Candidate, MediaType, Picture};
pub use contrast::{Contrast, contrast};
pub use endpoint::{Endpoint, EndpointOptions};
pub use error::{CriticError, Result};
pub use group::{agreement, most_and_least_consistent};
pub use judge::{Forms, Judge};
pub use judgment::{Abstention, Cost, Evidence, Finding, Judgment, Winner};
pub use question::{Form, Question};
pub use reading::{READINGS, Reading};
pub use revision::{Critique, Edit, NotImproved, improvement, revise};
pub use selection::{NoPair, Selected, best_against_worst};
pub use speaker::{Chance, Part, Piece, Role, Said, Sampling, Silence, Speaker, Talk, Turn, Weighed};
pub use store::{Item, Outline, Shown, Store, StoredJudgment};
pub use template::{Rendered, TEMPLATES, Template};
pub use wording::without_marks;
