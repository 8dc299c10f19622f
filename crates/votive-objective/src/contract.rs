//! What an objective is given, and what it gives back.

use crate::completion::{
    CHOSEN, Completion, Denoised, GOLD, REJECTED, TokenWeights, Tokens, UNPAIRED, require_shape,
};
use crate::error::{ObjectiveError, Result};
use crate::margin::MarginObjective;
use crate::needs::Needs;
use candle_core::Tensor;
use std::fmt;
use std::sync::Arc;

/// Inputs of a pair objective: row i of `chosen` and row i of `rejected` belong to one prompt.
#[derive(Clone, Debug)]
pub struct PairInputs {
    /// The preferred completions.
    pub chosen: Completion,
    /// The others.
    pub rejected: Completion,
    /// A third completion of each prompt, better than both.
    pub gold: Option<Completion>,
    /// By how much each chosen completion was preferred, in the units of whoever scored; `(B,)`.
    pub margins: Option<Tensor>,
    /// How unsure whoever judged was of each pair, nats; `(B,)`.
    pub uncertainties: Option<Tensor>,
    /// How likely a degree head finds how much was taken out of a copy of each pair's chosen completion, nats; `(B,)`.
    pub degree_logps: Option<Tensor>,
}

impl PairInputs {
    /// Pairs without a reference and without lengths.
    #[must_use]
    pub fn new(policy_chosen_logps: Tensor, policy_rejected_logps: Tensor) -> Self {
        Self {
            chosen: Completion::new(&CHOSEN, policy_chosen_logps),
            rejected: Completion::new(&REJECTED, policy_rejected_logps),
            gold: None,
            margins: None,
            uncertainties: None,
            degree_logps: None,
        }
    }

    /// Pairs that a reward model scored. Log-probabilities are not numbers there, so that a loss that reads them all the same does
    /// not go unnoticed.
    ///
    /// # Errors
    /// Those of candle.
    pub fn of_rewards(chosen: Tensor, rejected: Tensor) -> Result<Self> {
        let none = |like: &Tensor| like.detach().affine(0.0, f64::NAN);
        Ok(Self::new(none(&chosen)?, none(&rejected)?).with_rewards(chosen, rejected))
    }

    /// Adds what the reward model that is trained says of each completion.
    #[must_use]
    pub fn with_rewards(mut self, chosen: Tensor, rejected: Tensor) -> Self {
        self.chosen.rewards = Some(chosen);
        self.rejected.rewards = Some(rejected);
        self
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

    /// Adds what a denoiser's predictions give.
    #[must_use]
    pub fn with_denoised(mut self, chosen: Denoised, rejected: Denoised) -> Self {
        self.chosen.denoised = Some(chosen);
        self.rejected.denoised = Some(rejected);
        self
    }

    /// Adds how likely the completions are beside what the policy would write.
    #[must_use]
    pub fn with_alignment(mut self, chosen: Tensor, rejected: Tensor) -> Self {
        self.chosen.alignment = Some(chosen);
        self.rejected.alignment = Some(rejected);
        self
    }

    /// Adds a third completion of each prompt with its lengths.
    #[must_use]
    pub fn with_gold(mut self, policy_logps: Tensor, lengths: Tensor) -> Self {
        let gold = Completion::new(&GOLD, policy_logps);
        self.gold = Some(Completion { lengths: Some(lengths), ..gold });
        self
    }

    /// The third completions.
    ///
    /// # Errors
    /// If they were not given.
    pub fn gold(&self) -> Result<&Completion> {
        self.gold.as_ref().ok_or(ObjectiveError::Missing("policy_gold_logps"))
    }

    /// Adds by how much each chosen completion was preferred.
    #[must_use]
    pub fn with_margins(mut self, margins: Tensor) -> Self {
        self.margins = Some(margins);
        self
    }

    /// Adds an older reference's log-probabilities.
    #[must_use]
    pub fn with_base(mut self, chosen: Tensor, rejected: Tensor) -> Self {
        self.chosen.base_logps = Some(chosen);
        self.rejected.base_logps = Some(rejected);
        self
    }

    /// Adds what whoever judged gave each completion by itself.
    #[must_use]
    pub fn with_scores(mut self, chosen: Tensor, rejected: Tensor) -> Self {
        self.chosen.scores = Some(chosen);
        self.rejected.scores = Some(rejected);
        self
    }

    /// Adds what a value head says of each completion.
    #[must_use]
    pub fn with_values(mut self, chosen: Tensor, rejected: Tensor) -> Self {
        self.chosen.values = Some(chosen);
        self.rejected.values = Some(rejected);
        self
    }

    /// Adds how much each token counts.
    #[must_use]
    pub fn with_token_weights(mut self, chosen: TokenWeights, rejected: TokenWeights) -> Self {
        self.chosen.token_weights = Some(chosen);
        self.rejected.token_weights = Some(rejected);
        self
    }

    /// Adds how unsure whoever judged was of each pair.
    #[must_use]
    pub fn with_uncertainties(mut self, uncertainties: Tensor) -> Self {
        self.uncertainties = Some(uncertainties);
        self
    }

    /// Adds how likely a degree head finds how much was taken out of a copy of each chosen completion.
    #[must_use]
    pub fn with_degree_logps(mut self, logps: Tensor) -> Self {
        self.degree_logps = Some(logps);
        self
    }

    /// How likely a degree head finds how much was taken out of a copy of each chosen completion, `(B,)`, nats.
    ///
    /// # Errors
    /// If it was not given.
    pub fn degree_logps(&self) -> Result<&Tensor> {
        self.degree_logps.as_ref().ok_or(ObjectiveError::Missing("degree_logps"))
    }

    /// How unsure whoever judged was of each pair, `(B,)`, without a gradient.
    ///
    /// # Errors
    /// If it was not given.
    pub fn uncertainties(&self) -> Result<Tensor> {
        self.uncertainties.as_ref().map(Tensor::detach).ok_or(ObjectiveError::Missing("uncertainties"))
    }

    /// By how much each chosen completion was preferred, `(B,)`, without a gradient.
    ///
    /// # Errors
    /// If it was not given.
    pub fn margins(&self) -> Result<Tensor> {
        self.margins.as_ref().map(Tensor::detach).ok_or(ObjectiveError::Missing("margins"))
    }

    /// What the reward model that is trained says of the chosen and of the rejected completions.
    ///
    /// # Errors
    /// If it was not given.
    pub fn rewards(&self) -> Result<[Tensor; 2]> {
        Ok([self.chosen.rewards()?.clone(), self.rejected.rewards()?.clone()])
    }

    /// `log π_θ − log π_ref` of the chosen and of the rejected completions, nats.
    ///
    /// # Errors
    /// If the reference was not given.
    pub fn logratios(&self) -> Result<[Tensor; 2]> {
        Ok([self.chosen.logratio()?, self.rejected.logratio()?])
    }

    /// The same times β: DPO's implicit rewards.
    ///
    /// # Errors
    /// If the reference was not given.
    pub fn implicit_rewards(&self, beta: f64) -> Result<[Tensor; 2]> {
        let [chosen, rejected] = self.logratios()?;
        Ok([(chosen * beta)?, (rejected * beta)?])
    }

    /// The policy's mean log-probability of a token of the chosen and of the rejected completions, nats.
    ///
    /// # Errors
    /// If the lengths were not given.
    pub fn mean_logps(&self) -> Result<[Tensor; 2]> {
        let mean = |side: &Completion| side.per_token(&side.policy_logps);
        Ok([mean(&self.chosen)?, mean(&self.rejected)?])
    }

    /// Checks that everything is `(B,)`, and what is said of tokens `(B, L)`.
    ///
    /// # Errors
    /// If shapes differ.
    pub fn check(&self) -> Result<()> {
        let expected = self.chosen.policy_logps.dims();
        self.chosen.check(expected)?;
        self.rejected.check(expected)?;
        self.gold.iter().try_for_each(|gold| gold.check(expected))?;
        let numbers = [
            ("margins", self.margins.as_ref()),
            ("uncertainties", self.uncertainties.as_ref()),
            ("degree_logps", self.degree_logps.as_ref()),
        ];
        require_shape(expected, 1, &numbers)
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

impl PairLoss {
    /// Losses, and the implicit rewards of both sides, whose gradients are dropped.
    #[must_use]
    pub fn new(per_pair: Tensor, [chosen, rejected]: [Tensor; 2]) -> Self {
        Self { per_pair, chosen_rewards: chosen.detach(), rejected_rewards: rejected.detach() }
    }
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

    /// The same as a loss of a margin, if it is one: what many wrappers need.
    fn of_margin(&self) -> Option<Arc<dyn MarginObjective>> {
        None
    }

    /// Why the wrapper of this name makes no sense around this method, if it makes none.
    fn refuses(&self, _wrapper: &str) -> Option<&'static str> {
        None
    }
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
    /// The running mean of log-ratios, a scalar in nats that carries no gradient.
    pub mean_logratio: Option<Tensor>,
}

impl UnpairedInputs {
    /// Unpaired completions without a reference.
    #[must_use]
    pub fn new(policy_logps: Tensor, labels: Tensor) -> Self {
        Self { completions: Completion::new(&UNPAIRED, policy_logps), labels, kl: None, mean_logratio: None }
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

    /// Adds what a denoiser's predictions give.
    #[must_use]
    pub fn with_denoised(mut self, denoised: Denoised) -> Self {
        self.completions.denoised = Some(denoised);
        self
    }

    /// Adds what whoever judged gave each completion.
    #[must_use]
    pub fn with_scores(mut self, scores: Tensor) -> Self {
        self.completions.scores = Some(scores);
        self
    }

    /// Adds the divergence estimate.
    #[must_use]
    pub fn with_kl(mut self, kl: Tensor) -> Self {
        self.kl = Some(kl);
        self
    }

    /// Adds the running mean of log-ratios.
    #[must_use]
    pub fn with_mean_logratio(mut self, mean: Tensor) -> Self {
        self.mean_logratio = Some(mean);
        self
    }

    /// The running mean of log-ratios.
    ///
    /// # Errors
    /// If it was not given.
    pub fn mean_logratio(&self) -> Result<Tensor> {
        self.mean_logratio.as_ref().map(Tensor::detach).ok_or(ObjectiveError::Missing("mean_logratio"))
    }

    /// 1 for a desirable completion and −1 for an undesirable one, `(B,)`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn signs(&self) -> Result<Tensor> {
        self.by_label(1.0, -1.0)
    }

    /// One number for desirable completions and another for undesirable ones, `(B,)`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn by_label(&self, desirable: f64, undesirable: f64) -> Result<Tensor> {
        Ok(((&self.labels * (desirable - undesirable))? + undesirable)?)
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
        let scalar = |tensor: &Option<Tensor>| tensor.as_ref().map_or_else(Vec::new, |t| t.dims().to_vec());
        let scalars = [("kl", scalar(&self.kl)), ("mean_logratio", scalar(&self.mean_logratio))];
        let scalars = scalars.iter().map(|(name, found)| (*name, &[][..], &**found));
        for (name, expected, found) in
            std::iter::once(("labels", expected, self.labels.dims())).chain(scalars)
        {
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
