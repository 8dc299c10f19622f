//! One training run: the loop from rows to steps.
//!
//! ```text
//! rows of the step ─▶ batch ─▶ policy, reference ─▶ objective ─▶ sum / rows of the whole batch ─▶ backward
//!   ─▶ gate ─▶ clip ─▶ AdamW ─▶ metrics
//! ```

mod held_out;

pub use held_out::HeldOut;

use crate::error::{Result, TrainError};
use crate::front_end::{FrontEnd, Layout, Sample};
use crate::gradients::Gradients;
use crate::optimizer::AdamW;
use crate::plan::Plan;
use crate::reference::Reference;
use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use votive_data::DataOrder;
use votive_model::Params;
use votive_objective::{Needs, Objective, PairInputs, UnpairedInputs};
use votive_tensor::segment::Recorder;

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
    pub means: BTreeMap<&'static str, f64>,
}

/// A policy that goes on where a checkpoint was written.
pub struct Resumed {
    /// The policy's parameters.
    pub params: Params,
    /// The optimizer with its moments and steps.
    pub optimizer: AdamW,
    /// What was kept of a reference that follows the policy.
    pub reference: Option<BTreeMap<String, Tensor>>,
    /// Tokens read so far (latents, for images).
    pub num_tokens: u64,
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
    reference: Reference<F::Network>,
    optimizer: AdamW,
    order: DataOrder,
    num_tokens: u64,
    /// Losses that a row of data gives: two if the sides of its pair count as single completions.
    losses_per_sample: usize,
    /// The reference is the policy as it is now: margins must be 0.
    at_start: bool,
    gated: bool,
}

/// What a forward and backward over a whole batch gave.
pub struct Evaluation {
    /// Gradients of the mean loss.
    pub gradients: Gradients,
    /// Mean loss over the batch.
    pub loss: f64,
    /// Means over the batch, by name.
    pub means: BTreeMap<&'static str, f64>,
    /// Tokens, or latents.
    pub units: usize,
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
        let first = front.batch(0, &[Sample { row: 0, position: 0 }])?;
        let is_unpaired = matches!(plan.objective, Objective::Unpaired(_));
        let losses_per_sample = if is_unpaired && front.layout(&first) == Layout::Pairs { 2 } else { 1 };
        let at_start = resumed.is_none();
        let saved = resumed.as_ref().and_then(|resumed| resumed.reference.clone());
        let batch = plan.train.micro_batch_size;
        let reference = Reference::new(&plan.reference, front, &start, saved, batch, progress)?;
        let fresh = || Resumed {
            params: start,
            optimizer: AdamW::new(plan.optimizer.adamw.clone()),
            reference: None,
            num_tokens: 0,
        };
        let Resumed { params, optimizer, num_tokens, .. } = resumed.unwrap_or_else(fresh);
        let policy = front.network(&params)?;
        let parameters = params.trainable();
        let train = &plan.train;
        let order = DataOrder::new(train.seed, front.rows(), train.batch_size, plan.data.traversal);
        Ok(Self {
            plan,
            front,
            params,
            parameters,
            policy,
            reference,
            optimizer,
            order,
            num_tokens,
            losses_per_sample,
            at_start,
            gated: false,
        })
    }

    /// The policy's parameters.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Where the rows come from.
    #[must_use]
    pub fn front(&self) -> &'a F {
        self.front
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

    /// Makes the next step.
    ///
    /// # Errors
    /// If a number is not finite, a parameter gets no gradient in the first step, or candle fails.
    pub fn step(&mut self) -> Result<StepMetrics> {
        let step = self.steps_done();
        let mut evaluation = self.evaluate(step)?;
        if !self.gated {
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
        self.reference.follow(self.front, &self.params, step + 1)?;
        self.num_tokens += evaluation.units as u64;
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
        let recorder = Recorder::new(self.parameters.iter().map(|(_, tensor)| tensor.clone()).collect());
        let mut gradients = Gradients::default();
        let mut sums = Sums::default();
        let total = (self.losses_per_sample * samples.len()) as f64;
        for micro in samples.chunks(self.plan.train.micro_batch_size) {
            let batch = self.front.batch(step, micro)?;
            let segments = self.plan.train.recompute.then_some(&recorder);
            let policy = self.front.logps(&self.policy, &batch, segments)?;
            let reference = self.reference.logps(self.front, micro, &batch, self.device())?;
            self.require_finite(step, "log-probability", &policy, micro)?;
            let tolerance = self.reference.start_tolerance().filter(|_| self.at_start);
            if let (Some(tolerance), Some(reference)) = (tolerance, &reference) {
                self.require_zero_margin(&policy, reference, tolerance, micro)?;
            }
            let per_row = self.per_row_losses(&batch, &policy, reference.as_ref(), kl, &mut sums)?;
            self.require_finite(step, "loss", &per_row, micro)?;
            sums.units += self.front.tokens(&batch);
            let loss = per_row.sum_all()?;
            sums.loss += f64::from(loss.to_scalar::<f32>()?);
            gradients.accumulate(&(loss / total)?, &self.parameters, &recorder)?;
        }
        Ok(Evaluation { gradients, loss: sums.loss / total, means: sums.means(), units: sums.units })
    }

    fn device(&self) -> &Device {
        self.params.device()
    }

    /// The divergence estimate over the whole batch, without gradient, if the objective wants one.
    fn divergence(&self, step: u64, samples: &[Sample]) -> Result<Option<f64>> {
        if !self.plan.objective.needs().contains(Needs::KL) {
            return Ok(None);
        }
        let batch = self.front.divergence_batch(step, samples)?;
        let policy = self.front.network(&self.params.untracked()?)?;
        let policy = self.front.logps(&policy, &batch, None)?;
        let Some(reference) = self.reference.network() else {
            return Err(TrainError::Plan(
                "the divergence estimate needs completions of other prompts, which a cached reference has not seen; \
                 use reference.kind = \"frozen\" or \"adapter_off\""
                    .to_owned(),
            ));
        };
        let reference = self.front.logps(reference, &batch, None)?;
        let mean = (policy - reference)?.mean_all()?.to_scalar::<f32>()?;
        Ok(Some(f64::from(mean).max(0.0)))
    }

    fn per_row_losses(
        &self,
        batch: &F::Batch,
        policy: &Tensor,
        reference: Option<&Tensor>,
        kl: Option<f64>,
        sums: &mut Sums,
    ) -> Result<Tensor> {
        let lengths = Tensor::new(self.front.lengths(batch), self.device())?;
        // What no objective reads may be left out of the recipe, and must not change what is logged.
        if let Some(reference) = reference.filter(|_| self.plan.objective.needs().contains(Needs::REFERENCE))
        {
            sums.add_log_ratios(policy, reference, &lengths)?;
        }
        let layout = self.front.layout(batch);
        match (&self.plan.objective, layout) {
            (Objective::Pair(objective), Layout::Pairs) => {
                let (chosen, rejected) = halves(policy)?;
                sums.add_logps(&chosen, &rejected)?;
                let mut inputs = PairInputs::new(chosen, rejected);
                if let Some(reference) = reference {
                    let (chosen, rejected) = halves(reference)?;
                    inputs = inputs.with_reference(chosen, rejected);
                }
                let (chosen, rejected) = halves(&lengths)?;
                let loss = objective.evaluate(&inputs.with_lengths(chosen, rejected))?;
                sums.add_rewards(&loss.chosen_rewards, &loss.rejected_rewards)?;
                Ok(loss.per_pair)
            }
            (Objective::Pair(_), Layout::Labelled(_)) => Err(TrainError::Plan(
                "this objective compares pairs, but the data has single completions with labels".to_owned(),
            )),
            (Objective::Unpaired(objective), layout) => {
                let labels = match layout {
                    Layout::Labelled(labels) => labels,
                    Layout::Pairs => (0..policy.elem_count()).map(|i| i < policy.elem_count() / 2).collect(),
                };
                let values: Vec<f32> = labels.iter().map(|label| f32::from(u8::from(*label))).collect();
                let mut inputs = UnpairedInputs::new(policy.clone(), Tensor::new(values, self.device())?);
                if let Some(reference) = reference {
                    inputs = inputs.with_reference(reference.clone());
                }
                if let Some(kl) = kl {
                    sums.kl = Some(kl);
                    inputs = inputs.with_kl(Tensor::new(kl as f32, self.device())?);
                }
                let loss = objective.evaluate(&inputs.with_lengths(lengths))?;
                sums.add_labelled(&loss.rewards, policy, &labels)?;
                Ok(loss.per_example)
            }
        }
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
        let (policy, reference) = (policy.to_vec1::<f32>()?, reference.to_vec1::<f32>()?);
        let differences = policy.iter().zip(&reference).map(|(p, r)| f64::from(p - r));
        let allowed = reference.iter().map(|r| tolerance * f64::from(r.abs()).max(1.0));
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
        let batch = self.front.batch(step, &samples)?;
        let policy = self.front.logps(&self.front.network(&self.params.untracked()?)?, &batch, None)?;
        let reference = self.reference.logps(self.front, &samples, &batch, self.device())?;
        let mut tensors = self.front.dump(&batch, &policy, reference.as_ref())?;
        let evaluation = self.evaluate(step)?;
        let scalar = |value: f64| Tensor::new(value as f32, &Device::Cpu);
        tensors.push(("loss".to_owned(), scalar(evaluation.loss)?));
        tensors.push(("grad_norm".to_owned(), scalar(evaluation.gradients.norm(step)?)?));
        Ok(Inspection { lines: self.front.show(&batch, colour)?, tensors })
    }
}

fn halves(values: &Tensor) -> Result<(Tensor, Tensor)> {
    let half = values.dim(0)? / 2;
    Ok((values.narrow(0, 0, half)?, values.narrow(0, half, half)?))
}

/// Sums over the rows of a batch, of which metrics are the means.
#[derive(Default)]
struct Sums {
    loss: f64,
    units: usize,
    kl: Option<f64>,
    values: BTreeMap<&'static str, (f64, usize)>,
}

impl Sums {
    fn add(&mut self, name: &'static str, values: impl Iterator<Item = f64>) {
        let entry = self.values.entry(name).or_default();
        for value in values {
            *entry = (entry.0 + value, entry.1 + 1);
        }
    }

    fn add_logps(&mut self, chosen: &Tensor, rejected: &Tensor) -> Result<()> {
        self.add("logps/chosen", numbers(chosen)?);
        self.add("logps/rejected", numbers(rejected)?);
        Ok(())
    }

    /// How far the policy has gone from the reference, whichever way: nats a token, a latent counting as one.
    fn add_log_ratios(&mut self, policy: &Tensor, reference: &Tensor, lengths: &Tensor) -> Result<()> {
        let per_token = ((policy.detach() - reference)? / lengths)?;
        self.add("logratios/abs", numbers(&per_token)?.map(f64::abs));
        Ok(())
    }

    fn add_rewards(&mut self, chosen: &Tensor, rejected: &Tensor) -> Result<()> {
        let margins: Vec<f64> = numbers(chosen)?.zip(numbers(rejected)?).map(|(c, r)| c - r).collect();
        self.add("rewards/chosen", numbers(chosen)?);
        self.add("rewards/rejected", numbers(rejected)?);
        // A tie counts as wrong, as in TRL.
        self.add("rewards/accuracies", margins.iter().map(|margin| f64::from(u8::from(*margin > 0.0))));
        self.add("rewards/margins", margins.into_iter());
        Ok(())
    }

    fn add_labelled(&mut self, rewards: &Tensor, logps: &Tensor, labels: &[bool]) -> Result<()> {
        for (label, reward_name, logp_name) in
            [(true, "rewards/chosen", "logps/chosen"), (false, "rewards/rejected", "logps/rejected")]
        {
            let pick = |values: &Tensor| -> Result<Vec<f64>> {
                Ok(numbers(values)?.zip(labels).filter(|(_, l)| **l == label).map(|(v, _)| v).collect())
            };
            self.add(reward_name, pick(rewards)?.into_iter());
            self.add(logp_name, pick(logps)?.into_iter());
        }
        Ok(())
    }

    fn means(&self) -> BTreeMap<&'static str, f64> {
        let counted = self.values.iter().filter(|(_, (_, n))| *n > 0);
        let mut means: BTreeMap<_, _> = counted.map(|(name, (sum, n))| (*name, sum / *n as f64)).collect();
        means.extend(self.kl.map(|kl| ("kl", kl)));
        if let (Some(chosen), Some(rejected)) = (means.get("rewards/chosen"), means.get("rewards/rejected")) {
            let margin = chosen - rejected;
            means.entry("rewards/margins").or_insert(margin);
        }
        means
    }
}

fn numbers(values: &Tensor) -> Result<impl Iterator<Item = f64> + use<>> {
    Ok(values.to_dtype(DType::F64)?.to_vec1::<f64>()?.into_iter())
}
