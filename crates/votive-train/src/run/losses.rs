//! From the likelihoods of some of a step's rows to their part of its loss, term by term.

use super::Run;
use super::sums::Sums;
use crate::error::{Result, TrainError};
use crate::front_end::{FrontEnd, Likelihood, Networks, Sample, TokenLikelihood};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;
use votive_objective::{
    CompletionFacts, Denoised, Needs, Objective, PairInputs, Term, TokenWeights, Tokens, UnpairedInputs,
};
use votive_tensor::segment::Recorder;

/// Some rows of a step with what policy and reference make of them.
pub(super) struct Micro<'a, B> {
    pub(super) step: u64,
    pub(super) samples: &'a [Sample],
    pub(super) batch: B,
    pub(super) policy: Likelihood,
    pub(super) reference: Option<Likelihood>,
    /// Log-probabilities of the rows' gold completions and their lengths, if they are read.
    pub(super) gold: Option<(Tensor, Vec<f64>)>,
    /// Tokens of the gold completions and their prompts.
    pub(super) gold_tokens: usize,
    /// Log-probabilities of every sequence under the base, `(R,)`.
    pub(super) base: Option<Tensor>,
    /// The divergence estimate of the whole step.
    pub(super) kl: Option<f64>,
}

/// What a term gave: a loss for each row or completion, and implicit rewards if it implies any.
struct Evaluated {
    losses: Tensor,
    rewards: Option<Rewards>,
}

/// Implicit rewards.
pub(super) enum Rewards {
    /// Of the two sides of each pair.
    Pairs(Tensor, Tensor),
    /// Of the desirable completions, and of the others.
    Labelled(Tensor, Tensor),
}

impl<F: FrontEnd> Run<'_, F> {
    /// What each term's losses are divided by, over all rows of a step.
    pub(super) fn denominators(&self, samples: &[Sample]) -> Vec<f64> {
        let rows = self.completions(samples);
        self.plan.objective.terms().iter().map(|term| term.denominator(&rows)).collect()
    }

    /// What policy and reference make of some rows as they are at step `drawn_at`.
    pub(super) fn micro<'a>(
        &self,
        policy: &F::Network,
        (step, drawn_at): (u64, u64),
        samples: &'a [Sample],
        kl: Option<f64>,
        segments: Option<&Recorder>,
    ) -> Result<Micro<'a, F::Batch>> {
        let batch = self.batch(drawn_at, samples)?;
        // What no objective reads may be left out of the recipe, and must not change what is logged. Reference and base come
        // first, while what the policy keeps for the backward is not in memory yet.
        let reads_reference = self.plan.objective.needs().contains(Needs::REFERENCE);
        let reference = match reads_reference {
            true => self.reference.likelihood(self.front, samples, &batch, self.device())?,
            false => None,
        };
        let base = self.base.as_ref().map(|base| self.front.logps(base, &batch)).transpose()?;
        let base = base.map(|logps| logps.detach());
        let golds = match self.plan.objective.needs().contains(Needs::GOLD) {
            true => self.front.gold_batch(samples)?,
            false => None,
        };
        let gold_tokens = golds.as_ref().map_or(0, |(golds, _)| self.front.tokens(golds));
        let gold = golds.map(|(golds, lengths)| -> Result<_> {
            Ok((self.front.likelihood(policy, &golds, segments)?.logps, lengths))
        });
        let gold = gold.transpose()?;
        let policy = self.front.likelihood(policy, &batch, segments)?;
        let quantity = if self.gives_rewards() { "reward" } else { "log-probability" };
        self.require_finite(step, quantity, &policy.logps, samples)?;
        Ok(Micro { step, samples, batch, policy, reference, gold, gold_tokens, base, kl })
    }

    /// Whether the policy is a reward model.
    fn gives_rewards(&self) -> bool {
        self.plan.objective.needs().contains(Needs::REWARDS)
    }

    /// Some rows as they are at a step, with what the networks of the moment have to say about them.
    pub(super) fn batch(&self, drawn_at: u64, samples: &[Sample]) -> Result<F::Batch> {
        self.completed(self.front.batch(drawn_at, samples)?, drawn_at, samples)
    }

    /// A batch with what the networks of the moment have to say about it.
    pub(super) fn completed(&self, batch: F::Batch, drawn_at: u64, samples: &[Sample]) -> Result<F::Batch> {
        if !self.front.asks_networks() {
            return Ok(batch);
        }
        let policy = self.front.network(&self.params.untracked()?)?;
        let networks = Networks { policy: &policy, reference: self.reference.network() };
        self.front.complete((drawn_at, samples), batch, networks)
    }

    fn completions(&self, samples: &[Sample]) -> Vec<Vec<CompletionFacts>> {
        samples.iter().map(|sample| self.front.completions(sample.row)).collect()
    }

    /// The part of a step's loss that some of its rows make, a scalar; what is logged of them goes to `sums`.
    pub(super) fn loss(
        &self,
        micro: &Micro<F::Batch>,
        denominators: &[f64],
        sums: &mut Sums,
    ) -> Result<Tensor> {
        let inputs = Inputs::new(self, micro)?;
        sums.add_likelihoods(micro, &inputs, self.front.tokens(&micro.batch) + micro.gold_tokens)?;
        sums.add_measures(self.front.measures(&micro.batch, &micro.policy)?);
        let parts = self.front.parts(&micro.batch);
        if let Some(reference) = &micro.reference {
            sums.add_log_ratios(&micro.policy.logps, &reference.logps, &inputs.lengths)?;
        }
        let (mut total, mut rewards) = (None, None);
        let terms = self.plan.objective.terms();
        for (term, denominator) in terms.iter().zip(denominators).filter(|(_, rows)| **rows > 0.0) {
            let Evaluated { losses, rewards: implied } = inputs.evaluate(term)?;
            self.require_finite(micro.step, "loss", &losses, micro.samples)?;
            let losses = self.weighted(&losses, micro.samples)?;
            let mean = (losses.sum_all()? / *denominator)?;
            let part = (mean * term.weight)?;
            sums.add_term(term.spec.id, &part, terms.len())?;
            // Several rewards would have no common scale: the first counts.
            rewards = rewards.or(implied);
            total = Some(match total {
                Some(total) => (part + total)?,
                None => part,
            });
        }
        rewards.iter().try_for_each(|rewards| sums.add_rewards(rewards, parts.as_deref()))?;
        Ok(total.map_or_else(|| Tensor::zeros((), DType::F32, self.device()), Ok)?)
    }

    /// Losses times the weights of their rows.
    fn weighted(&self, losses: &Tensor, samples: &[Sample]) -> Result<Tensor> {
        let weights: Vec<f64> = samples.iter().map(|sample| self.front.weight(sample.row)).collect();
        if weights.iter().all(|weight| *weight == 1.0) {
            return Ok(losses.clone());
        }
        // Both sides of a pair that count as single completions have the weight of their row.
        let weights = weights.repeat(losses.elem_count() / samples.len());
        Ok((losses * Tensor::new(weights, losses.device())?.to_dtype(losses.dtype())?)?)
    }
}

/// Numbers of a batch's sequences, from which the inputs of any objective are made.
pub(super) struct Inputs<'a> {
    policy: &'a Likelihood,
    reference: Option<&'a Likelihood>,
    lengths: Tensor,
    /// Whether each sequence is chosen, or labelled desirable.
    pub(super) labels: Vec<bool>,
    /// Whether sequence i and sequence i + B belong to one prompt.
    is_paired: bool,
    /// Whether what the policy says of them are a reward model's rewards.
    pub(super) of_rewards: bool,
    kl: Option<f64>,
    /// The mean of log-ratios over the completions of the steps before.
    mean_logratio: f64,
    gold: Option<&'a (Tensor, Vec<f64>)>,
    /// By how much each pair's chosen completion was preferred, if the data says so of all.
    margins: Option<Vec<f32>>,
    /// KL(reference ‖ policy) over the vocabulary at every trained token, `(N,)`, if a term needs it.
    token_kl: Option<Tensor>,
    /// Log-probabilities under the base, `(R,)`.
    base: Option<&'a Tensor>,
    /// What each completion was given, as the sequences lie in the batch, if the data says so of all.
    scores: Option<Vec<f32>>,
    /// How unsure each row's label is, if the data says so of all.
    uncertainties: Option<Vec<f32>>,
    /// How much every trained token counts, if a term reads it and the rows themselves say so.
    token_weights: Option<Vec<f32>>,
}

impl<'a> Inputs<'a> {
    fn new<F: FrontEnd>(run: &Run<F>, micro: &'a Micro<F::Batch>) -> Result<Self> {
        let reference = micro.reference.as_ref();
        let needs_kl = run.plan.objective.needs().contains(Needs::TOKEN_KL);
        let tokens = |likelihood: Option<&'a Likelihood>| likelihood.and_then(|found| found.tokens.as_ref());
        let token_kl = match (tokens(Some(&micro.policy)), tokens(reference)) {
            (Some(policy), Some(reference)) if needs_kl => {
                Some(policy.head.divergence_from(&reference.head)?)
            }
            _ => None,
        };
        let facts = run.front.facts(micro.samples);
        let sides = facts.len() / micro.samples.len().max(1);
        let (lengths, labels): (Vec<f32>, _) =
            facts.into_iter().map(|one| (one.tokens as f32, one.is_desirable)).unzip();
        let lengths = Tensor::new(lengths, run.device())?.to_dtype(micro.policy.logps.dtype())?;
        let (policy, kl) = (&micro.policy, micro.kl);
        let margins = micro.samples.iter().map(|sample| Some(run.front.margin(sample.row)? as f32)).collect();
        let scores: Option<Vec<_>> =
            micro.samples.iter().map(|sample| run.front.scores(sample.row)).collect();
        let scores = scores
            .map(|rows| (0..sides).flat_map(|side| rows.iter().map(move |row| row[side] as f32)).collect());
        let unsure = |sample: &Sample| Some(run.front.uncertainty(sample.row)? as f32);
        let uncertainties = micro.samples.iter().map(unsure).collect();
        let reads_weights = run.plan.objective.needs().contains(Needs::TOKEN_WEIGHTS);
        let token_weights = if reads_weights { weights_of_rows(run.front, micro.samples)? } else { None };
        Ok(Self {
            policy,
            reference,
            lengths,
            labels,
            is_paired: sides == 2,
            of_rewards: run.gives_rewards(),
            kl,
            mean_logratio: run.log_ratios.mean(),
            gold: micro.gold.as_ref(),
            margins,
            token_kl,
            base: micro.base.as_ref(),
            scores,
            uncertainties,
            token_weights,
        })
    }

    fn evaluate(&self, term: &Term) -> Result<Evaluated> {
        match (&term.objective, self.is_paired) {
            (Objective::Pair(objective), true) => {
                let loss = objective.evaluate(&self.pairs(objective.needs())?)?;
                let rewards = Rewards::Pairs(loss.chosen_rewards, loss.rejected_rewards);
                Ok(Evaluated { losses: loss.per_pair, rewards: Some(rewards) })
            }
            (Objective::Pair(_), false) => Err(TrainError::Plan(format!(
                "`{}` compares pairs, but the data has single completions with labels",
                term.spec.id
            ))),
            (Objective::List(_), _) => Err(TrainError::Plan(format!(
                "`{}` compares lists of completions, which rows of data do not become yet",
                term.spec.id
            ))),
            (Objective::Unpaired(objective), _) => {
                let loss = objective.evaluate(&self.unpaired(objective.needs())?)?;
                let rewards = loss.rewards.map(|rewards| self.by_label(&rewards)).transpose()?;
                Ok(Evaluated { losses: loss.per_example, rewards })
            }
        }
    }

    fn pairs(&self, needs: Needs) -> Result<PairInputs> {
        let (chosen, rejected) = halves(&self.policy.logps)?;
        let mut inputs = match self.of_rewards {
            true => PairInputs::of_rewards(chosen, rejected)?,
            false => PairInputs::new(chosen, rejected),
        };
        if let Some(reference) = self.reference {
            let (chosen, rejected) = halves(&reference.logps)?;
            inputs = inputs.with_reference(chosen, rejected);
        }
        let (chosen, rejected) = halves(&self.lengths)?;
        inputs = inputs.with_lengths(chosen, rejected);
        let sequences = self.policy.logps.elem_count();
        let sides = [0..sequences / 2, sequences / 2..sequences].map(|side| self.tokens(needs, side));
        if let [Some(chosen), Some(rejected)] = sides {
            inputs = inputs.with_tokens(chosen?, rejected?);
        }
        if let [Some(chosen), Some(rejected)] = [0, 1].map(|side| self.denoised(needs, side)) {
            inputs = inputs.with_denoised(chosen?, rejected?);
        }
        if let Some((logps, lengths)) = self.gold {
            let lengths = lengths.iter().map(|length| *length as f32).collect();
            inputs = inputs.with_gold(logps.clone(), self.like_logps(lengths)?);
        }
        if let Some(alignment) = self.alignment(needs) {
            let (chosen, rejected) = halves(&alignment?)?;
            inputs = inputs.with_alignment(chosen, rejected);
        }
        if let Some(margins) = &self.margins {
            inputs = inputs.with_margins(self.like_logps(margins.clone())?);
        }
        if let Some(base) = self.base {
            let (chosen, rejected) = halves(base)?;
            inputs = inputs.with_base(chosen, rejected);
        }
        if let Some(scores) = &self.scores {
            let (chosen, rejected) = halves(&self.like_logps(scores.clone())?)?;
            inputs = inputs.with_scores(chosen, rejected);
        }
        if let Some(uncertainties) = &self.uncertainties {
            inputs = inputs.with_uncertainties(self.like_logps(uncertainties.clone())?);
        }
        if needs.contains(Needs::TOKEN_WEIGHTS) {
            let sides = [0..sequences / 2, sequences / 2..sequences].map(|side| self.token_weights(side));
            if let [Some(chosen), Some(rejected)] = sides {
                inputs = inputs.with_token_weights(chosen?, rejected?);
            }
        }
        Ok(inputs)
    }

    fn unpaired(&self, needs: Needs) -> Result<UnpairedInputs> {
        let device = self.lengths.device();
        let labels: Vec<f32> = self.labels.iter().map(|label| f32::from(u8::from(*label))).collect();
        let sequences = labels.len();
        let mut inputs = UnpairedInputs::new(self.policy.logps.clone(), self.like_logps(labels)?);
        if let Some(reference) = self.reference {
            inputs = inputs.with_reference(reference.logps.clone());
        }
        if let Some(kl) = self.kl {
            inputs = inputs.with_kl(Tensor::new(kl, device)?.to_dtype(self.policy.logps.dtype())?);
        }
        let mean = Tensor::new(self.mean_logratio, device)?.to_dtype(self.policy.logps.dtype())?;
        inputs = inputs.with_mean_logratio(mean);
        if let Some(tokens) = self.tokens(needs, 0..sequences) {
            inputs = inputs.with_tokens(tokens?);
        }
        if let Some(scores) = &self.scores {
            inputs = inputs.with_scores(self.like_logps(scores.clone())?);
        }
        Ok(inputs.with_lengths(self.lengths.clone()))
    }

    /// How likely each completion is beside what the policy would write, if it is needed.
    fn alignment(&self, needs: Needs) -> Option<Result<Tensor>> {
        let tokens = self.policy.tokens.as_ref().filter(|_| needs.contains(Needs::ALIGNMENT))?;
        let all = || -> Result<Tensor> {
            let aligned = (tokens.scores.log_probs()?.detach() - tokens.scores.log_collisions()?)?;
            let sequence = |(row, count): (usize, &usize)| std::iter::repeat_n(row as u32, *count);
            let rows: Vec<u32> = tokens.counts.iter().enumerate().flat_map(sequence).collect();
            let zeros = self.policy.logps.zeros_like()?.detach();
            let sums = zeros.index_add(&Tensor::new(rows, zeros.device())?, &aligned, 0)?;
            Ok((sums / &self.lengths)?)
        };
        Some(all())
    }

    /// Numbers of completions in the type of their log-probabilities.
    fn like_logps(&self, numbers: Vec<f32>) -> Result<Tensor> {
        Ok(Tensor::new(numbers, self.lengths.device())?.to_dtype(self.lengths.dtype())?)
    }

    /// What denoisers' predictions give for one side of the pairs, if it is needed.
    fn denoised(&self, needs: Needs, side: usize) -> Option<Result<Denoised>> {
        let policy = self.policy.denoised.as_ref().filter(|_| needs.contains(Needs::ERRORS))?;
        let reference = self.reference.and_then(|reference| reference.denoised.as_ref());
        let half = |values: &Tensor| -> Result<Tensor> {
            let rows = values.dim(0)? / 2;
            Ok(values.narrow(0, side * rows, rows)?)
        };
        let distances = reference.filter(|_| needs.contains(Needs::DISTANCES));
        let distances = distances.map(|reference| half(&policy.distances_from(reference)?));
        let all = || -> Result<Denoised> {
            Ok(Denoised {
                policy_errors: half(&policy.errors)?,
                reference_errors: reference.map(|reference| half(&reference.errors)).transpose()?,
                distances: distances.transpose()?,
            })
        };
        Some(all())
    }

    /// Numbers of single tokens of some sequences, if they are needed.
    fn tokens(&self, needs: Needs, sequences: Range<usize>) -> Option<Result<Tokens>> {
        let policy = self.policy.tokens.as_ref().filter(|_| needs.contains(Needs::TOKENS))?;
        let reference = self.reference.and_then(|reference| reference.tokens.as_ref());
        Some(self.padded(policy, reference, sequences))
    }

    /// How much each token of some sequences counts: as the rows say, or else the reference's mean activation where the token
    /// is predicted, scaled to run from 0 to 1 within its sequence.
    fn token_weights(&self, sequences: Range<usize>) -> Option<Result<TokenWeights>> {
        let (counts, device) = (&self.policy.tokens.as_ref()?.counts, self.lengths.device());
        let before: usize = counts[..sequences.start].iter().sum();
        let padding = Padding::new(before, &counts[sequences]);
        let of_rows = self.token_weights.as_ref().map(|weights| Ok(Tensor::new(weights.as_slice(), device)?));
        let of_reference = || {
            let tokens = self.reference.and_then(|reference| reference.tokens.as_ref())?;
            Some(activations(tokens))
        };
        let weights = of_rows.or_else(of_reference)?.and_then(|weights| padding.rows(&weights));
        Some(weights.map(|weights| TokenWeights { logratio: weights.clone(), kl: weights }))
    }

    fn padded(
        &self,
        policy: &TokenLikelihood,
        reference: Option<&TokenLikelihood>,
        sequences: Range<usize>,
    ) -> Result<Tokens> {
        let before: usize = policy.counts[..sequences.start].iter().sum();
        let padding = Padding::new(before, &policy.counts[sequences]);
        let rows = |values: &Tensor| padding.rows(values);
        let logps = |tokens: &TokenLikelihood| rows(&tokens.scores.log_probs()?);
        Ok(Tokens {
            mask: padding.mask(self.lengths.device())?,
            policy_logps: Some(logps(policy)?),
            reference_logps: reference
                .map(|tokens| Ok::<_, TrainError>(logps(tokens)?.detach()))
                .transpose()?,
            kl: self.token_kl.as_ref().map(rows).transpose()?,
        })
    }

    fn by_label(&self, rewards: &Tensor) -> Result<Rewards> {
        let side = |wanted: bool| -> Result<Tensor> {
            let labels = self.labels.iter().enumerate();
            let places: Vec<u32> = labels.filter(|(_, is)| **is == wanted).map(|(i, _)| i as u32).collect();
            let places = Tensor::from_vec(places.clone(), places.len(), rewards.device())?;
            Ok(rewards.index_select(&places, 0)?)
        };
        Ok(Rewards::Labelled(side(true)?, side(false)?))
    }
}

/// Where the tokens of some sequences lie among all, and their places in rows as long as the longest.
struct Padding<'a> {
    before: usize,
    counts: &'a [usize],
    width: usize,
}

impl<'a> Padding<'a> {
    fn new(before: usize, counts: &'a [usize]) -> Self {
        Self { before, counts, width: counts.iter().copied().max().unwrap_or(0) }
    }

    /// One value for every cell of the rows: `token` of the token that lies there, `empty` behind the end.
    fn cells<T: Copy>(&self, token: impl Fn(usize) -> T, empty: T) -> Vec<T> {
        let mut first = self.before;
        let mut cells = Vec::with_capacity(self.counts.len() * self.width);
        for count in self.counts {
            cells.extend((first..first + count).map(&token));
            cells.resize(cells.len() + self.width - count, empty);
            first += count;
        }
        cells
    }

    /// 1 in the cells of tokens, `(B, L)`.
    fn mask(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.cells(|_| 1f32, 0.0), (self.counts.len(), self.width), device)?)
    }

    /// `values (N,)` of all tokens as `(B, L)`, 0 behind the end.
    fn rows(&self, values: &Tensor) -> Result<Tensor> {
        let zero = values.dim(0)? as u32;
        let places = Tensor::new(self.cells(|token| token as u32, zero), values.device())?;
        let with_zero = Tensor::cat(&[values, &Tensor::zeros(1, values.dtype(), values.device())?], 0)?;
        Ok(with_zero.index_select(&places, 0)?.reshape((self.counts.len(), self.width))?)
    }
}

/// What the rows of some samples say of their tokens, as the sequences lie in a batch; none if they say nothing.
fn weights_of_rows<F: FrontEnd>(front: &F, samples: &[Sample]) -> Result<Option<Vec<f32>>> {
    let rows = samples.iter().map(|sample| front.token_weights(sample.row)).collect::<Result<Vec<_>>>()?;
    let Some(rows) = rows.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    let sides = rows.first().map_or(0, Vec::len);
    Ok(Some((0..sides).flat_map(|side| rows.iter().flat_map(move |row| row[side].iter().copied())).collect()))
}

/// A model's mean activation at every token, scaled within each sequence, `(N,)`.
fn activations(tokens: &TokenLikelihood) -> Result<Tensor> {
    scaled(&tokens.head.hidden.to_dtype(DType::F32)?.detach().mean(1)?, &tokens.counts)
}

/// `values (N,)` of the tokens of sequences, scaled to run from 0 to 1 within each; 1 where all of a sequence are equal.
fn scaled(values: &Tensor, counts: &[usize]) -> Result<Tensor> {
    let all = values.to_vec1::<f32>()?;
    let mut scaled = Vec::with_capacity(all.len());
    let mut first = 0;
    for count in counts {
        let of_one = &all[first..first + count];
        let least = of_one.iter().copied().fold(f32::INFINITY, f32::min);
        let span = of_one.iter().copied().fold(f32::NEG_INFINITY, f32::max) - least;
        scaled.extend(of_one.iter().map(|value| if span > 0.0 { (value - least) / span } else { 1.0 }));
        first += count;
    }
    Ok(Tensor::from_vec(scaled, all.len(), values.device())?)
}

/// The chosen half of a batch of pairs, and the rejected one.
fn halves(values: &Tensor) -> Result<(Tensor, Tensor)> {
    let half = values.dim(0)? / 2;
    Ok((values.narrow(0, 0, half)?, values.narrow(0, half, half)?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn weights_run_from_0_to_1_within_each_sequence() {
        let values = Tensor::new(&[3f32, -1.0, 1.0, 7.0, 5.0, 5.0], &Device::Cpu).unwrap();
        let found = scaled(&values, &[3, 1, 2]).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found, [1.0, 0.0, 0.5, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn tokens_lie_in_rows_and_each_gets_its_own_gradient() {
        let values = Var::new(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], &Device::Cpu).unwrap();
        // Of sequences with 2, 1 and 3 tokens the last two.
        let padding = Padding::new(2, &[1, 3]);
        let rows = padding.rows(&values).unwrap();
        assert_eq!(rows.to_vec2::<f32>().unwrap(), [[3.0, 0.0, 0.0], [4.0, 5.0, 6.0]]);
        assert_eq!(
            padding.mask(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap(),
            [[1.0, 0.0, 0.0], [1.0; 3]]
        );
        let grads = rows.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&values).unwrap().to_vec1::<f32>().unwrap(), [0.0, 0.0, 6.0, 8.0, 10.0, 12.0]);
    }
}
