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
    /// Its dimensions: none of a scalar, the batch, and the tokens behind it.
    pub(crate) rank: usize,
}

const fn input(name: &'static str, need: Needs, doc: &'static str) -> Input {
    Input { name, need, doc, rank: 1 }
}

const fn of_tokens(name: &'static str, need: Needs, doc: &'static str) -> Input {
    Input { name, need, doc, rank: 2 }
}

const REFERENCE_TOKENS: Needs = Needs::REFERENCE.or(Needs::TOKEN_LOGPS);

const PAIR: &[Input] = &[
    input("policy_chosen_logps", Needs::NONE, "(B,) log π_θ(y_w|x), summed over tokens, nats"),
    input("policy_rejected_logps", Needs::NONE, "(B,) log π_θ(y_l|x), summed over tokens, nats"),
    input("reference_chosen_logps", Needs::REFERENCE, "(B,) log π_ref(y_w|x), nats"),
    input("reference_rejected_logps", Needs::REFERENCE, "(B,) log π_ref(y_l|x), nats"),
    input("chosen_lengths", Needs::LENGTHS, "(B,) |y_w|, tokens"),
    input("rejected_lengths", Needs::LENGTHS, "(B,) |y_l|, tokens"),
    input(
        "chosen_alignment",
        Needs::ALIGNMENT,
        "(B,) mean over the tokens of y_w of log π_θ(y_t) − log Σ_v π_θ(v)², nats; carries no gradient",
    ),
    input("rejected_alignment", Needs::ALIGNMENT, "(B,) the same of y_l"),
    input(
        "policy_gold_logps",
        Needs::GOLD,
        "(B,) log π_θ of a third, gold completion, summed over tokens, nats",
    ),
    input("gold_lengths", Needs::GOLD, "(B,) its length, tokens"),
    of_tokens("chosen_token_mask", Needs::TOKENS, "(B, L) 1 on the tokens of y_w, 0 behind its end"),
    of_tokens("rejected_token_mask", Needs::TOKENS, "(B, L) 1 on the tokens of y_l, 0 behind its end"),
    of_tokens("policy_chosen_token_logps", Needs::TOKEN_LOGPS, "(B, L) log π_θ of each token of y_w, nats"),
    of_tokens("policy_rejected_token_logps", Needs::TOKEN_LOGPS, "(B, L) log π_θ of each token of y_l, nats"),
    of_tokens(
        "reference_chosen_token_logps",
        REFERENCE_TOKENS,
        "(B, L) log π_ref of each token of y_w, nats",
    ),
    of_tokens(
        "reference_rejected_token_logps",
        REFERENCE_TOKENS,
        "(B, L) log π_ref of each token of y_l, nats",
    ),
    of_tokens(
        "chosen_token_kl",
        Needs::TOKEN_KL,
        "(B, L) KL(π_ref ‖ π_θ) over the vocabulary at each token of y_w, nats",
    ),
    of_tokens(
        "rejected_token_kl",
        Needs::TOKEN_KL,
        "(B, L) KL(π_ref ‖ π_θ) over the vocabulary at each token of y_l, nats",
    ),
    input(
        "policy_chosen_errors",
        Needs::ERRORS,
        "(B,) L_w, the policy's denoising error, a mean over the latent",
    ),
    input("policy_rejected_errors", Needs::ERRORS, "(B,) L_l, likewise"),
    input("reference_chosen_errors", ERRORS_OF_REFERENCE, "(B,) R_w, the reference's denoising error"),
    input("reference_rejected_errors", ERRORS_OF_REFERENCE, "(B,) R_l, likewise"),
    input(
        "chosen_distances",
        Needs::DISTANCES,
        "(B,) |ε_θ − ε_ref|² of the chosen latents, a mean over each",
    ),
    input("rejected_distances", Needs::DISTANCES, "(B,) the same of the rejected latents"),
    input("margins", Needs::MARGINS, MARGINS),
    input("chosen_scores", Needs::SCORES, "(B,) what y_w was given by whoever judged; no gradient"),
    input("rejected_scores", Needs::SCORES, "(B,) what y_l was given"),
    input("base_chosen_logps", Needs::BASE, "(B,) log π_base(y_w|x), nats, of the first round's start"),
    input("base_rejected_logps", Needs::BASE, "(B,) log π_base(y_l|x), nats"),
    input("uncertainties", Needs::UNCERTAINTIES, "(B,) how unsure each pair's label is, nats; no gradient"),
    input(
        "degree_logps",
        Needs::DEGREES,
        "(B,) log-probability that a degree head gives to how much was taken out of a copy of y_w, nats",
    ),
    input("chosen_values", Needs::VALUES, "(B,) what a value head says of y_w"),
    input("rejected_values", Needs::VALUES, "(B,) what a value head says of y_l"),
    of_tokens(
        "chosen_token_weights",
        Needs::TOKEN_WEIGHTS,
        "(B, L) what each token of y_w counts in the log-ratio, 0 or more",
    ),
    of_tokens("chosen_token_kl_weights", Needs::TOKEN_WEIGHTS, "(B, L) the same in the divergence"),
    of_tokens("rejected_token_weights", Needs::TOKEN_WEIGHTS, "(B, L) the same of y_l in the log-ratio"),
    of_tokens("rejected_token_kl_weights", Needs::TOKEN_WEIGHTS, "(B, L) the same in the divergence"),
];

const REWARDS: &[Input] = &[
    input("policy_chosen_rewards", Needs::REWARDS, "(B,) what the reward model that is trained says of y_w"),
    input("policy_rejected_rewards", Needs::REWARDS, "(B,) what it says of y_l"),
    input("chosen_lengths", Needs::LENGTHS, "(B,) |y_w|, tokens"),
    input("rejected_lengths", Needs::LENGTHS, "(B,) |y_l|, tokens"),
    input("margins", Needs::MARGINS, MARGINS),
];

const MARGINS: &str = "(B,) by how much each pair was preferred, in the scorer's units";

const ERRORS_OF_REFERENCE: Needs = Needs::REFERENCE.or(Needs::ERRORS);

const UNPAIRED: &[Input] = &[
    input("policy_logps", Needs::NONE, "(B,) log π_θ(y|x), summed over tokens, nats"),
    input("labels", Needs::NONE, "(B,) 1 for a desirable completion, 0 for an undesirable one"),
    input("reference_logps", Needs::REFERENCE, "(B,) log π_ref(y|x), nats"),
    input("lengths", Needs::LENGTHS, "(B,) |y|, tokens"),
    Input {
        name: "kl",
        need: Needs::KL,
        doc: "scalar: estimated divergence of policy and reference, nats; carries no gradient",
        rank: 0,
    },
    Input {
        name: "mean_logratio",
        need: Needs::MEAN_LOGRATIO,
        doc: "scalar: running mean of log π_θ − log π_ref, nats; carries no gradient",
        rank: 0,
    },
    input("scores", Needs::SCORES, "(B,) what y was given by whoever judged; no gradient"),
    of_tokens("token_mask", Needs::TOKENS, "(B, L) 1 on the tokens of y, 0 behind its end"),
    of_tokens("policy_token_logps", Needs::TOKEN_LOGPS, "(B, L) log π_θ of each token of y, nats"),
    of_tokens("reference_token_logps", REFERENCE_TOKENS, "(B, L) log π_ref of each token of y, nats"),
    of_tokens(
        "token_kl",
        Needs::TOKEN_KL,
        "(B, L) KL(π_ref ‖ π_θ) over the vocabulary at each token of y, nats",
    ),
];

const LIST: &[Input] = &[
    of_tokens("policy_logps", Needs::NONE, "(B, N) log π_θ of N completions of each prompt, nats"),
    of_tokens("reference_logps", Needs::REFERENCE, "(B, N) log π_ref, nats"),
    of_tokens("scores", Needs::SCORES, "(B, N) what each completion was given, more is better; no gradient"),
    input("draws", Needs::DRAWS, "(B,) a random number from 0 to 1 for each list; no gradient"),
];

const LOSS: (&str, &str) = ("per_pair_loss", "(B,) loss of each pair, not reduced");
const GRADIENT: (&str, &str) =
    ("grad.<input>", "gradient of the sum of the losses by each floating input that was given");

/// Everything that an objective of this kind can be given, in a fixed order.
pub(crate) fn of(objective: &Objective) -> &'static [Input] {
    match objective {
        Objective::Pair(objective) if objective.needs().contains(Needs::REWARDS) => REWARDS,
        Objective::Pair(_) => PAIR,
        Objective::Unpaired(_) => UNPAIRED,
        Objective::List(_) => LIST,
    }
}

/// Name and meaning of what an objective of this kind returns.
pub(crate) fn outputs_of(objective: &Objective) -> &'static [(&'static str, &'static str)] {
    match objective {
        Objective::Pair(objective) if objective.needs().contains(Needs::REWARDS) => &[
            LOSS,
            ("chosen_rewards", "(B,) reward of each chosen completion"),
            ("rejected_rewards", "(B,) reward of each rejected completion"),
            GRADIENT,
        ],
        Objective::Pair(_) => &[
            LOSS,
            ("chosen_rewards", "(B,) implicit reward of each chosen completion"),
            ("rejected_rewards", "(B,) implicit reward of each rejected completion"),
            GRADIENT,
        ],
        Objective::Unpaired(_) => &[
            ("per_pair_loss", "(B,) loss of each completion, not reduced"),
            ("rewards", "(B,) implicit reward of each completion, if the objective implies one"),
            GRADIENT,
        ],
        Objective::List(_) => &[
            ("per_pair_loss", "(B,) loss of each list, not reduced"),
            ("rewards", "(B, N) implicit reward of each completion"),
            GRADIENT,
        ],
    }
}
