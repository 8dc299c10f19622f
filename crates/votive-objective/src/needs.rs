//! What an objective may ask for.

/// What an objective reads besides the policy's log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs(u32);

impl Needs {
    /// Only the policy's log-probabilities.
    pub const NONE: Self = Self(0);
    /// Log-probabilities of the reference.
    pub const REFERENCE: Self = Self(1);
    /// Completion lengths in tokens.
    pub const LENGTHS: Self = Self(2);
    /// An estimate of the divergence of policy and reference on completions that belong to other prompts.
    pub const KL: Self = Self(4);
    /// Which tokens there are: part of every need of single tokens, which only a text can meet.
    pub const TOKENS: Self = Self(8);
    /// Log-probabilities token by token; the reference's too, where there is one.
    pub const TOKEN_LOGPS: Self = Self(8 | 16);
    /// The divergence of policy and reference over the vocabulary, token by token.
    pub const TOKEN_KL: Self = Self(8 | 32);

    /// Denoising errors as they are, before the factor that makes log-probabilities of them: part of every need of what only
    /// a denoiser has.
    pub const ERRORS: Self = Self(64);
    /// How far the policy's predictions are from the reference's.
    pub const DISTANCES: Self = Self(64 | 128);
    /// By how much a completion was preferred, in the units of whoever scored.
    pub const MARGINS: Self = Self(256);
    /// What whoever judged gave each completion by itself: a win rate, a score or an error; the method says which.
    pub const SCORES: Self = Self(1 << 16);
    /// Log-probabilities of an older reference: the model that the first of several rounds started from.
    pub const BASE: Self = Self(1 << 17);
    /// How unsure whoever judged was of each pair.
    pub const UNCERTAINTIES: Self = Self(1 << 18);
    /// How much each token counts, in the log-ratio and in the divergence.
    pub const TOKEN_WEIGHTS: Self = Self(8 | 1 << 20);
    /// What a value head says of each completion.
    pub const VALUES: Self = Self(1 << 21);
    /// What a reward model that is trained says of each completion. The policy is then that model, and has no log-probabilities.
    pub const REWARDS: Self = Self(1 << 23);
    /// How likely a degree head finds how much was taken out of a copy of each chosen completion.
    pub const DEGREES: Self = Self(1 << 24);
    /// A random number for each list, drawn by whoever has random numbers.
    pub const DRAWS: Self = Self(1 << 22);

    /// How likely completions are under the policy beside what it would write: the mean over tokens of `log π_θ(y_t)` minus
    /// the logarithm of its mean probability under the policy itself, which only a text has.
    pub const ALIGNMENT: Self = Self(512);
    /// The policy's log-probability of a third completion of each prompt, which is neither of the pair, with its length.
    pub const GOLD: Self = Self(1024);
    /// The running mean of log-ratios over the completions that were trained on.
    pub const MEAN_LOGRATIO: Self = Self(2048);
    /// All rows of a step at once, because a loss depends on the others'; a step must not be cut into parts.
    pub const WHOLE_BATCH: Self = Self(1 << 19);

    const NAMES: [(Self, &'static str); 20] = [
        (Self::REFERENCE, "REFERENCE"),
        (Self::LENGTHS, "LENGTHS"),
        (Self::KL, "KL"),
        (Self::TOKEN_LOGPS, "TOKEN_LOGPS"),
        (Self::TOKEN_KL, "TOKEN_KL"),
        (Self::ERRORS, "ERRORS"),
        (Self::DISTANCES, "DISTANCES"),
        (Self::MARGINS, "MARGINS"),
        (Self::ALIGNMENT, "ALIGNMENT"),
        (Self::GOLD, "GOLD"),
        (Self::MEAN_LOGRATIO, "MEAN_LOGRATIO"),
        (Self::WHOLE_BATCH, "WHOLE_BATCH"),
        (Self::SCORES, "SCORES"),
        (Self::BASE, "BASE"),
        (Self::UNCERTAINTIES, "UNCERTAINTIES"),
        (Self::TOKEN_WEIGHTS, "TOKEN_WEIGHTS"),
        (Self::VALUES, "VALUES"),
        (Self::DRAWS, "DRAWS"),
        (Self::REWARDS, "REWARDS"),
        (Self::DEGREES, "DEGREES"),
    ];

    /// Both needs.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is left of them without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is needed.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The needs by name, in a fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(need, _)| self.contains(*need)).map(|(_, name)| name)
    }
}
