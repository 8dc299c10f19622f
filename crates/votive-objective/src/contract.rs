//! What an objective asks for, and what it gives back.

use crate::error::{ObjectiveError, Result};
use candle_core::Tensor;
use std::fmt;

/// What an objective reads besides the policy's log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs(u8);

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

    const NAMES: [(Self, &'static str); 5] = [
        (Self::REFERENCE, "REFERENCE"),
        (Self::LENGTHS, "LENGTHS"),
        (Self::KL, "KL"),
        (Self::TOKEN_LOGPS, "TOKEN_LOGPS"),
        (Self::TOKEN_KL, "TOKEN_KL"),
    ];

    /// Both needs.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
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

/// Numbers of every token of the completions: `(B, L)` with L tokens of the longest.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// 1 on the tokens of each completion and 0 behind its end. Numbers behind the end are finite and mean nothing.
    pub mask: Tensor,
    /// log π_θ(y_t|x, y_<t), nats.
    pub policy_logps: Option<Tensor>,
    /// log π_ref(y_t|x, y_<t), nats.
    pub reference_logps: Option<Tensor>,
    /// KL(π_ref ‖ π_θ) over the vocabulary at each token, nats.
    pub kl: Option<Tensor>,
}

/// The numbers of one side of a pair, or of unpaired completions.
///
/// # Shapes
/// All `(B,)` and of one floating type.
/// # Units
/// Log-probabilities in nats, summed over the completion; for denoisers, minus the weighted denoising error.
#[derive(Clone, Debug)]
pub struct Completion {
    /// log π_θ(y|x).
    pub policy_logps: Tensor,
    /// log π_ref(y|x).
    pub reference_logps: Option<Tensor>,
    /// |y| in tokens; 1 where the log-probability is a mean already.
    pub lengths: Option<Tensor>,
    /// The same, token by token.
    pub tokens: Option<Tokens>,
    names: &'static Names,
}

/// What the inputs of a side are called.
#[derive(Debug)]
struct Names {
    reference: &'static str,
    lengths: &'static str,
    mask: &'static str,
    policy_tokens: &'static str,
    reference_tokens: &'static str,
    token_kl: &'static str,
}

const CHOSEN: Names = Names {
    reference: "reference_chosen_logps",
    lengths: "chosen_lengths",
    mask: "chosen_token_mask",
    policy_tokens: "policy_chosen_token_logps",
    reference_tokens: "reference_chosen_token_logps",
    token_kl: "chosen_token_kl",
};
const REJECTED: Names = Names {
    reference: "reference_rejected_logps",
    lengths: "rejected_lengths",
    mask: "rejected_token_mask",
    policy_tokens: "policy_rejected_token_logps",
    reference_tokens: "reference_rejected_token_logps",
    token_kl: "rejected_token_kl",
};
const UNPAIRED: Names = Names {
    reference: "reference_logps",
    lengths: "lengths",
    mask: "token_mask",
    policy_tokens: "policy_token_logps",
    reference_tokens: "reference_token_logps",
    token_kl: "token_kl",
};

impl Completion {
    fn new(names: &'static Names, policy_logps: Tensor) -> Self {
        Self { policy_logps, reference_logps: None, lengths: None, tokens: None, names }
    }

    /// `log π_θ − log π_ref`, nats.
    ///
    /// # Errors
    /// If the reference was not given.
    pub fn logratio(&self) -> Result<Tensor> {
        let reference = self.reference_logps.as_ref().ok_or(ObjectiveError::Missing(self.names.reference))?;
        Ok((&self.policy_logps - reference)?)
    }

    /// `values` divided by the completion lengths: nats per token.
    ///
    /// # Errors
    /// If the lengths were not given.
    pub fn per_token(&self, values: &Tensor) -> Result<Tensor> {
        let lengths = self.lengths.as_ref().ok_or(ObjectiveError::Missing(self.names.lengths))?;
        Ok((values / lengths)?)
    }

    /// `log π_θ − log π_ref` of every token, `(B, L)`, nats.
    ///
    /// # Errors
    /// If tokens or their reference were not given.
    pub fn token_logratios(&self) -> Result<Tensor> {
        let policy = self.of_tokens(self.names.policy_tokens, |tokens| tokens.policy_logps.as_ref())?;
        let reference =
            self.of_tokens(self.names.reference_tokens, |tokens| tokens.reference_logps.as_ref())?;
        Ok((policy - reference)?)
    }

    /// KL(π_ref ‖ π_θ) over the vocabulary, summed over the tokens of each completion, `(B,)`, nats.
    ///
    /// # Errors
    /// If it was not given.
    pub fn sequence_kl(&self) -> Result<Tensor> {
        self.masked_sum(self.of_tokens(self.names.token_kl, |tokens| tokens.kl.as_ref())?)
    }

    /// Number of tokens of each completion, `(B,)`.
    ///
    /// # Errors
    /// If the mask was not given.
    pub fn token_counts(&self) -> Result<Tensor> {
        Ok(self.mask()?.sum(1)?)
    }

    /// `values (B, L)` summed over the tokens of each completion, `(B,)`.
    ///
    /// # Errors
    /// If the mask was not given.
    pub fn masked_sum(&self, values: &Tensor) -> Result<Tensor> {
        Ok((values * self.mask()?)?.sum(1)?)
    }

    fn mask(&self) -> Result<&Tensor> {
        self.of_tokens(self.names.mask, |tokens| Some(&tokens.mask))
    }

    /// One part of what was given of single tokens.
    fn of_tokens(&self, name: &'static str, part: fn(&Tokens) -> Option<&Tensor>) -> Result<&Tensor> {
        self.tokens.as_ref().and_then(part).ok_or(ObjectiveError::Missing(name))
    }

    fn check(&self, expected: &[usize]) -> Result<()> {
        let given = [
            ("policy_logps", Some(&self.policy_logps)),
            (self.names.reference, self.reference_logps.as_ref()),
            (self.names.lengths, self.lengths.as_ref()),
        ];
        require_shape(expected, 1, &given)?;
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let expected = [expected[0], tokens.mask.dims().last().copied().unwrap_or(0)];
        let given = [
            (self.names.mask, Some(&tokens.mask)),
            (self.names.policy_tokens, tokens.policy_logps.as_ref()),
            (self.names.reference_tokens, tokens.reference_logps.as_ref()),
            (self.names.token_kl, tokens.kl.as_ref()),
        ];
        require_shape(&expected, 2, &given)
    }
}

/// Refuses tensors of another shape or number of dimensions: a broadcast would go unnoticed in a loss.
fn require_shape(expected: &[usize], rank: usize, given: &[(&'static str, Option<&Tensor>)]) -> Result<()> {
    for (name, tensor) in given {
        let found = tensor.map_or(expected, Tensor::dims);
        if found != expected || expected.len() != rank {
            let (expected, found) = (expected.to_vec(), found.to_vec());
            return Err(ObjectiveError::Shape { name, expected, found });
        }
    }
    Ok(())
}

/// Inputs of a pair objective: row i of `chosen` and row i of `rejected` belong to one prompt.
#[derive(Clone, Debug)]
pub struct PairInputs {
    /// The preferred completions.
    pub chosen: Completion,
    /// The others.
    pub rejected: Completion,
}

impl PairInputs {
    /// Pairs without a reference and without lengths.
    #[must_use]
    pub fn new(policy_chosen_logps: Tensor, policy_rejected_logps: Tensor) -> Self {
        Self {
            chosen: Completion::new(&CHOSEN, policy_chosen_logps),
            rejected: Completion::new(&REJECTED, policy_rejected_logps),
        }
    }

    /// Adds the reference's log-probabilities.
    #[must_use]
    pub fn with_reference(mut self, chosen: Tensor, rejected: Tensor) -> Self {
        self.chosen.reference_logps = Some(chosen);
        self.rejected.reference_logps = Some(rejected);
        self
    }

    /// Adds completion lengths.
    #[must_use]
    pub fn with_lengths(mut self, chosen: Tensor, rejected: Tensor) -> Self {
        self.chosen.lengths = Some(chosen);
        self.rejected.lengths = Some(rejected);
        self
    }

    /// Adds what is known of single tokens.
    #[must_use]
    pub fn with_tokens(mut self, chosen: Tokens, rejected: Tokens) -> Self {
        self.chosen.tokens = Some(chosen);
        self.rejected.tokens = Some(rejected);
        self
    }

    /// Checks that everything is `(B,)`, and what is said of tokens `(B, L)`.
    ///
    /// # Errors
    /// If shapes differ.
    pub fn check(&self) -> Result<()> {
        let expected = self.chosen.policy_logps.dims();
        self.chosen.check(expected)?;
        self.rejected.check(expected)
    }
}

/// What a pair objective returns, `(B,)` each, without any reduction.
#[derive(Clone, Debug)]
pub struct PairLoss {
    /// Loss of each pair, with its gradient.
    pub per_pair: Tensor,
    /// Implicit reward of each chosen completion, detached.
    pub chosen_rewards: Tensor,
    /// Implicit reward of each rejected completion, detached.
    pub rejected_rewards: Tensor,
}

/// A loss on pairs of completions.
pub trait PairObjective: fmt::Debug + Send + Sync {
    /// What `evaluate` reads.
    fn needs(&self) -> Needs;

    /// Loss and implicit rewards of every pair.
    ///
    /// # Errors
    /// If a declared input is missing or shapes differ.
    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss>;
}

/// Inputs of an objective on completions that are desirable or not, each by itself.
#[derive(Clone, Debug)]
pub struct UnpairedInputs {
    /// The completions.
    pub completions: Completion,
    /// 1 for a desirable completion, 0 for an undesirable one, `(B,)`.
    pub labels: Tensor,
    /// The divergence estimate, a scalar in nats that carries no gradient.
    pub kl: Option<Tensor>,
}

impl UnpairedInputs {
    /// Unpaired completions without a reference.
    #[must_use]
    pub fn new(policy_logps: Tensor, labels: Tensor) -> Self {
        Self { completions: Completion::new(&UNPAIRED, policy_logps), labels, kl: None }
    }

    /// Adds the reference's log-probabilities.
    #[must_use]
    pub fn with_reference(mut self, logps: Tensor) -> Self {
        self.completions.reference_logps = Some(logps);
        self
    }

    /// Adds completion lengths.
    #[must_use]
    pub fn with_lengths(mut self, lengths: Tensor) -> Self {
        self.completions.lengths = Some(lengths);
        self
    }

    /// Adds what is known of single tokens.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Tokens) -> Self {
        self.completions.tokens = Some(tokens);
        self
    }

    /// Adds the divergence estimate.
    #[must_use]
    pub fn with_kl(mut self, kl: Tensor) -> Self {
        self.kl = Some(kl);
        self
    }

    /// The divergence estimate.
    ///
    /// # Errors
    /// If it was not given.
    pub fn kl(&self) -> Result<Tensor> {
        self.kl.as_ref().map(Tensor::detach).ok_or(ObjectiveError::Missing("kl"))
    }

    /// Checks that everything is `(B,)`, what is said of tokens `(B, L)`, and the divergence a scalar.
    ///
    /// # Errors
    /// If shapes differ.
    pub fn check(&self) -> Result<()> {
        let expected = self.completions.policy_logps.dims();
        self.completions.check(expected)?;
        let kl = self.kl.as_ref().map_or(&[][..], Tensor::dims);
        for (name, expected, found) in [("labels", expected, self.labels.dims()), ("kl", &[][..], kl)] {
            if expected != found {
                return Err(ObjectiveError::Shape {
                    name,
                    expected: expected.to_vec(),
                    found: found.to_vec(),
                });
            }
        }
        Ok(())
    }
}

/// What an unpaired objective returns, `(B,)` each, without any reduction.
#[derive(Clone, Debug)]
pub struct UnpairedLoss {
    /// Loss of each completion, with its gradient.
    pub per_example: Tensor,
    /// Implicit reward of each completion, detached; none if the objective implies none.
    pub rewards: Option<Tensor>,
}

/// A loss on single completions with a label.
pub trait UnpairedObjective: fmt::Debug + Send + Sync {
    /// What `evaluate` reads.
    fn needs(&self) -> Needs;

    /// Whether undesirable completions have a loss; if not, means are over the desirable ones alone.
    fn reads_undesirable(&self) -> bool {
        true
    }

    /// Loss and implicit reward of every completion.
    ///
    /// # Errors
    /// If a declared input is missing or shapes differ.
    fn evaluate(&self, inputs: &UnpairedInputs) -> Result<UnpairedLoss>;
}
