//! From the likelihoods of some of a step's rows to their part of its loss, term by term.

use super::Run;
use super::padding::{Padding, activations};
use super::sums::Sums;
use crate::error::{Result, TrainError};
use crate::front_end::{FrontEnd, Likelihood, Networks, Sample, TokenLikelihood, Wanted};
use candle_core::{DType, Tensor};
use std::ops::Range;
use votive_objective::{
    CompletionFacts, Denoised, ListInputs, Needs, Objective, PairInputs, Term, TokenWeights, Tokens,
    UnpairedInputs,
};
use votive_tensor::Recorder;
use votive_tensor::random::{Draws, Stream};

/// Some rows of a step with what policy and reference make of them.
pub(super) struct Micro<'a, B> {
    pub(super) step: u64,
    /// The step whose draws are the rows'.
    drawn_at: u64,
    pub(super) samples: &'a [Sample],
    pub(super) batch: B,
    pub(super) policy: Likelihood,
    pub(super) reference: Option<Likelihood>,
    /// Log-probabilities of the rows' gold completions and their lengths, if they are read.
    pub(super) gold: Option<(Tensor, Vec<f64>)>,
    /// Tokens of all sequences, gold ones and copies included.
    units: usize,
    /// What heads say of some rows.
    told: Told,
    /// Log-probabilities of every sequence under the base, `(R,)`.
    pub(super) base: Option<Tensor>,
    /// The divergence estimate of the whole step.
    pub(super) kl: Option<f64>,
}

impl Told {
    /// What there is to log of it, a number for each sequence or copy.
    fn measures(&self) -> Result<Vec<(&'static str, Vec<f64>)>> {
        let named = [("heads/values", &self.values), ("heads/degree_logps", &self.degree_logps)];
        let given = named.into_iter().filter_map(|(name, tensor)| Some((name, tensor.as_ref()?)));
        let measure =
            |(name, tensor): (_, &Tensor)| Ok((name, tensor.to_dtype(DType::F64)?.to_vec1::<f64>()?));
        given.map(measure).collect()
    }
}

/// What heads say of completions.
#[derive(Debug, Default)]
struct Told {
    /// V of every sequence, `(R,)`.
    values: Option<Tensor>,
    /// How likely the degree of each row's copy is, nats, `(B,)`.
    degree_logps: Option<Tensor>,
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
        recorder: Option<&Recorder>,
    ) -> Result<Micro<'a, F::Batch>> {
        let batch = self.batch(drawn_at, samples)?;
        // What no objective reads may be left out of the recipe, and must not change what is logged. Reference and base come
        // first, while what the policy keeps for the backward is not in memory yet.
        let reads_reference = self.plan.objective.needs().contains(Needs::REFERENCE);
        // What else is asked for goes through the networks with the rows' own completions, whose prompts are theirs. The reference
        // reads it too: the same weights then give the same numbers, to the last bit.
        let extended = self.front.extended(drawn_at, samples, Wanted::of(self.plan))?;
        let all = extended.as_ref().map_or(&batch, |extended| &extended.batch);
        let reference = match reads_reference {
            true => self.reference.likelihood(self.front, samples, all, self.device())?,
            false => None,
        };
        let base = self.base.as_ref().map(|base| self.front.logps(base, &batch)).transpose()?;
        let base = base.map(|logps| logps.detach());
        let units = self.front.tokens(all);
        let found = self.front.likelihood(policy, all, recorder)?;
        let quantity = if self.gives_rewards() { "reward" } else { "log-probability" };
        self.require_finite(step, quantity, &found.logps, samples)?;
        let (gold_lengths, degrees) = extended.map_or((None, None), |all| (all.gold_lengths, all.degrees));
        let further =
            [gold_lengths.is_some(), degrees.is_some()].map(|is| if is { samples.len() } else { 0 });
        let sequences = found.logps.dim(0)? - further[0] - further[1];
        let is_longer = |found: &Likelihood| found.logps.dims().first().is_some_and(|rows| *rows > sequences);
        let reference = match reference {
            Some(longer) if is_longer(&longer) => Some(longer.split_at(sequences)?.0),
            other => other,
        };
        let told = self.told(&found, (sequences, further[0]), degrees.as_deref())?;
        let (policy, rest) = match further {
            [0, 0] => (found, None),
            _ => found.split_at(sequences).map(|(policy, rest)| (policy, Some(rest)))?,
        };
        let gold = gold_lengths
            .zip(rest)
            .map(|(lengths, rest)| Ok::<_, TrainError>((rest.narrow(0, 0, lengths.len())?, lengths)));
        let gold = gold.transpose()?;
        Ok(Micro { step, drawn_at, samples, batch, policy, reference, gold, units, told, base, kl })
    }

    /// What heads say of the first so many sequences, and of the copies behind those and the gold ones.
    fn told(
        &self,
        found: &Likelihood,
        (sequences, golds): (usize, usize),
        degrees: Option<&[u32]>,
    ) -> Result<Told> {
        let Some(tokens) = found.tokens.as_ref().filter(|_| !self.heads.trainable().is_empty()) else {
            return Ok(Told::default());
        };
        let states = tokens.last_states()?;
        let degree_logps = match degrees {
            Some(degrees) => {
                self.heads.degree_logps(&states.narrow(0, sequences + golds, degrees.len())?, degrees)?
            }
            None => None,
        };
        Ok(Told { values: self.heads.values(&states.narrow(0, 0, sequences)?)?, degree_logps })
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
        sums.add_likelihoods(micro, &inputs, micro.units)?;
        sums.add_measures(self.front.measures(&micro.batch, &micro.policy)?);
        sums.add_measures(micro.told.measures()?);
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
    /// Completions of a row: sequences i, i + B, i + 2·B, … belong to one prompt.
    sides: usize,
    /// A random number for each row, for losses that draw some of its completions.
    draws: Vec<f64>,
    /// Whether what the policy says of them are a reward model's rewards.
    pub(super) of_rewards: bool,
    kl: Option<f64>,
    /// The mean of log-ratios over the completions of the steps before.
    mean_logratio: f64,
    gold: Option<&'a (Tensor, Vec<f64>)>,
    told: &'a Told,
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
        let draw = |sample: &Sample| {
            let which = sample.position as u64;
            // With as many bits as f32 holds below 1.
            let bits =
                Draws::new(run.plan.train.seed, Stream::Negatives, micro.drawn_at, which).below(1 << 24);
            bits as f64 / f64::from(1 << 24)
        };
        let draws = micro.samples.iter().map(draw);
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
            sides,
            draws: draws.collect(),
            of_rewards: run.gives_rewards(),
            kl,
            mean_logratio: run.log_ratios.mean(),
            gold: micro.gold.as_ref(),
            told: &micro.told,
            margins,
            token_kl,
            base: micro.base.as_ref(),
            scores,
            uncertainties,
            token_weights,
        })
    }

    fn evaluate(&self, term: &Term) -> Result<Evaluated> {
        match (&term.objective, self.sides) {
            (Objective::Pair(objective), 2) => {
                let loss = objective.evaluate(&self.pairs(objective.needs())?)?;
                let rewards = Rewards::Pairs(loss.chosen_rewards, loss.rejected_rewards);
                Ok(Evaluated { losses: loss.per_pair, rewards: Some(rewards) })
            }
            (Objective::Pair(_), _) => Err(TrainError::Plan(format!(
                "`{}` compares pairs, but the data has single completions with labels",
                term.spec.id
            ))),
            (Objective::List(objective), _) => {
                let loss = objective.evaluate(&self.lists()?)?;
                let rewards = Some(self.by_label(&loss.rewards.t()?.flatten_all()?)?);
                Ok(Evaluated { losses: loss.per_list, rewards })
            }
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
        if let Some(values) = &self.told.values {
            let (chosen, rejected) = halves(values)?;
            inputs = inputs.with_values(chosen, rejected);
        }
        if let Some(logps) = &self.told.degree_logps {
            inputs = inputs.with_degree_logps(logps.clone());
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

    fn lists(&self) -> Result<ListInputs> {
        // Sequences lie side by side, completion by completion.
        let rows = |values: &Tensor| -> Result<Tensor> {
            Ok(values.reshape((self.sides, values.dim(0)? / self.sides))?.t()?.contiguous()?)
        };
        let mut inputs = ListInputs::new(rows(&self.policy.logps)?);
        if let Some(reference) = self.reference {
            inputs = inputs.with_reference(rows(&reference.logps)?);
        }
        if let Some(scores) = &self.scores {
            inputs = inputs.with_scores(rows(&self.like_logps(scores.clone())?)?);
        }
        let draws = Tensor::new(self.draws.as_slice(), self.lengths.device())?;
        Ok(inputs.with_draws(draws.to_dtype(self.lengths.dtype())?))
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

/// What the rows of some samples say of their tokens, as the sequences lie in a batch; none if they say nothing.
fn weights_of_rows<F: FrontEnd>(front: &F, samples: &[Sample]) -> Result<Option<Vec<f32>>> {
    let rows = samples.iter().map(|sample| front.token_weights(sample.row)).collect::<Result<Vec<_>>>()?;
    let Some(rows) = rows.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    let sides = rows.first().map_or(0, Vec::len);
    Ok(Some((0..sides).flat_map(|side| rows.iter().flat_map(move |row| row[side].iter().copied())).collect()))
}

/// The chosen half of a batch of pairs, and the rejected one.
fn halves(values: &Tensor) -> Result<(Tensor, Tensor)> {
    let half = values.dim(0)? / 2;
    Ok((values.narrow(0, 0, half)?, values.narrow(0, half, half)?))
}
