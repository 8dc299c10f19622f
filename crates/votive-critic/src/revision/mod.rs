//! Rich feedback to pairs: what a critic says of a candidate becomes an edit, the edited candidate is judged against the
//! original, and a pair to learn from is only what improved.
//!
//! ```text
//! question of one candidate ─ critic (Asked by a template that reads critiques) ─▶ words ─▶ Critique
//!   images: Critique ─ [edit] of the template ─▶ Edit (prompt, negative, strength) ─ editor ─▶ edited image
//!   texts:  words ─ [[revision]] of the template ─ speaker ─▶ revised text
//! (original, edited) ─ judge ─▶ finding ─ improvement ─▶ edited over original, or why not
//! ```
//!
//! # Source
//! RPO, Rich Preference Optimization (Zhao et al., arXiv:2503.11720): a vision language model criticises an image, editing
//! instructions are extracted from the critique, an editor follows them, and the edited image is labelled against the original;
//! the pairs train by Diffusion-DPO. For texts the same loop is critique and revision.
//!
//! # Departures
//! The paper's editor follows instructions. Here it is any Stable Diffusion model: SDEdit from the original, towards its prompt
//! and, by guidance, away from what the critic saw in it. Critique and instruction are one answer, not two. Which rule drops
//! a pair could not be confirmed from the paper's text: here a pair is what the judge finds better in its protocol, with a least
//! probability. Strengths are our own, and the templates say where they are guesses.

mod answer;
mod critique;
mod edit;
mod improvement;

pub use answer::revise;
pub use critique::Critique;
pub use edit::Edit;
pub(crate) use edit::EditRule;
pub use improvement::{NotImproved, improvement};
