//! One training run: the loop from rows to steps.
//!
//! ```text
//! rows of the step ─▶ batch ─▶ policy, reference ─▶ objective ─▶ sum / rows of the whole batch ─▶ backward
//!   ─▶ gate ─▶ clip ─▶ AdamW ─▶ metrics
//! ```

mod held_out;
mod log_ratios;
mod losses;
mod padding;
mod rows;
mod sums;

pub use held_out::HeldOut;
pub use log_ratios::LogRatios;
pub(crate) use rows::order;

use crate::ema::Ema;
use crate::error::{Result, TrainError};
use crate::front_end::{FrontEnd, Likelihood, Sample};
use crate::gradients::{Gradients, recorder_of};
use crate::heads::Heads;
use crate::optimizer::AdamW;
use crate::plan::Plan;
use crate::reference::Reference;
use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use sums::Sums;
use votive_data::Phases;
use votive_model::Params;
use votive_objective::Needs;

/// Means by name.
pub type Means = BTreeMap<Cow<'static, str>, f64>;

/// The numbers of one step, with TRL's names.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StepMetrics {
    /// Steps done, counted from 1.
    pub step: u64,
    /// Mean over the batch.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Passes over the data.
    pub epoch: f64,
    /// Tokens read so far, prompts included and padding not (latents, for images).
    pub num_tokens: u64,
    /// Means over the batch, by name.
    #[serde(flatten)]
    pub means: Means,
}

/// A policy that goes on where a checkpoint was written.
pub struct Resumed {
    /// The policy's parameters.
    pub params: Params,
    /// The optimizer with its moments and steps.
    pub optimizer: AdamW,
    /// What was kept of a reference that follows the policy.
    pub reference: Option<BTreeMap<String, Tensor>>,
    /// What was kept of a moving average of the weights.
    pub ema: Option<BTreeMap<String, Tensor>>,
    /// Tokens read so far (latents, for images).
    pub num_tokens: u64,
    /// The log-ratios of the completions so far.
    pub log_ratios: LogRatios,
    /// What was kept of the objective's heads.
    pub heads: Option<BTreeMap<String, Tensor>>,
}

/// What a step sees.
pub struct Inspection {
    /// The batch in words, a line for each sequence.
    pub lines: Vec<String>,
    /// The batch and what was computed from it, by name.
    pub tensors: Vec<(String, Tensor)>,
}

/// A policy in training.
pub struct Run<'a, F: FrontEnd> {
    plan: &'a Plan,
    front: &'a F,
    params: Params,
    parameters: Vec<(String, Tensor)>,
    policy: F::Network,
    heads: Heads,
    reference: Reference<F::Network>,
    /// The model that the first of several rounds started from.
    base: Option<F::Network>,
    optimizer: AdamW,
    ema: Option<Ema>,
    order: Phases,
    num_tokens: u64,
    log_ratios: LogRatios,
    /// The reference is the policy as it is now: margins must be 0.
    at_start: bool,
    gated: bool,
    /// Steps up to now, one after another, that preferred nothing to anything.
    undecided: u64,
}

/// Steps one after another in which nothing is preferred to anything, at most: a policy that does not move will not draw
/// anything else.
pub(crate) const MOST_UNDECIDED: u64 = 50;

/// What a forward and backward over a whole batch gave.
pub struct Evaluation {
    /// Gradients of the mean loss.
    pub gradients: Gradients,
    /// Mean loss over the batch.
    pub loss: f64,
    /// Means over the batch, by name.
    pub means: Means,
    /// Tokens, or latents.
    pub units: usize,
    /// Whether no row prefers anything to anything, so that there can be no gradient.
    pub is_undecided: bool,
    /// Whether the rows show the network everything that it reads.
    pub reaches_all: bool,
    /// Sum of the log-ratios of completions in nats, and their number.
    pub log_ratios: (f64, usize),
}

impl<'a, F: FrontEnd> Run<'a, F> {
    /// A run at its start, or going on from a checkpoint.
    ///
    /// `start` is the policy as the recipe starts it; the reference is made from it either way.
    ///
    /// # Errors
    /// If the parts don't go together.
    pub fn new(
        plan: &'a Plan,
        front: &'a F,
        start: Params,
        resumed: Option<Resumed>,
        progress: impl Fn(usize, usize),
    ) -> Result<Self> {
        if front.rows() == 0 {
            return Err(TrainError::Plan("no row of the data is left to train on".to_owned()));
        }
        rows::require_what_is_read(plan, front)?;
        let at_start = resumed.is_none();
        let saved = resumed.as_ref().and_then(|resumed| resumed.reference.clone());
        let batch = plan.train.micro_batch_size;
        let reference = Reference::new(&plan.reference, front, &start, saved, batch, progress)?;
        let base = plan.base_model.as_deref();
        let base = base.map(|folder| front.other_network(folder, start.device())).transpose()?;
        let fresh = || Resumed {
            params: start,
            optimizer: AdamW::new(plan.optimizer.adamw.clone()),
            reference: None,
            ema: None,
            num_tokens: 0,
            log_ratios: LogRatios::default(),
            heads: None,
        };
        let Resumed { params, optimizer, num_tokens, log_ratios, ema, heads, .. } =
            resumed.unwrap_or_else(fresh);
        let ema = plan.ema.map(|plan| Ema::new(plan, &params, ema)).transpose()?;
        let policy = front.network(&params)?;
        let sizes = (front.state_width(), plan.data.degrees);
        let heads = Heads::new(plan.objective.needs(), sizes, (plan.train.seed, params.device()), heads)?;
        let parameters = [params.trainable(), heads.trainable()].concat();
        let order = rows::order(plan, front)?;
        Ok(Self {
            plan,
            front,
            params,
            parameters,
            policy,
            heads,
            reference,
            base,
            optimizer,
            ema,
            order,
            num_tokens,
            log_ratios,
            at_start,
            gated: false,
            undecided: 0,
        })
    }

    /// The policy's parameters.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The moving average of the weights, if the plan asks for one.
    #[must_use]
    pub fn ema(&self) -> Option<&Ema> {
        self.ema.as_ref()
    }

    /// The parameters that the run would end with now, without gradients: the policy's, or their average.
    ///
    /// # Errors
    /// Those of candle.
    pub fn outcome(&self) -> Result<Params> {
        Ok(match self.ema.as_ref().filter(|ema| ema.plan().is_final) {
            Some(ema) => self.params.with_values(ema.values())?,
            None => self.params.untracked()?,
        })
    }

    /// Where the rows come from.
    #[must_use]
    pub fn front(&self) -> &'a F {
        self.front
    }

    /// What is trained of the objective's heads, by name.
    #[must_use]
    pub fn heads(&self) -> Vec<(String, Tensor)> {
        self.heads.trainable()
    }

    /// The policy's network.
    #[must_use]
    pub fn policy(&self) -> &F::Network {
        &self.policy
    }

    /// The optimizer.
    #[must_use]
    pub fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }

    /// What the policy is compared with.
    #[must_use]
    pub fn reference(&self) -> &Reference<F::Network> {
        &self.reference
    }

    /// Steps that are done.
    #[must_use]
    pub fn steps_done(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Tokens read so far, prompts included and padding not (latents, for images).
    #[must_use]
    pub fn num_tokens(&self) -> u64 {
        self.num_tokens
    }

    /// The log-ratios of the completions that were trained on so far.
    #[must_use]
    pub fn log_ratios(&self) -> LogRatios {
        self.log_ratios
    }

    /// Makes the next step.
    ///
    /// # Errors
    /// If a number is not finite, a parameter gets no gradient in the first step, or candle fails.
    pub fn step(&mut self) -> Result<StepMetrics> {
        let step = self.steps_done();
        let mut evaluation = self.evaluate(step)?;
        self.undecided = if evaluation.is_undecided { self.undecided + 1 } else { 0 };
        if self.undecided >= MOST_UNDECIDED {
            return Err(TrainError::Undecided { step, steps: self.undecided });
        }
        if !self.gated && !evaluation.is_undecided && evaluation.reaches_all {
            evaluation.gradients.require_all(&self.parameters, step)?;
            self.gated = true;
        }
        let grad_norm = evaluation.gradients.norm(step)?;
        let optimizer = &self.plan.optimizer;
        if optimizer.max_grad_norm > 0.0 {
            evaluation.gradients.clip(grad_norm, optimizer.max_grad_norm)?;
        }
        let factor = optimizer.schedule.factor(step, optimizer.warmup_steps, self.plan.train.steps);
        let learning_rate = optimizer.lr * factor;
        self.optimizer.step(&self.parameters, &evaluation.gradients, learning_rate)?;
        self.at_start = false;
        if let Some(ema) = &mut self.ema {
            ema.follow(&self.params.trainable(), step + 1)?;
        }
        let divergence = self.follow(step)?;
        evaluation.means.extend(divergence.map(|found| (Cow::Borrowed("reference/divergence"), found)));
        self.num_tokens += evaluation.units as u64;
        self.log_ratios.add(evaluation.log_ratios);
        let done = step + 1;
        Ok(StepMetrics {
            step: done,
            loss: evaluation.loss,
            grad_norm,
            learning_rate,
            epoch: done as f64 * self.plan.train.batch_size as f64 / self.front.rows() as f64,
            num_tokens: self.num_tokens,
            means: evaluation.means,
        })
    }

    /// Lets a reference that follows the policy do so after a step; how far it is from the start if it has a limit, on
    /// the chosen completions of the step's first rows.
    fn follow(&mut self, step: u64) -> Result<Option<f64>> {
        let samples = self.samples(step);
        let probe = &samples[..self.plan.train.micro_batch_size.min(samples.len())];
        let batch = self.reference.measures_at(step + 1).then(|| self.batch(step, probe)).transpose()?;
        let front = self.front;
        self.reference.follow(front, &self.params, step + 1, |network, start| {
            let Some(batch) = &batch else { return Ok(0.0) };
            let [far, near] = [network, start].map(|network| front.likelihood(network, batch, None));
            let labels: Vec<bool> = front.facts(probe).iter().map(|one| one.is_desirable).collect();
            divergence(&far?, &near?, &labels)
        })
    }

    /// The samples of a step, in the order of its batch.
    #[must_use]
    pub fn samples(&self, step: u64) -> Vec<Sample> {
        let rows = self.order.indices(step);
        rows.into_iter().enumerate().map(|(position, row)| Sample { row, position }).collect()
    }

    /// Loss, gradients and metrics of a step's whole batch, with the policy as it is now.
    ///
    /// # Errors
    /// As [`Run::step`].
    pub fn evaluate(&self, step: u64) -> Result<Evaluation> {
        let samples = self.samples(step);
        let kl = self.divergence(step, &samples)?;
        let denominators = self.denominators(&samples);
        let recorder = recorder_of(&self.parameters);
        let mut sums = Sums::default();
        sums.add_divergence(kl, 1.0);
        let (mut is_undecided, mut reaches_all) = (true, false);
        for samples in samples.chunks(self.plan.train.micro_batch_size) {
            let recorder_of_policy =
                self.front.records_gradients(self.plan.train.recompute).then_some(&recorder);
            let micro = self.micro(&self.policy, (step, step), samples, kl, recorder_of_policy)?;
            let tolerance = self.reference.start_tolerance().filter(|_| self.at_start);
            if let (Some(tolerance), Some(reference)) = (tolerance, &micro.reference) {
                self.require_zero_margin(&micro.policy.logps, &reference.logps, tolerance, samples)?;
            }
            is_undecided &= self.front.is_undecided(&micro.batch);
            reaches_all |= self.front.reaches_all(&micro.batch);
            let loss = self.loss(&micro, &denominators, &mut sums)?;
            recorder.backward(&loss)?;
        }
        let gradients = Gradients::take(&recorder, &self.parameters);
        let (loss, means, units) = (sums.loss(), sums.means(), sums.units());
        let log_ratios = sums.log_ratios();
        Ok(Evaluation { gradients, loss, means, units, is_undecided, reaches_all, log_ratios })
    }

    fn device(&self) -> &Device {
        self.params.device()
    }

    /// The divergence estimate over the whole batch, without gradient, if the objective wants one.
    fn divergence(&self, step: u64, samples: &[Sample]) -> Result<Option<f64>> {
        if !self.plan.objective.needs().contains(Needs::KL) {
            return Ok(None);
        }
        let batch = self.completed(self.front.divergence_batch(step, samples)?, step, samples)?;
        let policy = self.front.network(&self.params.untracked()?)?;
        let policy = self.front.logps(&policy, &batch)?;
        let Some(reference) = self.reference.network() else {
            return Err(TrainError::Plan(
                "the divergence estimate needs completions of other prompts, which a cached reference has not seen; \
                 use reference.kind = \"frozen\" or \"adapter_off\""
                    .to_owned(),
            ));
        };
        let reference = self.front.logps(reference, &batch)?;
        let mean = (policy - reference)?.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        Ok(Some(mean.max(0.0)))
    }

    fn require_finite(
        &self,
        step: u64,
        quantity: &'static str,
        values: &Tensor,
        samples: &[Sample],
    ) -> Result<()> {
        let values = values.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        // A set: both sides of a pair belong to one row.
        let bad: BTreeSet<usize> = (0..values.len())
            .filter(|i| !values[*i].is_finite())
            .map(|i| self.front.source_row(samples[i % samples.len()].row))
            .collect();
        if bad.is_empty() {
            return Ok(());
        }
        let rows = bad.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let held_out =
            if samples.iter().any(|sample| sample.row >= self.front.rows()) { "held-out " } else { "" };
        Err(TrainError::NotFinite { step, quantity, place: format!("{held_out}data row {rows}") })
    }

    fn require_zero_margin(
        &self,
        policy: &Tensor,
        reference: &Tensor,
        tolerance: f64,
        samples: &[Sample],
    ) -> Result<()> {
        let numbers = |logps: &Tensor| logps.to_dtype(DType::F64)?.to_vec1::<f64>();
        let (policy, reference) = (numbers(policy)?, numbers(reference)?);
        let differences = policy.iter().zip(&reference).map(|(p, r)| p - r);
        let allowed = reference.iter().map(|r| tolerance * r.abs().max(1.0));
        match differences.zip(allowed).enumerate().find(|(_, (d, allowed))| d.abs() > *allowed) {
            None => Ok(()),
            Some((i, (margin, _))) => Err(TrainError::StartMargin {
                margin,
                row: self.front.source_row(samples[i % samples.len()].row),
            }),
        }
    }

    /// What step `step` sees with the policy as it is now: the batch in words, and every number by name.
    ///
    /// # Errors
    /// As [`Run::step`].
    pub fn inspect(&self, step: u64, colour: bool) -> Result<Inspection> {
        let samples = self.samples(step);
        let batch = self.batch(step, &samples)?;
        let policy = self.front.logps(&self.front.network(&self.params.untracked()?)?, &batch)?;
        let reference = self.reference.likelihood(self.front, &samples, &batch, self.device())?;
        let reference = reference.map(|reference| reference.logps);
        let mut tensors = self.front.dump(&batch, &policy, reference.as_ref())?;
        let evaluation = self.evaluate(step)?;
        let scalar = |value: f64| Tensor::new(value as f32, &Device::Cpu);
        tensors.push(("loss".to_owned(), scalar(evaluation.loss)?));
        tensors.push(("grad_norm".to_owned(), scalar(evaluation.gradients.norm(step)?)?));
        Ok(Inspection { lines: self.front.show(&batch, colour)?, tensors })
    }
}

/// How much worse a network is than another at the chosen completions: in denoising errors, or in nats a completion.
fn divergence(network: &Likelihood, start: &Likelihood, labels: &[bool]) -> Result<f64> {
    let losses = |of: &Likelihood| match &of.denoised {
        Some(denoised) => Ok(denoised.errors.clone()),
        None => of.logps.neg(),
    };
    let change = (losses(network)? - losses(start)?)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let chosen: Vec<f64> =
        change.into_iter().zip(labels).filter(|(_, label)| **label).map(|(c, _)| c).collect();
    Ok(chosen.iter().sum::<f64>() / chosen.len().max(1) as f64)
}
