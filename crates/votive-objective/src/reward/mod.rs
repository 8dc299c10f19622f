//! Methods that train a reward model on pairs.
//!
//! The policy of such a method is a reward model: a language model with one number for a head, which reads a prompt with a completion
//! and says how good it is. There is no reference, and no log-probability.

pub mod bradley_terry;
pub mod scaled_bradley_terry;

/// Why a wrapper makes no sense around a method of rewards, if it makes none.
pub(crate) fn refuses(wrapper: &str) -> Option<&'static str> {
    match wrapper {
        "token_mask" | "token_weights" => {
            Some("it looks at single tokens, and a reward model says one number of a whole completion")
        }
        "f_divergence" => Some("a reward model is trained without a reference to diverge from"),
        "policy_weight" | "nll" | "gold_nll" => {
            Some("it reads log-probabilities, and a reward model gives none")
        }
        _ => None,
    }
}
