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

    const NAMES: [(Self, &'static str); 3] =
        [(Self::REFERENCE, "REFERENCE"), (Self::LENGTHS, "LENGTHS"), (Self::KL, "KL")];

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
    names: [&'static str; 2],
}

impl Completion {
    const CHOSEN: [&'static str; 2] = ["reference_chosen_logps", "chosen_lengths"];
    const REJECTED: [&'static str; 2] = ["reference_rejected_logps", "rejected_lengths"];
    const UNPAIRED: [&'static str; 2] = ["reference_logps", "lengths"];

    fn new(
        names: [&'static str; 2],
        policy_logps: Tensor,
        reference: Option<Tensor>,
        lengths: Option<Tensor>,
    ) -> Self {
        Self { policy_logps, reference_logps: reference, lengths, names }
    }

    /// `log π_θ − log π_ref`, nats.
    ///
    /// # Errors
    /// If the reference was not given.
    pub fn logratio(&self) -> Result<Tensor> {
        let reference = self.reference_logps.as_ref().ok_or(ObjectiveError::Missing(self.names[0]))?;
        Ok((&self.policy_logps - reference)?)
    }

    /// `values` divided by the completion lengths: nats per token.
    ///
    /// # Errors
    /// If the lengths were not given.
    pub fn per_token(&self, values: &Tensor) -> Result<Tensor> {
        let lengths = self.lengths.as_ref().ok_or(ObjectiveError::Missing(self.names[1]))?;
        Ok((values / lengths)?)
    }

    fn check(&self, expected: &[usize]) -> Result<()> {
        let parts =
            [("policy_logps", Some(&self.policy_logps)), (self.names[0], self.reference_logps.as_ref())];
        for (name, tensor) in parts.into_iter().chain([(self.names[1], self.lengths.as_ref())]) {
            let found = tensor.map_or(expected, Tensor::dims);
            if found != expected || expected.len() != 1 {
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
            chosen: Completion::new(Completion::CHOSEN, policy_chosen_logps, None, None),
            rejected: Completion::new(Completion::REJECTED, policy_rejected_logps, None, None),
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

    /// Checks that everything is `(B,)`: a broadcast would go unnoticed in a loss.
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
        Self {
            completions: Completion::new(Completion::UNPAIRED, policy_logps, None, None),
            labels,
            kl: None,
        }
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

    /// Checks that everything is `(B,)` and the divergence a scalar.
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
    /// Implicit reward of each completion, detached.
    pub rewards: Tensor,
}

/// A loss on single completions with a label.
pub trait UnpairedObjective: fmt::Debug + Send + Sync {
    /// What `evaluate` reads.
    fn needs(&self) -> Needs;

    /// Loss and implicit reward of every completion.
    ///
    /// # Errors
    /// If a declared input is missing or shapes differ.
    fn evaluate(&self, inputs: &UnpairedInputs) -> Result<UnpairedLoss>;
}
