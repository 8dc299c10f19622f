//! A reference that follows the policy: it is an immutable network until the next update makes another one.
//!
//! Source: Gorbatovski et al., arXiv:2404.09656 (TR-DPO; soft updates Eq. 6, hard updates Eq. 7); Block & Zhang,
//! arXiv:2508.00180 (BEMA), with the settings of trl 1.16's `BEMACallback`. The same type serves text and images.
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
}

/// What an update of the reference does with its values r and those of the policy, θ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateKind {
    /// `r ← αθ + (1 − α)r`: TR-DPO's soft update; with α = 1 its hard one, the policy as it is now; with small α and
    /// an update at every step the exponential moving average.
    Soft {
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
type Named = BTreeMap<String, Tensor>;

/// The values of a following reference.
#[derive(Debug)]
pub struct Follower {
    rule: UpdateRule,
    /// The policy as the recipe starts it.
    start: Params,
    /// r.
    values: Named,
    /// e (BEMA alone).
    average: Named,
}

/// Where the parts lie in a checkpoint.
const VALUES: &str = "reference.";
const AVERAGE: &str = "average.";

impl Follower {
    /// The reference of a policy at its start, or as a checkpoint has it.
    ///
    /// # Errors
    /// Those of candle.
    pub(super) fn new(rule: UpdateRule, policy: &Params, saved: Option<Named>) -> Result<Self> {
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
        let values = part(VALUES);
        Ok(Self { rule, start: policy.with_values(&start)?, values, average })
    }

    /// The reference's parameters, without gradients.
    ///
    /// # Errors
    /// Those of candle.
    pub(super) fn params(&self, policy: &Params) -> Result<Params> {
        Ok(policy.with_values(&self.values)?)
    }

    /// Follows the policy after step `done`, counted from 1, if it is time; says whether anything changed.
    ///
    /// # Errors
    /// Those of candle.
    pub(super) fn follow(&mut self, policy: &Params, done: u64) -> Result<bool> {
        if !done.is_multiple_of(self.rule.every) {
            return Ok(false);
        }
        let power = |exponent: f64| (LAG + done as f64).powf(-exponent);
        let start: Named = self.start_values(policy);
        for (name, theta) in policy.trainable() {
            let theta = theta.detach();
            let value = match (self.rule.kind, self.values.get(&name)) {
                // A copy: what is detached shares its memory with the policy.
                (UpdateKind::Soft { alpha: 1.0 }, _) | (_, None) => theta.copy()?,
                (UpdateKind::Soft { alpha }, Some(value)) => mix(&theta, value, alpha)?,
                (UpdateKind::Bema, Some(_)) => {
                    let average = mix(&theta, &self.average[&name], power(EMA_POWER))?;
                    let drift = ((theta - &start[&name])? * power(BIAS_POWER))?;
                    let value = (&average + drift)?;
                    self.average.insert(name.clone(), average);
                    value
                }
            };
            self.values.insert(name, value);
        }
        Ok(true)
    }
}

/// `α·new + (1 − α)·old`.
fn mix(new: &Tensor, old: &Tensor, alpha: f64) -> Result<Tensor> {
    Ok(((new * alpha)? + (old * (1.0 - alpha))?)?)
}
