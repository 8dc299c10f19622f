//! AdamW in place, with named state that can be saved, and the learning-rate schedules.
//!
//! Source: Loshchilov & Hutter, "Decoupled weight decay regularization", arXiv:1711.05101, Alg. 2; the order of
//! operations is torch's, decay first. Weight decay applies to every trainable parameter, as in torch.

use crate::error::Result;
use crate::gradients::Gradients;
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Options of AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decay of the weights per unit of learning rate.
    pub weight_decay: f64,
}

/// The optimizer: two moments for every trained parameter, by name.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    step: u64,
    moments: BTreeMap<String, [Tensor; 2]>,
}

impl AdamW {
    /// An optimizer that has not made a step.
    #[must_use]
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, step: 0, moments: BTreeMap::new() }
    }

    /// An optimizer as it was after `step` steps; `state` is what [`AdamW::state`] gave.
    #[must_use]
    pub fn restore(config: AdamWConfig, step: u64, mut state: BTreeMap<String, Tensor>) -> Self {
        let names: Vec<String> =
            state.keys().filter_map(|key| key.strip_suffix(FIRST).map(str::to_owned)).collect();
        let moments = names.into_iter().filter_map(|name| {
            let first = state.remove(&format!("{name}{FIRST}"))?;
            let second = state.remove(&format!("{name}{SECOND}"))?;
            Some((name, [first, second]))
        });
        Self { config, step, moments: moments.collect() }
    }

    /// The moments as named tensors.
    pub fn state(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        self.moments.iter().flat_map(|(name, [first, second])| {
            [(format!("{name}{FIRST}"), first.clone()), (format!("{name}{SECOND}"), second.clone())]
        })
    }

    /// Steps that were made.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One step: changes every parameter that has a gradient, in place.
    ///
    /// # Errors
    /// Those of candle.
    pub fn step(&mut self, parameters: &[(String, Tensor)], gradients: &Gradients, lr: f64) -> Result<()> {
        self.step += 1;
        let [beta1, beta2] = self.config.betas;
        let correction = |beta: f64| 1.0 - beta.powf(self.step as f64);
        let update = Update {
            decay: (1.0 - lr * self.config.weight_decay) as f32,
            rate: (lr / correction(beta1)) as f32,
            root: correction(beta2).sqrt() as f32,
            eps: self.config.eps as f32,
        };
        for (name, parameter) in parameters {
            let Some(gradient) = gradients.get(name) else { continue };
            if !self.moments.contains_key(name) {
                self.moments.insert(name.clone(), [parameter.zeros_like()?, parameter.zeros_like()?]);
            }
            if let Some([first, second]) = self.moments.get_mut(name) {
                apply(parameter, gradient, (first, second), (beta1 as f32, beta2 as f32), &update)?;
            }
        }
        Ok(())
    }
}

const FIRST: &str = "#first_moment";
const SECOND: &str = "#second_moment";

fn apply(
    parameter: &Tensor,
    gradient: &Tensor,
    (first, second): (&mut Tensor, &mut Tensor),
    (beta1, beta2): (f32, f32),
    update: &Update,
) -> Result<()> {
    if parameter.device().is_cpu() {
        let gradient = gradient.contiguous()?;
        first.inplace_op2(&gradient, &Blend { keep: beta1, square: false })?;
        second.inplace_op2(&gradient, &Blend { keep: beta2, square: true })?;
        parameter.inplace_op3(first, second, update)?;
        return Ok(());
    }
    let blend =
        |old: &Tensor, new: Tensor, keep: f32| (old * f64::from(keep))? + (new * f64::from(1.0 - keep))?;
    *first = blend(first, gradient.clone(), beta1)?;
    *second = blend(second, gradient.sqr()?, beta2)?;
    let denominator = ((second.sqrt()? / f64::from(update.root))? + f64::from(update.eps))?;
    let moved =
        ((parameter * f64::from(update.decay))? - (first.div(&denominator)? * f64::from(update.rate))?)?;
    candle_core::Var::from_tensor(parameter)?.set(&moved.detach())?;
    Ok(())
}

/// Elements that one thread takes at a time.
const CHUNK: usize = 1 << 15;

fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("AdamW: expected contiguous f32"),
    }
}

fn numbers_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("AdamW: expected contiguous f32"),
    }
}

/// `m ← keep·m + (1 − keep)·g`, or with g² for the second moment.
struct Blend {
    keep: f32,
    square: bool,
}

impl InplaceOp2 for Blend {
    fn name(&self) -> &'static str {
        "adamw moment"
    }

    fn cpu_fwd(
        &self,
        m: &mut CpuStorage,
        ml: &Layout,
        g: &CpuStorage,
        gl: &Layout,
    ) -> candle_core::Result<()> {
        let (m, g) = (numbers_mut(m, ml)?, numbers(g, gl)?);
        let new = 1.0 - self.keep;
        m.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).for_each(|(m, g)| {
            for (m, g) in m.iter_mut().zip(g) {
                let g = if self.square { g * g } else { *g };
                *m = self.keep * *m + new * g;
            }
        });
        Ok(())
    }
}

/// `p ← decay·p − rate·m / (√v/root + ε)`.
struct Update {
    decay: f32,
    rate: f32,
    root: f32,
    eps: f32,
}

impl InplaceOp3 for Update {
    fn name(&self) -> &'static str {
        "adamw update"
    }

    fn cpu_fwd(
        &self,
        p: &mut CpuStorage,
        pl: &Layout,
        m: &CpuStorage,
        ml: &Layout,
        v: &CpuStorage,
        vl: &Layout,
    ) -> candle_core::Result<()> {
        let (p, m, v) = (numbers_mut(p, pl)?, numbers(m, ml)?, numbers(v, vl)?);
        (p.par_chunks_mut(CHUNK), m.par_chunks(CHUNK), v.par_chunks(CHUNK)).into_par_iter().for_each(
            |(p, m, v)| {
                for ((p, m), v) in p.iter_mut().zip(m).zip(v) {
                    *p = *p * self.decay - self.rate * *m / (v.sqrt() / self.root + self.eps);
                }
            },
        );
        Ok(())
    }
}

/// How the learning rate moves over a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// Stays as it is after the warm-up.
    Constant,
    /// Falls in a straight line to 0 at the end.
    Linear,
    /// Falls along half a cosine to 0 at the end.
    Cosine,
}

impl LrSchedule {
    /// The factor on the learning rate at `step` of `total`, counted from 0, with a linear warm-up; as in
    /// transformers' schedules, step 0 of a warm-up has factor 0.
    #[must_use]
    pub fn factor(self, step: u64, warmup: u64, total: u64) -> f64 {
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => (1.0 - progress).max(0.0),
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn two_steps_by_hand() {
        let p = Var::new(&[1.0f32, -2.0], &Device::Cpu).unwrap();
        let parameters = [("p".to_owned(), p.as_tensor().clone())];
        let config = AdamWConfig { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.1 };
        let mut optimizer = AdamW::new(config);
        let gradient =
            |a: f32, b: f32| Gradients::from([("p".to_owned(), Tensor::new(&[a, b], &Device::Cpu).unwrap())]);
        // The first step moves by lr against the gradient's sign, whatever its size.
        optimizer.step(&parameters, &gradient(0.5, -4.0), 0.01).unwrap();
        let first = p.to_vec1::<f32>().unwrap();
        assert!(
            (first[0] - (0.999 - 0.01)).abs() < 1e-6 && (first[1] - (-1.998 + 0.01)).abs() < 1e-6,
            "{first:?}"
        );
        // A zero gradient still moves by the remembered moment: m̂ = 0.45·g/0.19·0.1…, here by hand.
        optimizer.step(&parameters, &gradient(0.0, 0.0), 0.01).unwrap();
        let (m, v) = (0.09 * 0.5 / (1.0 - 0.81), 0.000_999 * 0.25 / (1.0 - 0.999f64.powi(2)));
        let expected = f64::from(first[0]) * 0.999 - 0.01 * m / v.sqrt();
        assert!((f64::from(p.to_vec1::<f32>().unwrap()[0]) - expected).abs() < 1e-6);
    }

    #[test]
    fn a_restored_optimizer_makes_the_same_next_step() {
        let config = AdamWConfig { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.0 };
        let gradient =
            Gradients::from([("p".to_owned(), Tensor::new(&[0.3f32, 0.7], &Device::Cpu).unwrap())]);
        let run = |restore: bool| {
            let p = Var::new(&[1.0f32, 2.0], &Device::Cpu).unwrap();
            let parameters = [("p".to_owned(), p.as_tensor().clone())];
            let mut optimizer = AdamW::new(config.clone());
            optimizer.step(&parameters, &gradient, 0.1).unwrap();
            if restore {
                let state = optimizer.state().map(|(n, t)| (n, t.copy().unwrap())).collect();
                optimizer = AdamW::restore(config.clone(), optimizer.steps(), state);
            }
            optimizer.step(&parameters, &gradient, 0.1).unwrap();
            p.to_vec1::<f32>().unwrap()
        };
        assert_eq!(run(false), run(true));
    }

    #[test]
    fn schedules_warm_up_and_end_at_zero() {
        assert_eq!(LrSchedule::Linear.factor(5, 10, 100), 0.5);
        assert_eq!(LrSchedule::Linear.factor(55, 10, 100), 0.5);
        assert_eq!(LrSchedule::Cosine.factor(100, 0, 100), 0.0);
        assert_eq!(LrSchedule::Constant.factor(99, 0, 100), 1.0);
    }
}
