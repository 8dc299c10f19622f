//! Training from nothing, for the tiny models that are shipped: one loop, a loss for each kind.
//!
//! The loop is plain: a loss for each step, AdamW, an optional moving average of the weights, checkpoints. What is
//! learnt comes from outside as a function of the example's index, so a resumed run sees the same examples.

mod clip;
mod denoiser;
mod language;
mod tokenizer;
mod vae;

pub use clip::ClipPretraining;
pub use denoiser::{DenoiserPretraining, DenoiserRecipe};
pub use language::{LanguagePretraining, TextExample};
pub use tokenizer::{IMAGE, clip_tokenizer, text_tokenizer};
pub use vae::{VaePretraining, whiten};

use crate::checkpoint;
use crate::error::{Result, TrainError};
use crate::gradients::{Gradients, recorder_of};
use crate::optimizer::{AdamW, AdamWConfig, LrSchedule};
use crate::recipe::Resolver;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use votive_model::files;

/// What an example of images is: a caption with an image `(3, H, W)` in [−1, 1].
pub type Examples<T> = dyn Fn(u64) -> (String, T) + Send + Sync;

/// The settings that all kinds of pretraining share.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Optimizer steps.
    pub steps: u64,
    /// Examples per step.
    pub batch_size: u64,
    /// Equal parts of the batch whose gradients are computed at the same time, each mostly by one core: small
    /// networks have no operation that is worth sharing.
    pub shards: u64,
    /// Highest learning rate.
    pub lr: f64,
    /// How it moves.
    pub shape: LrSchedule,
    /// Steps until it is reached.
    pub warmup_steps: u64,
    /// AdamW's options.
    pub adamw: AdamWConfig,
    /// Bound on the gradient's norm.
    pub max_grad_norm: f64,
    /// Decay of the moving average of the weights; 0 for none.
    pub ema: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
}

impl Schedule {
    /// Asks a recipe for the settings.
    pub fn resolve(r: &mut Resolver) -> Self {
        let steps = r.whole("train.steps", 1, None, "Optimizer steps.");
        let steps = r.require("train.steps", steps).unwrap_or(1);
        let batch_size =
            r.whole("train.batch_size", 1, Some(32), "Examples per optimizer step.").unwrap_or(32);
        let shards = r
            .whole("train.shards", 1, Some(1), "Equal parts of a batch that are computed at the same time.")
            .unwrap_or(1);
        if !batch_size.is_multiple_of(shards) {
            r.mistake("train.shards", &format!("{batch_size} examples cannot be shared evenly by {shards}"));
        }
        let shape = r.choice(
            "optimizer.schedule",
            &["constant", "linear", "cosine"],
            "cosine",
            "Learning-rate schedule.",
        );
        Self {
            steps,
            batch_size,
            shards,
            lr: r.float("optimizer.lr", 0.0, Some(1e-3), "Highest learning rate.").unwrap_or(1e-3),
            shape: match shape.as_str() {
                "constant" => LrSchedule::Constant,
                "linear" => LrSchedule::Linear,
                _ => LrSchedule::Cosine,
            },
            warmup_steps: r
                .whole("optimizer.warmup_steps", 0, Some(100), "Steps of linear warm-up.")
                .unwrap_or(100),
            adamw: AdamWConfig {
                betas: r.betas("optimizer.betas", [0.9, 0.98], "Decay rates of AdamW's moments."),
                eps: r.float("optimizer.eps", 0.0, Some(1e-8), "AdamW's ε.").unwrap_or(1e-8),
                weight_decay: r
                    .float("optimizer.weight_decay", 0.0, Some(0.01), "Decoupled weight decay.")
                    .unwrap_or(0.01),
            },
            max_grad_norm: r
                .float("optimizer.max_grad_norm", 0.0, Some(1.0), "Bound on the gradient's norm.")
                .unwrap_or(1.0),
            ema: r
                .float("train.ema", 0.0, Some(0.0), "Decay of the moving average of the weights; 0 for none.")
                .unwrap_or(0.0),
            seed: r.whole("train.seed", 0, Some(0), "Seed of everything random.").unwrap_or(0),
            save_every: r
                .whole("train.save_every", 1, Some(500), "Steps between checkpoints.")
                .unwrap_or(500),
        }
    }
}

/// Progress of a pretraining.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub of: u64,
    /// Loss of the last step.
    pub loss: f64,
    /// Norm of its gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the last step.
    pub lr: f64,
}

/// What is trained and how far it is.
pub struct Trainer {
    schedule: Schedule,
    parameters: Vec<(String, Tensor)>,
    optimizer: AdamW,
    average: BTreeMap<String, Tensor>,
}

impl Trainer {
    /// Starts with the parameters as they are, or goes on from the newest checkpoint below `folder`.
    ///
    /// # Errors
    /// If a checkpoint cannot be read or has other parameters.
    pub fn start(schedule: Schedule, parameters: Vec<(String, Tensor)>, folder: &Path) -> Result<Self> {
        let optimizer = AdamW::new(schedule.adamw.clone());
        let mut trainer = Self { schedule, parameters, optimizer, average: BTreeMap::new() };
        match checkpoint::newest(folder)?.0 {
            Some(found) => trainer.restore(&found)?,
            None if trainer.schedule.ema > 0.0 => {
                for (name, tensor) in &trainer.parameters {
                    trainer.average.insert(name.clone(), tensor.detach().copy()?);
                }
            }
            None => {}
        }
        Ok(trainer)
    }

    fn restore(&mut self, found: &checkpoint::Checkpoint) -> Result<()> {
        let device = self.parameters.first().map_or(Device::Cpu, |(_, tensor)| tensor.device().clone());
        let read = |name: &str| files::read(&found.path.join(name), &device).map(|file| file.tensors);
        let saved = read("parameters.safetensors")?;
        for (name, tensor) in &self.parameters {
            let Some(value) = saved.get(name).filter(|value| value.dims() == tensor.dims()) else {
                let reason = format!("parameter {name} is missing or has another shape");
                return Err(TrainError::Checkpoint { path: found.path.clone(), reason });
            };
            candle_core::Var::from_tensor(tensor)?.set(value)?;
        }
        self.average = read("average.safetensors")?;
        self.optimizer =
            AdamW::restore(self.schedule.adamw.clone(), found.step, read("optimizer.safetensors")?);
        Ok(())
    }

    /// Steps that are done.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Trains to the end of the schedule; `loss` is called with the numbers of examples, which
    /// count from 0 and are used once.
    ///
    /// # Errors
    /// If a loss or gradient is not finite, a checkpoint cannot be written, or `stop` was set (everything is saved).
    pub fn run(
        &mut self,
        folder: &Path,
        stop: &AtomicBool,
        loss: impl Fn(Range<u64>) -> Result<Tensor> + Sync,
        mut report: impl FnMut(&Progress),
    ) -> Result<()> {
        while self.step() < self.schedule.steps {
            let step = self.step();
            let (value, mut gradients) = self.differentiate(step, &loss)?;
            if !value.is_finite() {
                return Err(TrainError::NotFinite {
                    step,
                    quantity: "loss",
                    place: "the whole batch".to_owned(),
                });
            }
            if step == 0 {
                gradients.require_all(&self.parameters, step)?;
            }
            let grad_norm = gradients.norm(step)?;
            gradients.clip(grad_norm, self.schedule.max_grad_norm)?;
            let lr = self.schedule.lr
                * self.schedule.shape.factor(step, self.schedule.warmup_steps, self.schedule.steps);
            self.optimizer.step(&self.parameters, &gradients, lr)?;
            self.update_average(step)?;
            report(&Progress { step: step + 1, of: self.schedule.steps, loss: value, grad_norm, lr });
            let stopped = stop.load(Ordering::Relaxed);
            if stopped
                || (step + 1).is_multiple_of(self.schedule.save_every)
                || step + 1 == self.schedule.steps
            {
                self.save(folder)?;
            }
            if stopped {
                return Err(TrainError::Interrupted { step: step + 1, path: folder.into() });
            }
        }
        Ok(())
    }

    /// The loss of a step, and its gradients.
    fn differentiate(
        &self,
        step: u64,
        loss: &(impl Fn(Range<u64>) -> Result<Tensor> + Sync),
    ) -> Result<(f64, Gradients)> {
        let Schedule { batch_size, shards, .. } = self.schedule;
        let size = batch_size / shards;
        let shard = |index: u64| {
            let first = step * batch_size + index * size;
            let loss = (loss(first..first + size)? / shards as f64)?;
            let recorder = recorder_of(&self.parameters);
            recorder.backward(&loss)?;
            Ok((f64::from(loss.to_scalar::<f32>()?), Gradients::take(&recorder, &self.parameters)))
        };
        let parts = (0..shards).into_par_iter().map(shard).collect::<Result<Vec<_>>>()?;
        // Summed in the order of the shards, whichever was ready first.
        let mut sum = (0.0, Gradients::default());
        for (loss, gradients) in parts {
            sum.0 += loss;
            sum.1.add(gradients)?;
        }
        Ok(sum)
    }

    fn update_average(&mut self, step: u64) -> Result<()> {
        // A young average follows faster, or it would remember the random start for long.
        let keep = self.schedule.ema.min((1.0 + step as f64) / (10.0 + step as f64));
        for (name, tensor) in &self.parameters {
            if let Some(average) = self.average.get_mut(name) {
                *average = ((&*average * keep)? + (tensor.detach() * (1.0 - keep))?)?;
            }
        }
        Ok(())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let step = self.step();
        let name = format!("step-{step:07}");
        checkpoint::write(folder, &name, step, |folder| {
            let put = |file: &str, tensors: Vec<(String, Tensor)>| {
                files::write(&folder.join(file), tensors, DType::F32, BTreeMap::new())
            };
            put("parameters.safetensors", self.parameters.clone())?;
            put("average.safetensors", self.average.clone().into_iter().collect())?;
            put("optimizer.safetensors", self.optimizer.state().collect())?;
            Ok(())
        })?;
        // One older checkpoint is kept, in case the newest does not verify.
        let old = step.saturating_sub(2 * self.schedule.save_every);
        let _ = std::fs::remove_dir_all(folder.join(format!("step-{old:07}")));
        Ok(())
    }

    /// The result: the moving average where there is one, else the parameters.
    ///
    /// # Errors
    /// Those of candle.
    pub fn result(&self) -> Result<BTreeMap<String, Tensor>> {
        let named = self.parameters.iter().map(|(name, tensor)| {
            let value = self.average.get(name).cloned().unwrap_or_else(|| tensor.detach());
            Ok((name.clone(), value.copy()?))
        });
        named.collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::Var;

    fn schedule(shards: u64) -> Schedule {
        Schedule {
            steps: 6,
            batch_size: 8,
            shards,
            lr: 0.05,
            shape: LrSchedule::Cosine,
            warmup_steps: 2,
            adamw: AdamWConfig { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.01 },
            max_grad_norm: 1.0,
            ema: 0.9,
            seed: 0,
            save_every: 2,
        }
    }

    /// Trains a line through some points until `stop_at`, and gives its two numbers and their averages.
    fn train(shards: u64, folder: &Path, stop_at: u64) -> Vec<f32> {
        let parameters = ["slope", "offset"]
            .map(|name| (name.to_owned(), Var::new(&[0.5f32], &Device::Cpu).unwrap().into_inner()));
        let (slope, offset) = (parameters[0].1.clone(), parameters[1].1.clone());
        let mut trainer = Trainer::start(schedule(shards), parameters.to_vec(), folder).unwrap();
        let loss = |examples: Range<u64>| {
            let at = examples.map(|i| (i % 7) as f32).collect::<Vec<_>>();
            let x = Tensor::new(at, &Device::Cpu)?;
            let wanted = ((&x * 2.0)? - 1.0)?;
            Ok((x.broadcast_mul(&slope)?.broadcast_add(&offset)? - wanted)?.sqr()?.mean_all()?)
        };
        let stop = AtomicBool::new(false);
        let stopped = trainer.run(folder, &stop, loss, |progress| {
            stop.store(progress.step == stop_at, Ordering::Relaxed);
        });
        assert_eq!(stopped.is_err(), stop_at > 0, "{stopped:?}");
        let values = parameters
            .iter()
            .map(|(_, tensor)| tensor.detach())
            .chain(trainer.result().unwrap().into_values());
        values.map(|tensor| tensor.to_vec1::<f32>().unwrap()[0]).collect()
    }

    #[test]
    fn shards_change_nothing_but_rounding() {
        let run = |shards| train(shards, tempfile::tempdir().unwrap().path(), 0);
        let whole = run(1);
        assert!((whole[0] - 0.5).abs() > 0.05, "nothing was learnt: {whole:?}");
        for shards in [2, 4, 8] {
            for (one, other) in whole.iter().zip(run(shards)) {
                assert!((one - other).abs() < 1e-6, "{shards} shards: {one} and {other}");
            }
        }
    }

    #[test]
    fn a_stopped_run_goes_on_to_the_same_numbers() {
        let folder = tempfile::tempdir().unwrap();
        train(2, folder.path(), 3);
        assert_eq!(train(2, folder.path(), 0), train(2, tempfile::tempdir().unwrap().path(), 0));
    }
}
