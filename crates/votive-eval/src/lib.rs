//! Evaluation: exact scores of generated texts and images on the playground worlds, whether a change is real, and how far a
//! judge can be trusted.
//!
//! Invariant: nothing here updates a parameter; there is no optimizer and no objective.

mod compare;
mod gain;
pub mod judging;
mod rank;
mod world;

pub use compare::{Comparison, Mean, compare, mean_over_prompts};
pub use gain::{Gain, Share, paired_gain, share};
pub use rank::{RankAccuracy, RankedPair, RewardAccuracy, rank_accuracy, reward_accuracy};
pub use world::{Outcome, by_category, grade_images, grade_texts};
