//! Runs from a plan, as the program makes them, and what is compared of them.

use candle_core::Tensor;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use votive_diffusion::BoxError;
use votive_model::Params;
use votive_train::front_end::FrontEnd;
use votive_train::gradients::Gradients;
use votive_train::reward::ImageReward;
use votive_train::{Plan, Result, RewardKind, Run, RunDirectory, StepMetrics, TrainError};

/// Prepares a plan of either modality and goes on with its front end and the policy at its start.
macro_rules! with_prepared {
    ($plan:expr, |$front:ident, $start:ident| $body:expr) => {
        match votive_train::prepare($plan, &candle_core::Device::Cpu, &crate::drive::brightness, |_, _| {})
            .unwrap()
        {
            votive_train::Prepared::Rollout($front, $start, _) => {
                let $front = *$front;
                $body
            }
            votive_train::Prepared::Text($front, $start, _) => {
                let $front = *$front;
                $body
            }
            votive_train::Prepared::Reward($front, $start, _) => {
                let $front = *$front;
                $body
            }
            votive_train::Prepared::Image($front, $start, _) => {
                let $front = *$front;
                $body
            }
        }
    };
}
pub(crate) use with_prepared;

/// Prefers bright pictures, whatever the prompt.
struct Brightness;

impl ImageReward for Brightness {
    fn score(&self, _: &[String], images: &Tensor) -> std::result::Result<Vec<f64>, BoxError> {
        let means = images.flatten_from(1)?.mean(1)?.to_vec1::<f32>()?;
        Ok(means.into_iter().map(f64::from).collect())
    }
}

/// The reward of runs that draw their own pictures.
pub(crate) fn brightness(_: RewardKind) -> Arc<dyn ImageReward> {
    Arc::new(Brightness)
}

/// The reward of runs that ask for none.
pub(crate) fn no_reward(kind: RewardKind) -> Arc<dyn ImageReward> {
    panic!("{kind:?} was asked for")
}

/// Starts a run or goes on with it, and asks it to stop after a step; returns the checkpoints that were passed over.
pub(crate) fn drive(
    plan: &Plan,
    directory: &RunDirectory,
    stop_after: Option<u64>,
) -> Result<Vec<TrainError>> {
    drive_watched(plan, directory, |step| stop_after == Some(step))
}

/// The same; `watch` is called after every step and says whether to stop.
pub(crate) fn drive_watched(
    plan: &Plan,
    directory: &RunDirectory,
    watch: impl Fn(u64) -> bool,
) -> Result<Vec<TrainError>> {
    with_prepared!(plan, |front, start| {
        let (resumed, skipped) = directory.newest(plan, &front, &start)?;
        let mut run = Run::new(plan, &front, start, resumed, |_, _| {})?;
        let stop = AtomicBool::new(false);
        directory.train(&mut run, plan, &front, &stop, &mut |metrics: &StepMetrics| {
            stop.store(watch(metrics.step), Ordering::Relaxed);
        })?;
        Ok(skipped)
    })
}

/// Values by name.
pub(crate) type Named = BTreeMap<String, Vec<f32>>;

/// A run in memory.
#[derive(Debug)]
pub(crate) struct Trajectory {
    /// Gradients of the first step, before clipping.
    pub(crate) gradients: Named,
    /// One line per step, as in `metrics.jsonl`.
    pub(crate) metrics: Vec<Value>,
    /// The trained parameters at the end.
    pub(crate) weights: Named,
}

impl Trajectory {
    /// The run of a plan to its end.
    pub(crate) fn of(plan: &Plan) -> Self {
        Self::attempt(plan).unwrap()
    }

    /// The same, where the run may fail.
    pub(crate) fn attempt(plan: &Plan) -> Result<Self> {
        with_prepared!(plan, |front, start| Self::run(plan, &front, start))
    }

    fn run<F: FrontEnd>(plan: &Plan, front: &F, start: Params) -> Result<Self> {
        let mut run = Run::new(plan, front, start, None, |_, _| {})?;
        let gradients = run.evaluate(0)?.gradients;
        let gradients = run.params().trainable().iter().map(|(name, _)| gradient(&gradients, name)).collect();
        let mut metrics = Vec::new();
        for _ in 0..plan.train.steps {
            metrics.push(serde_json::to_value(run.step()?).unwrap());
        }
        let weights = run.params().trainable().into_iter().map(|(name, tensor)| (name, values(&tensor)));
        Ok(Self { gradients, metrics, weights: weights.collect() })
    }

    /// A metric of every step.
    pub(crate) fn metric(&self, name: &str) -> Vec<f64> {
        self.metrics.iter().map(|step| step[name].as_f64().unwrap_or(f64::NAN)).collect()
    }

    /// Checks that nothing differs from `other`, not in one bit.
    #[track_caller]
    pub(crate) fn assert_same(&self, other: &Self) {
        self.assert_same_but(other, "");
    }

    /// The same but for one metric.
    #[track_caller]
    pub(crate) fn assert_same_but(&self, other: &Self, metric: &str) {
        let compared = |run: &Self| {
            let mut metrics = run.metrics.clone();
            for line in &mut metrics {
                line.as_object_mut().unwrap().remove(metric);
            }
            metrics
        };
        assert_eq!(compared(self), compared(other));
        for (mine, others) in [(&self.gradients, &other.gradients), (&self.weights, &other.weights)] {
            assert_eq!(mine.len(), others.len());
            for (name, mine) in mine {
                let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert!(bits(mine) == bits(&others[name]), "{name} differs");
            }
        }
    }
}

fn gradient(gradients: &Gradients, name: &str) -> (String, Vec<f32>) {
    (name.to_owned(), gradients.get(name).map(values).unwrap_or_default())
}

/// All values of a tensor.
pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}
