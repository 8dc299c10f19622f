//! What is logged of a step: sums over its rows and tokens, and their means.

use super::Means;
use super::losses::{Inputs, Micro, Rewards};
use crate::error::Result;
use crate::front_end::{Likelihood, TokenLikelihood};
use candle_core::{DType, Tensor};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Sums over the rows of a batch, of which metrics are the means.
#[derive(Default)]
pub(super) struct Sums {
    units: usize,
    kl: Option<f64>,
    /// Each term's part of the loss.
    terms: BTreeMap<&'static str, f64>,
    loss: f64,
    /// Sum of the log-ratios of completions, and their number.
    log_ratios: (f64, usize),
    /// The least and the greatest reward of a reward model.
    extremes: Option<[f64; 2]>,
    values: BTreeMap<Cow<'static, str>, (f64, usize)>,
}

impl Sums {
    /// Adds a divergence estimate that is for this share of the rows.
    pub(super) fn add_divergence(&mut self, kl: Option<f64>, share: f64) {
        self.kl = kl.map(|kl| self.kl.unwrap_or(0.0) + kl * share).or(self.kl);
    }

    fn add(&mut self, name: impl Into<Cow<'static, str>>, values: impl Iterator<Item = f64>) {
        let entry = self.values.entry(name.into()).or_default();
        for value in values {
            *entry = (entry.0 + value, entry.1 + 1);
        }
    }

    /// What the policy makes of sequences and tokens, whatever the objective.
    pub(super) fn add_likelihoods<B>(
        &mut self,
        micro: &Micro<B>,
        inputs: &Inputs,
        units: usize,
    ) -> Result<()> {
        self.units += units;
        let labels = &inputs.labels;
        for (said, label) in numbers(&micro.policy.logps)?.zip(labels) {
            if inputs.of_rewards {
                self.add("mean_reward", std::iter::once(said));
                let [least, greatest] = self.extremes.unwrap_or([said; 2]);
                self.extremes = Some([least.min(said), greatest.max(said)]);
            } else {
                self.add(if *label { "logps/chosen" } else { "logps/rejected" }, std::iter::once(said));
            }
        }
        if let Some(tokens) = &micro.policy.tokens {
            self.add_tokens(tokens, labels)?;
        }
        self.add_errors("error", &micro.policy, labels)?;
        match &micro.reference {
            Some(reference) => self.add_errors("reference_error", reference, labels),
            None => Ok(()),
        }
    }

    fn add_errors(&mut self, what: &str, found: &Likelihood, labels: &[bool]) -> Result<()> {
        let Some(denoised) = &found.denoised else { return Ok(()) };
        for (error, label) in numbers(&denoised.errors)?.zip(labels) {
            let side = if *label { "chosen" } else { "rejected" };
            self.add(format!("{what}/{side}"), std::iter::once(error));
        }
        Ok(())
    }

    fn add_tokens(&mut self, tokens: &TokenLikelihood, labels: &[bool]) -> Result<()> {
        self.add("entropy", numbers(&tokens.scores.entropy()?)?);
        let of_token =
            tokens.counts.iter().zip(labels).flat_map(|(count, label)| std::iter::repeat_n(*label, *count));
        let (logits, tops) = (numbers(&tokens.scores.mean_logits()?)?, numbers(&tokens.scores.is_top()?)?);
        for ((logit, top), label) in logits.zip(tops).zip(of_token) {
            self.add(if label { "logits/chosen" } else { "logits/rejected" }, std::iter::once(logit));
            if label {
                self.add("mean_token_accuracy", std::iter::once(top));
            }
        }
        Ok(())
    }

    /// What a front end measured of a batch by itself.
    pub(super) fn add_measures(&mut self, measures: Vec<(&'static str, Vec<f64>)>) {
        measures.into_iter().for_each(|(name, values)| self.add(name, values.into_iter()));
    }

    /// How far the policy has gone from the reference, whichever way: nats a token, a latent counting as one.
    pub(super) fn add_log_ratios(
        &mut self,
        policy: &Tensor,
        reference: &Tensor,
        lengths: &Tensor,
    ) -> Result<()> {
        let log_ratios = (policy.detach() - reference)?;
        for log_ratio in numbers(&log_ratios)? {
            self.log_ratios = (self.log_ratios.0 + log_ratio, self.log_ratios.1 + 1);
        }
        self.add("logratios/abs", numbers(&(log_ratios / lengths)?)?.map(f64::abs));
        Ok(())
    }

    /// A term's part of the loss; of one among several it is logged by itself.
    pub(super) fn add_term(&mut self, id: &'static str, part: &Tensor, terms: usize) -> Result<()> {
        let part = part.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        self.loss += part;
        if terms > 1 {
            *self.terms.entry(id).or_default() += part;
        }
        Ok(())
    }

    /// Rewards; those of pairs also by the part of the noise schedule that they lie in, where there is one.
    pub(super) fn add_rewards(&mut self, rewards: &Rewards, parts: Option<&[String]>) -> Result<()> {
        let (Rewards::Pairs(chosen, rejected) | Rewards::Labelled(chosen, rejected)) = rewards;
        self.add("rewards/chosen", numbers(chosen)?);
        self.add("rewards/rejected", numbers(rejected)?);
        if let Rewards::Pairs(..) = rewards {
            let margins: Vec<f64> = numbers(chosen)?.zip(numbers(rejected)?).map(|(c, r)| c - r).collect();
            // A tie counts as wrong, as in TRL.
            let accuracies = margins.iter().map(|margin| f64::from(u8::from(*margin > 0.0)));
            let (of_chosen, of_rejected) =
                parts.unwrap_or_default().split_at(parts.map_or(0, |_| margins.len()));
            // Sides that have times of their own lie in no part together.
            let together = of_chosen.iter().zip(of_rejected).zip(margins.iter().zip(accuracies.clone()));
            for ((part, _), (margin, accuracy)) in together.filter(|((one, other), _)| one == other) {
                self.add(format!("rewards/margins/{part}"), std::iter::once(*margin));
                self.add(format!("rewards/accuracies/{part}"), std::iter::once(accuracy));
            }
            self.add("rewards/accuracies", accuracies);
            self.add("rewards/margins", margins.iter().copied());
        }
        Ok(())
    }

    /// The loss of the rows so far, which are part of a step.
    pub(super) fn loss(&self) -> f64 {
        self.loss
    }

    /// Sum of the log-ratios of completions in nats, and their number.
    pub(super) fn log_ratios(&self) -> (f64, usize) {
        self.log_ratios
    }

    /// Tokens, or latents.
    pub(super) fn units(&self) -> usize {
        self.units
    }

    pub(super) fn means(&self) -> Means {
        let counted = self.values.iter().filter(|(_, (_, n))| *n > 0);
        let mut means: Means = counted.map(|(name, (sum, n))| (name.clone(), sum / *n as f64)).collect();
        means.extend(self.terms.iter().map(|(id, part)| (Cow::Owned(format!("loss/{id}")), *part)));
        means.extend(self.kl.map(|kl| (Cow::Borrowed("kl"), kl)));
        if let Some([least, greatest]) = self.extremes {
            means.extend([(Cow::Borrowed("min_reward"), least), (Cow::Borrowed("max_reward"), greatest)]);
            // What TRL's trainer of reward models calls them.
            for (own, trls) in [("rewards/accuracies", "accuracy"), ("rewards/margins", "margin")] {
                let mean = means.get(own).copied();
                means.extend(mean.map(|mean| (Cow::Borrowed(trls), mean)));
            }
        }
        if let (Some(chosen), Some(rejected)) = (means.get("rewards/chosen"), means.get("rewards/rejected")) {
            let margin = chosen - rejected;
            means.entry(Cow::Borrowed("rewards/margins")).or_insert(margin);
        }
        means
    }
}

fn numbers(values: &Tensor) -> Result<impl Iterator<Item = f64> + use<>> {
    Ok(values.to_dtype(DType::F64)?.to_vec1::<f64>()?.into_iter())
}
