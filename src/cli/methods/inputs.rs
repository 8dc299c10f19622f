//! What an objective reads and returns, by the names that files use for it.

use votive_objective::{Needs, Objective};

/// One tensor that an objective can be given.
#[derive(Debug)]
pub(crate) struct Input {
    /// Its name in a file.
    pub(crate) name: &'static str,
    /// The need that calls for it; [`Needs::NONE`] if every objective of the kind reads it.
    pub(crate) need: Needs,
    /// Shape, meaning and unit.
    pub(crate) doc: &'static str,
}

const fn input(name: &'static str, need: Needs, doc: &'static str) -> Input {
    Input { name, need, doc }
}

const PAIR: &[Input] = &[
    input("policy_chosen_logps", Needs::NONE, "(B,) log π_θ(y_w|x), summed over tokens, nats"),
    input("policy_rejected_logps", Needs::NONE, "(B,) log π_θ(y_l|x), summed over tokens, nats"),
    input("reference_chosen_logps", Needs::REFERENCE, "(B,) log π_ref(y_w|x), nats"),
    input("reference_rejected_logps", Needs::REFERENCE, "(B,) log π_ref(y_l|x), nats"),
    input("chosen_lengths", Needs::LENGTHS, "(B,) |y_w|, tokens"),
    input("rejected_lengths", Needs::LENGTHS, "(B,) |y_l|, tokens"),
];

const UNPAIRED: &[Input] = &[
    input("policy_logps", Needs::NONE, "(B,) log π_θ(y|x), summed over tokens, nats"),
    input("labels", Needs::NONE, "(B,) 1 for a desirable completion, 0 for an undesirable one"),
    input("reference_logps", Needs::REFERENCE, "(B,) log π_ref(y|x), nats"),
    input("lengths", Needs::LENGTHS, "(B,) |y|, tokens"),
    input("kl", Needs::KL, "scalar: estimated divergence of policy and reference, nats; carries no gradient"),
];

const LOSS: (&str, &str) = ("per_pair_loss", "(B,) loss of each pair, not reduced");
const GRADIENT: (&str, &str) =
    ("grad.<input>", "gradient of the sum of the losses by each floating input that was given");

/// Everything that an objective of this kind can be given, in a fixed order.
pub(crate) fn of(objective: &Objective) -> &'static [Input] {
    match objective {
        Objective::Pair(_) => PAIR,
        Objective::Unpaired(_) => UNPAIRED,
    }
}

/// Name and meaning of what an objective of this kind returns.
pub(crate) fn outputs_of(objective: &Objective) -> &'static [(&'static str, &'static str)] {
    match objective {
        Objective::Pair(_) => &[
            LOSS,
            ("chosen_rewards", "(B,) implicit reward of each chosen completion"),
            ("rejected_rewards", "(B,) implicit reward of each rejected completion"),
            GRADIENT,
        ],
        Objective::Unpaired(_) => &[
            ("per_pair_loss", "(B,) loss of each completion, not reduced"),
            ("rewards", "(B,) implicit reward of each completion"),
            GRADIENT,
        ],
    }
}
