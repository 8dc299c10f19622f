//! An exponential moving average of the trained weights, which ends smoother than the weights themselves.
//!
//! `ema ← ema − (1 − d)·(ema − θ)` after every optimizer step, with a decay d that grows from 0 up to its bound.
//! Checked against: diffusers 0.42.1, `EMAModel`, decays and weights.

use crate::error::Result;
use candle_core::Tensor;
use std::collections::BTreeMap;
use votive_model::Params;

/// How fast an average follows, and whether it is what the run ends with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmaPlan {
    /// The largest decay.
    pub decay: f64,
    /// The smallest decay once the average has begun.
    pub min_decay: f64,
    /// Steps during which it stays what the weights are.
    pub after: u64,
    /// How the decay grows.
    pub warmup: EmaWarmup,
    /// Whether the finished model and the samples of the run are the average's.
    pub is_final: bool,
}

/// How the decay grows with the steps s since the average began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EmaWarmup {
    /// `(1 + s) / (10 + s)`.
    Ratio,
    /// `1 − (1 + s/inv_gamma)^(−power)`.
    Power {
        /// Steps that count as one.
        inv_gamma: f64,
        /// The exponent.
        power: f64,
    },
}

impl EmaPlan {
    /// The decay of the update after step `done`, counted from 1.
    #[must_use]
    pub fn decay_at(&self, done: u64) -> f64 {
        let step = done.saturating_sub(self.after + 1) as f64;
        if step <= 0.0 {
            return 0.0;
        }
        let grown = match self.warmup {
            EmaWarmup::Ratio => (1.0 + step) / (10.0 + step),
            EmaWarmup::Power { inv_gamma, power } => 1.0 - (1.0 + step / inv_gamma).powf(-power),
        };
        grown.min(self.decay).max(self.min_decay)
    }
}

/// The average of a run's weights.
#[derive(Debug)]
pub struct Ema {
    plan: EmaPlan,
    values: BTreeMap<String, Tensor>,
}

impl Ema {
    /// The average of a policy as the recipe starts it, or as a checkpoint has it.
    ///
    /// # Errors
    /// Those of candle.
    pub(crate) fn new(
        plan: EmaPlan,
        policy: &Params,
        saved: Option<BTreeMap<String, Tensor>>,
    ) -> Result<Self> {
        // A copy: what is detached shares its memory with the policy.
        let copy = |(name, tensor): (String, Tensor)| Ok((name, tensor.detach().copy()?));
        let start = || policy.trainable().into_iter().map(copy).collect();
        Ok(Self { plan, values: saved.map_or_else(start, Ok::<_, crate::error::TrainError>)? })
    }

    /// Follows the policy after step `done`, counted from 1.
    ///
    /// # Errors
    /// Those of candle.
    pub(crate) fn follow(&mut self, policy: &[(String, Tensor)], done: u64) -> Result<()> {
        let share = 1.0 - self.plan.decay_at(done);
        for (name, theta) in policy {
            let theta = theta.detach();
            let next = match self.values.get(name) {
                Some(ema) if share < 1.0 => (ema - ((ema - &theta)? * share)?)?,
                _ => theta.copy()?,
            };
            self.values.insert(name.clone(), next);
        }
        Ok(())
    }

    /// The averages by name: what a checkpoint needs to go on.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<String, Tensor> {
        &self.values
    }

    /// How it follows.
    #[must_use]
    pub fn plan(&self) -> EmaPlan {
        self.plan
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};
    use serde_json::Value;
    use std::path::Path;

    /// Decays and averages of every case of `tools/parity/ema.py`.
    #[test]
    fn decays_and_averages_are_those_of_diffusers() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/ema/cases.json");
        let cases: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let cases = cases.as_array().unwrap();
        assert_eq!(cases.len(), 5);
        for case in cases {
            let number = |name: &str| case["settings"][name].as_f64().unwrap();
            let power = EmaWarmup::Power { inv_gamma: number("inv_gamma"), power: number("power") };
            let plan = EmaPlan {
                decay: number("decay"),
                min_decay: number("min_decay"),
                after: number("update_after_step") as u64,
                warmup: if case["settings"]["use_ema_warmup"] == true { power } else { EmaWarmup::Ratio },
                is_final: true,
            };
            let of = |name: &str| case[name].as_array().unwrap().clone();
            for (step, decay) in of("long_decays").iter().map(|pair| (pair[0].as_u64(), pair[1].as_f64())) {
                assert!((plan.decay_at(step.unwrap()) - decay.unwrap()).abs() < 1e-12, "{case}");
            }
            let weights: Vec<Vec<f64>> = serde_json::from_value(case["weights"].clone()).unwrap();
            let averages: Vec<Vec<f64>> = serde_json::from_value(case["averages"].clone()).unwrap();
            let theta = Var::new(weights[0].as_slice(), &Device::Cpu).unwrap();
            let named = [("w".to_owned(), theta.as_tensor().clone())];
            let policy = Params::new("a test", named.clone().into(), &Device::Cpu);
            let mut ema = Ema::new(plan, &policy, None).unwrap();
            for (done, (weights, expected)) in (1..).zip(weights[1..].iter().zip(&averages)) {
                theta.set(&Tensor::new(weights.as_slice(), &Device::Cpu).unwrap()).unwrap();
                ema.follow(&named, done).unwrap();
                let found = ema.values()["w"].to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
                assert!(
                    found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12),
                    "{found:?} {expected:?}"
                );
            }
        }
    }
}
