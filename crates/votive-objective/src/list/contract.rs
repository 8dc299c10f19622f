//! What an objective on lists is given, and what it gives back.

use crate::completion::require_shape;
use crate::error::{ObjectiveError, Result};
use crate::needs::Needs;
use candle_core::Tensor;
use std::fmt;

/// Inputs of an objective on lists: N completions of each of B prompts, all `(B, N)` unless said.
#[derive(Clone, Debug)]
pub struct ListInputs {
    /// log π_θ(y|x), nats.
    pub policy_logps: Tensor,
    /// log π_ref(y|x), nats.
    pub reference_logps: Option<Tensor>,
    /// What whoever judged gave each completion; more is better.
    pub scores: Option<Tensor>,
    /// A random number from 0 to 1 for each list, `(B,)`, drawn outside.
    pub draws: Option<Tensor>,
}

impl ListInputs {
    /// Lists without a reference and without scores.
    #[must_use]
    pub fn new(policy_logps: Tensor) -> Self {
        Self { policy_logps, reference_logps: None, scores: None, draws: None }
    }

    /// Adds the reference's log-probabilities.
    #[must_use]
    pub fn with_reference(self, logps: Tensor) -> Self {
        Self { reference_logps: Some(logps), ..self }
    }

    /// Adds what each completion was given.
    #[must_use]
    pub fn with_scores(self, scores: Tensor) -> Self {
        Self { scores: Some(scores), ..self }
    }

    /// Adds random numbers.
    #[must_use]
    pub fn with_draws(self, draws: Tensor) -> Self {
        Self { draws: Some(draws), ..self }
    }

    /// `log π_θ − log π_ref`, `(B, N)`, nats.
    ///
    /// # Errors
    /// If the reference was not given.
    pub fn logratios(&self) -> Result<Tensor> {
        let reference = self.reference_logps.as_ref().ok_or(ObjectiveError::Missing("reference_logps"))?;
        Ok((&self.policy_logps - reference)?)
    }

    /// What each completion was given, `(B, N)`, without a gradient.
    ///
    /// # Errors
    /// If it was not given.
    pub fn scores(&self) -> Result<Tensor> {
        self.scores.as_ref().map(Tensor::detach).ok_or(ObjectiveError::Missing("scores"))
    }

    /// A random number for each list, `(B,)`.
    ///
    /// # Errors
    /// If it was not given.
    pub fn draws(&self) -> Result<Tensor> {
        self.draws.as_ref().map(Tensor::detach).ok_or(ObjectiveError::Missing("draws"))
    }

    /// Checks that everything is `(B, N)`, and the draws `(B,)`.
    ///
    /// # Errors
    /// If shapes differ.
    pub fn check(&self) -> Result<()> {
        let expected = self.policy_logps.dims();
        let given = [
            ("policy_logps", Some(&self.policy_logps)),
            ("reference_logps", self.reference_logps.as_ref()),
            ("scores", self.scores.as_ref()),
        ];
        require_shape(expected, 2, &given)?;
        require_shape(&expected[..1], 1, &[("draws", self.draws.as_ref())])
    }
}

/// What an objective on lists returns, without any reduction.
#[derive(Clone, Debug)]
pub struct ListLoss {
    /// Loss of each list, `(B,)`, with its gradient.
    pub per_list: Tensor,
    /// Implicit reward of each completion, `(B, N)`, detached.
    pub rewards: Tensor,
}

/// A loss on lists of completions.
pub trait ListObjective: fmt::Debug + Send + Sync {
    /// What `evaluate` reads.
    fn needs(&self) -> Needs;

    /// Loss of every list, and implicit rewards.
    ///
    /// # Errors
    /// If a declared input is missing or shapes differ.
    fn evaluate(&self, inputs: &ListInputs) -> Result<ListLoss>;
}
