//! A reference that follows the policy: it is an immutable network until the next update makes another one.
//!
//! Source: Gorbatovski et al., arXiv:2404.09656 (TR-DPO, soft and hard updates of Sec. 3); Block & Zhang,
//! arXiv:2508.00180 (BEMA), with the settings of trl 1.16's `BEMACallback`. The same type serves text and images.
//!
//! Source of the limit: "Rethinking direct preference optimization in diffusion models", arXiv:2505.18736: a reference that has gone
//! as far from the start as it may is never updated again. The paper stops when the limit is passed; here the update that
//! would pass it is not made, so the limit holds.
//!
//! Only what is trained is kept a second time. Under an adapter its factors are mixed, not their product, which is
//! the same for hard updates only.

use crate::error::Result;
use candle_core::Tensor;
use std::collections::BTreeMap;
use votive_model::Params;

/// How the reference follows, and how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateRule {
    /// Steps from one update to the next.
    pub every: u64,
    /// What an update does.
    pub kind: UpdateKind,
    /// How far the reference may go from the policy's start, δ: denoising errors of the chosen images, or nats of the
    /// chosen completions, beyond those of the start. None for no limit.
    pub max_divergence: Option<f64>,
}

/// What an update does with the reference's values r and those of the policy, θ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateKind {
    /// `r ← αθ + (1 − α)r`: TR-DPO's soft update. With α = 1 its hard one, the policy as it is now; with a small α and
    /// an update at every step the exponential moving average.
    Mix {
        /// α, above 0 and at most 1.
        alpha: f64,
    },
    /// `e ← β_t θ + (1 − β_t)e` and `r ← e + α_t(θ − θ_0)`, with `β_t = (10 + t)^(−1/2)` and `α_t = (10 + t)^(−1/5)`:
    /// the average without its lag.
    Bema,
}

/// BEMA's ρ, κ and η.
const LAG: f64 = 10.0;
const EMA_POWER: f64 = 0.5;
const BIAS_POWER: f64 = 0.2;

/// Values by name.
pub(super) type Named = BTreeMap<String, Tensor>;

/// The values of a reference that follows.
#[derive(Debug)]
pub(super) struct Follower {
    rule: UpdateRule,
    /// A network of the policy's shape; what is trained in it is always replaced.
    shell: Params,
    /// θ₀.
    start: Named,
    /// r.
    values: Named,
    /// e, with BEMA.
    average: Named,
    /// Whether the limit was reached, so that nothing changes any more.
    is_frozen: bool,
}

/// What an update would make of a reference.
pub(super) struct Update {
    values: Named,
    average: Named,
}

/// Where the parts lie in a checkpoint.
const VALUES: &str = "reference.";
const AVERAGE: &str = "average.";
const FROZEN: &str = "frozen";

impl Follower {
    /// The reference of a policy as the recipe starts it, at the start or as a checkpoint has it.
    ///
    /// # Errors
    /// Those of candle.
    pub(super) fn new(rule: UpdateRule, policy: &Params, saved: Option<Named>) -> Result<Self> {
        // A copy: what is detached shares its memory with the policy.
        let copy = |(name, tensor): (String, Tensor)| Ok((name, tensor.detach().copy()?));
        let start = policy.trainable().into_iter().map(copy).collect::<Result<Named>>()?;
        let part = |prefix: &str| match &saved {
            None => start.clone(),
            Some(saved) => saved
                .iter()
                .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())))
                .collect(),
        };
        let average = if rule.kind == UpdateKind::Bema { part(AVERAGE) } else { Named::new() };
        let is_frozen = saved.as_ref().is_some_and(|saved| saved.contains_key(FROZEN));
        Ok(Self { rule, shell: policy.clone(), values: part(VALUES), start, average, is_frozen })
    }

    /// The reference's parameters, without gradients.
    ///
    /// # Errors
    /// Those of candle.
    pub(super) fn params(&self) -> Result<Params> {
        Ok(self.shell.with_values(&self.values)?)
    }

    /// The parameters that it would have after an update.
    ///
    /// # Errors
    /// Those of candle.
    pub(super) fn params_after(&self, update: &Update) -> Result<Params> {
        Ok(self.shell.with_values(&update.values)?)
    }

    /// The parameters of the policy's start.
    ///
    /// # Errors
    /// Those of candle.
    pub(super) fn start_params(&self) -> Result<Params> {
        Ok(self.shell.with_values(&self.start)?)
    }

    /// How far it may go from the start.
    pub(super) fn max_divergence(&self) -> Option<f64> {
        self.rule.max_divergence
    }

    fn is_due(&self, done: u64) -> bool {
        !self.is_frozen && done.is_multiple_of(self.rule.every)
    }

    /// Whether an update after step `done` is made only if it does not lead too far.
    pub(super) fn measures_at(&self, done: u64) -> bool {
        self.is_due(done) && self.rule.max_divergence.is_some()
    }

    /// Keeps the reference as it is for good.
    pub(super) fn freeze(&mut self) {
        self.is_frozen = true;
    }

    /// What a checkpoint needs to go on.
    pub(super) fn state(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        let named = |prefix, values: &'_ Named| {
            let values = values.iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor.clone()));
            values.collect::<Vec<_>>()
        };
        // That there is one says it; a file of tensors has no other place.
        let mark = self.is_frozen.then(|| self.start.values().next().cloned()).flatten();
        let mark = mark.map(|tensor| (FROZEN.to_owned(), tensor));
        named(VALUES, &self.values).into_iter().chain(named(AVERAGE, &self.average)).chain(mark)
    }

    /// What an update after step `done`, counted from 1, would make of it, if it is time for one.
    ///
    /// # Errors
    /// Those of candle.
    pub(super) fn due(&self, policy: &Params, done: u64) -> Result<Option<Update>> {
        if !self.is_due(done) {
            return Ok(None);
        }
        let mut update = Update { values: Named::new(), average: Named::new() };
        let power = |exponent: f64| (LAG + done as f64).powf(-exponent);
        for (name, theta) in policy.trainable() {
            let theta = theta.detach();
            let value = match self.rule.kind {
                UpdateKind::Mix { alpha: 1.0 } => theta.copy()?,
                UpdateKind::Mix { alpha } => mix(&theta, &self.values[&name], alpha)?,
                UpdateKind::Bema => {
                    let average = mix(&theta, &self.average[&name], power(EMA_POWER))?;
                    let drift = ((theta - &self.start[&name])? * power(BIAS_POWER))?;
                    let value = (&average + drift)?;
                    update.average.insert(name.clone(), average);
                    value
                }
            };
            update.values.insert(name, value);
        }
        Ok(Some(update))
    }

    /// Makes an update.
    pub(super) fn apply(&mut self, update: Update) {
        self.values.extend(update.values);
        self.average.extend(update.average);
    }
}

/// `α·new + (1 − α)·old`.
fn mix(new: &Tensor, old: &Tensor, alpha: f64) -> Result<Tensor> {
    Ok(((new * alpha)? + (old * (1.0 - alpha))?)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// A policy of one number, moved to the given values, and the reference after each.
    fn followed(rule: UpdateRule, moves: &[f64]) -> Vec<f64> {
        let theta = Var::new(&[1f64], &Device::Cpu).unwrap();
        let tensors = [("w".to_owned(), theta.as_tensor().clone())].into();
        let policy = Params::new("a test", tensors, &Device::Cpu);
        let mut follower = Follower::new(rule, &policy, None).unwrap();
        let step = |(index, value): (usize, &f64)| {
            theta.set(&Tensor::new(&[*value], &Device::Cpu).unwrap()).unwrap();
            if let Some(update) = follower.due(&policy, index as u64 + 1).unwrap() {
                follower.apply(update);
            }
            follower.params().unwrap().get("w").unwrap().to_vec1::<f64>().unwrap()[0]
        };
        moves.iter().enumerate().map(step).collect()
    }

    #[test]
    fn hard_updates_are_snapshots() {
        let rule = UpdateRule { every: 2, kind: UpdateKind::Mix { alpha: 1.0 }, max_divergence: None };
        assert_eq!(followed(rule, &[3.0, 5.0, 7.0, 9.0]), [1.0, 5.0, 5.0, 9.0]);
    }

    #[test]
    fn soft_updates_go_part_of_the_way() {
        let rule = UpdateRule { every: 1, kind: UpdateKind::Mix { alpha: 0.25 }, max_divergence: None };
        assert_eq!(followed(rule, &[5.0, 10.0]), [2.0, 4.0]);
    }

    #[test]
    fn bema_adds_the_drift_to_the_average() {
        let rule = UpdateRule { every: 1, kind: UpdateKind::Bema, max_divergence: None };
        let found = followed(rule, &[3.0, 4.0]);
        let (mut average, mut expected) = (1.0, Vec::new());
        for (t, theta) in [(1.0f64, 3.0), (2.0, 4.0)] {
            let beta = 1.0 / (10.0 + t).sqrt();
            average = beta * theta + (1.0 - beta) * average;
            expected.push(average + (theta - 1.0) / (10.0 + t).powf(0.2));
        }
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
    }
}
