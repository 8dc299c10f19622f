//! The numbers of completions that objectives read.

use crate::error::{ObjectiveError, Result};
use candle_core::Tensor;

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

/// What a denoiser's predictions give for completions that are latents; all `(B,)`, means over a latent's numbers.
#[derive(Clone, Debug)]
pub struct Denoised {
    /// `L = |ε − ε_θ|²`, times the weight of its timestep if there is one.
    pub policy_errors: Tensor,
    /// `R = |ε − ε_ref|²`, likewise.
    pub reference_errors: Option<Tensor>,
    /// `D = |ε_θ − ε_ref|²`, likewise.
    pub distances: Option<Tensor>,
}

/// How much each token counts; `(B, L)` each, 0 or more, and 0 behind the end.
#[derive(Clone, Debug)]
pub struct TokenWeights {
    /// In the log-ratio.
    pub logratio: Tensor,
    /// In the divergence.
    pub kl: Tensor,
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
    /// Mean over tokens of `log π_θ(y_t) − log Σ_v π_θ(v)²`, nats, without a gradient.
    pub alignment: Option<Tensor>,
    /// The same, token by token.
    pub tokens: Option<Tokens>,
    /// What a denoiser's predictions give.
    pub denoised: Option<Denoised>,
    /// log π_base(y|x), of an older reference.
    pub base_logps: Option<Tensor>,
    /// What whoever judged gave each completion by itself.
    pub scores: Option<Tensor>,
    /// What a value head says of each completion.
    pub values: Option<Tensor>,
    /// What a reward model that is trained says of each completion.
    pub rewards: Option<Tensor>,
    /// How much each token counts.
    pub token_weights: Option<TokenWeights>,
    pub(crate) names: &'static Names,
}

/// What the inputs of a side are called.
#[derive(Debug)]
pub(crate) struct Names {
    reference: &'static str,
    lengths: &'static str,
    alignment: &'static str,
    mask: &'static str,
    policy_tokens: &'static str,
    reference_tokens: &'static str,
    token_kl: &'static str,
    policy_errors: &'static str,
    reference_errors: &'static str,
    distances: &'static str,
    base: &'static str,
    scores: &'static str,
    values: &'static str,
    rewards: &'static str,
    token_weights: &'static str,
    token_kl_weights: &'static str,
}

pub(crate) const CHOSEN: Names = Names {
    reference: "reference_chosen_logps",
    lengths: "chosen_lengths",
    alignment: "chosen_alignment",
    mask: "chosen_token_mask",
    policy_tokens: "policy_chosen_token_logps",
    reference_tokens: "reference_chosen_token_logps",
    token_kl: "chosen_token_kl",
    policy_errors: "policy_chosen_errors",
    reference_errors: "reference_chosen_errors",
    distances: "chosen_distances",
    base: "base_chosen_logps",
    scores: "chosen_scores",
    values: "chosen_values",
    rewards: "policy_chosen_rewards",
    token_weights: "chosen_token_weights",
    token_kl_weights: "chosen_token_kl_weights",
};
pub(crate) const REJECTED: Names = Names {
    reference: "reference_rejected_logps",
    lengths: "rejected_lengths",
    alignment: "rejected_alignment",
    mask: "rejected_token_mask",
    policy_tokens: "policy_rejected_token_logps",
    reference_tokens: "reference_rejected_token_logps",
    token_kl: "rejected_token_kl",
    policy_errors: "policy_rejected_errors",
    reference_errors: "reference_rejected_errors",
    distances: "rejected_distances",
    base: "base_rejected_logps",
    scores: "rejected_scores",
    values: "rejected_values",
    rewards: "policy_rejected_rewards",
    token_weights: "rejected_token_weights",
    token_kl_weights: "rejected_token_kl_weights",
};
pub(crate) const UNPAIRED: Names = Names {
    reference: "reference_logps",
    lengths: "lengths",
    alignment: "alignment",
    mask: "token_mask",
    policy_tokens: "policy_token_logps",
    reference_tokens: "reference_token_logps",
    token_kl: "token_kl",
    policy_errors: "policy_errors",
    reference_errors: "reference_errors",
    distances: "distances",
    base: "base_logps",
    scores: "scores",
    values: "values",
    rewards: "policy_rewards",
    token_weights: "token_weights",
    token_kl_weights: "token_kl_weights",
};

pub(crate) const GOLD: Names = Names {
    reference: "reference_gold_logps",
    lengths: "gold_lengths",
    alignment: "gold_alignment",
    mask: "gold_token_mask",
    policy_tokens: "policy_gold_token_logps",
    reference_tokens: "reference_gold_token_logps",
    token_kl: "gold_token_kl",
    policy_errors: "policy_gold_errors",
    reference_errors: "reference_gold_errors",
    distances: "gold_distances",
    base: "base_gold_logps",
    scores: "gold_scores",
    values: "gold_values",
    rewards: "policy_gold_rewards",
    token_weights: "gold_token_weights",
    token_kl_weights: "gold_token_kl_weights",
};

impl Completion {
    pub(crate) fn new(names: &'static Names, policy_logps: Tensor) -> Self {
        Self {
            policy_logps,
            reference_logps: None,
            lengths: None,
            alignment: None,
            tokens: None,
            denoised: None,
            base_logps: None,
            scores: None,
            values: None,
            rewards: None,
            token_weights: None,
            names,
        }
    }

    /// `log π_θ − log π_ref`, nats.
    ///
    /// # Errors
    /// If the reference was not given.
    pub fn logratio(&self) -> Result<Tensor> {
        let reference = self.reference_logps.as_ref().ok_or(ObjectiveError::Missing(self.names.reference))?;
        Ok((&self.policy_logps - reference)?)
    }

    /// |y| in tokens.
    ///
    /// # Errors
    /// If the lengths were not given.
    pub fn lengths(&self) -> Result<&Tensor> {
        self.lengths.as_ref().ok_or(ObjectiveError::Missing(self.names.lengths))
    }

    /// `values` divided by the completion lengths: nats per token.
    ///
    /// # Errors
    /// If the lengths were not given.
    pub fn per_token(&self, values: &Tensor) -> Result<Tensor> {
        Ok((values / self.lengths()?)?)
    }

    /// Mean over tokens of `log π_θ(y_t) − log Σ_v π_θ(v)²`, `(B,)`, nats, without a gradient.
    ///
    /// # Errors
    /// If it was not given.
    pub fn alignment(&self) -> Result<Tensor> {
        self.alignment.as_ref().map(Tensor::detach).ok_or(ObjectiveError::Missing(self.names.alignment))
    }

    /// `log π_θ` of every token, `(B, L)`, nats.
    ///
    /// # Errors
    /// If tokens were not given.
    pub fn policy_token_logps(&self) -> Result<&Tensor> {
        self.of_tokens(self.names.policy_tokens, |tokens| tokens.policy_logps.as_ref())
    }

    /// `log π_ref` of every token, `(B, L)`, nats.
    ///
    /// # Errors
    /// If tokens or their reference were not given.
    pub fn reference_token_logps(&self) -> Result<&Tensor> {
        self.of_tokens(self.names.reference_tokens, |tokens| tokens.reference_logps.as_ref())
    }

    /// `log π_θ − log π_ref` of every token, `(B, L)`, nats.
    ///
    /// # Errors
    /// If tokens or their reference were not given.
    pub fn token_logratios(&self) -> Result<Tensor> {
        Ok((self.policy_token_logps()? - self.reference_token_logps()?)?)
    }

    /// KL(π_ref ‖ π_θ) over the vocabulary, summed over the tokens of each completion, `(B,)`, nats.
    ///
    /// # Errors
    /// If it was not given.
    pub fn sequence_kl(&self) -> Result<Tensor> {
        self.masked_sum(self.token_kl()?)
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

    /// L, the policy's denoising errors, `(B,)`.
    ///
    /// # Errors
    /// If they were not given.
    pub fn policy_errors(&self) -> Result<&Tensor> {
        self.of_denoised(self.names.policy_errors, |denoised| Some(&denoised.policy_errors))
    }

    /// R, the reference's denoising errors, `(B,)`.
    ///
    /// # Errors
    /// If they were not given.
    pub fn reference_errors(&self) -> Result<&Tensor> {
        self.of_denoised(self.names.reference_errors, |denoised| denoised.reference_errors.as_ref())
    }

    /// D, the squared distance of the policy's predictions from the reference's, `(B,)`.
    ///
    /// # Errors
    /// If it was not given.
    pub fn distances(&self) -> Result<&Tensor> {
        self.of_denoised(self.names.distances, |denoised| denoised.distances.as_ref())
    }

    /// `log π_ref − log π_base`, nats.
    ///
    /// # Errors
    /// If one of the two was not given.
    pub fn reference_logratio(&self) -> Result<Tensor> {
        let reference = self.reference_logps.as_ref().ok_or(ObjectiveError::Missing(self.names.reference))?;
        let base = self.base_logps.as_ref().ok_or(ObjectiveError::Missing(self.names.base))?;
        Ok((reference - base)?)
    }

    /// What whoever judged gave each completion, `(B,)`, without a gradient.
    ///
    /// # Errors
    /// If it was not given.
    pub fn scores(&self) -> Result<Tensor> {
        self.scores.as_ref().map(Tensor::detach).ok_or(ObjectiveError::Missing(self.names.scores))
    }

    /// What a value head says of each completion, `(B,)`.
    ///
    /// # Errors
    /// If it was not given.
    pub fn values(&self) -> Result<&Tensor> {
        self.values.as_ref().ok_or(ObjectiveError::Missing(self.names.values))
    }

    /// What the reward model that is trained says of each completion, `(B,)`.
    ///
    /// # Errors
    /// If it was not given.
    pub fn rewards(&self) -> Result<&Tensor> {
        self.rewards.as_ref().ok_or(ObjectiveError::Missing(self.names.rewards))
    }

    /// How much each token counts.
    ///
    /// # Errors
    /// If it was not given.
    pub fn token_weights(&self) -> Result<&TokenWeights> {
        self.token_weights.as_ref().ok_or(ObjectiveError::Missing(self.names.token_weights))
    }

    /// KL(π_ref ‖ π_θ) over the vocabulary at every token, `(B, L)`, nats.
    ///
    /// # Errors
    /// If it was not given.
    pub fn token_kl(&self) -> Result<&Tensor> {
        self.of_tokens(self.names.token_kl, |tokens| tokens.kl.as_ref())
    }

    fn of_denoised(&self, name: &'static str, part: fn(&Denoised) -> Option<&Tensor>) -> Result<&Tensor> {
        self.denoised.as_ref().and_then(part).ok_or(ObjectiveError::Missing(name))
    }

    fn mask(&self) -> Result<&Tensor> {
        self.of_tokens(self.names.mask, |tokens| Some(&tokens.mask))
    }

    /// One part of what was given of single tokens.
    fn of_tokens(&self, name: &'static str, part: fn(&Tokens) -> Option<&Tensor>) -> Result<&Tensor> {
        self.tokens.as_ref().and_then(part).ok_or(ObjectiveError::Missing(name))
    }

    pub(crate) fn check(&self, expected: &[usize]) -> Result<()> {
        let given = [
            (self.names.rewards, self.rewards.as_ref()),
            ("policy_logps", Some(&self.policy_logps)),
            (self.names.reference, self.reference_logps.as_ref()),
            (self.names.lengths, self.lengths.as_ref()),
            (self.names.base, self.base_logps.as_ref()),
            (self.names.scores, self.scores.as_ref()),
            (self.names.values, self.values.as_ref()),
            (self.names.alignment, self.alignment.as_ref()),
        ];
        require_shape(expected, 1, &given)?;
        if let Some(denoised) = &self.denoised {
            let given = [
                (self.names.policy_errors, Some(&denoised.policy_errors)),
                (self.names.reference_errors, denoised.reference_errors.as_ref()),
                (self.names.distances, denoised.distances.as_ref()),
            ];
            require_shape(expected, 1, &given)?;
        }
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let expected = [expected[0], tokens.mask.dims().last().copied().unwrap_or(0)];
        let given = [
            (self.names.mask, Some(&tokens.mask)),
            (self.names.policy_tokens, tokens.policy_logps.as_ref()),
            (self.names.reference_tokens, tokens.reference_logps.as_ref()),
            (self.names.token_kl, tokens.kl.as_ref()),
            (self.names.token_weights, self.token_weights.as_ref().map(|weights| &weights.logratio)),
            (self.names.token_kl_weights, self.token_weights.as_ref().map(|weights| &weights.kl)),
        ];
        require_shape(&expected, 2, &given)
    }
}

/// Refuses tensors of another shape or number of dimensions: a broadcast would go unnoticed in a loss.
pub(crate) fn require_shape(
    expected: &[usize],
    rank: usize,
    given: &[(&'static str, Option<&Tensor>)],
) -> Result<()> {
    for (name, tensor) in given {
        let found = tensor.map_or(expected, Tensor::dims);
        if found != expected || expected.len() != rank {
            let (expected, found) = (expected.to_vec(), found.to_vec());
            return Err(ObjectiveError::Shape { name, expected, found });
        }
    }
    Ok(())
}
