//! The run directory: plan, metrics, checkpoints, and the finished model.

use crate::alarms;
use crate::checkpoint::{self, at};
use crate::error::{Result, TrainError};
use crate::events::EVENTS_FILE;
use crate::front_end::{FrontEnd, SaveDtype};
use crate::heads::HEADS_FILE;
use crate::history::History;
use crate::lock::RunLock;
use crate::model_card::{self, RunFacts};
use crate::optimizer::AdamW;
use crate::plan::{Plan, is_due};
use crate::run::{LogRatios, Resumed, Run};
use crate::run_log::{Entry, RunLog};
use crate::watch::Watch;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use votive_model::{Params, files};

pub use crate::run_log::{ALARMS_FILE, EVALUATIONS_FILE};

/// The resolved recipe of a run.
pub const PLAN_FILE: &str = "plan.toml";
/// One line of JSON for each logged step and each evaluation.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// The checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The finished model.
pub const FINAL: &str = "final";
/// The saved step with the lowest loss on held-out rows: `step`, `eval_loss`, `folder`.
pub const BEST_FILE: &str = "best.json";

/// What a checkpoint keeps of a reference that follows the policy, below `trainer/`.
const REFERENCE_FILE: &str = "reference.safetensors";

/// What a checkpoint keeps of a moving average of the weights, below `trainer/`.
const EMA_FILE: &str = "ema.safetensors";

/// Where a run keeps everything. One process at a time can have it.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    path: PathBuf,
    lock: Arc<RunLock>,
}

/// What a checkpoint knows besides weights and moments.
#[derive(Debug, Serialize, Deserialize)]
struct TrainerState {
    schema_version: u32,
    step: u64,
    num_tokens: u64,
    #[serde(default)]
    log_ratios: LogRatios,
    /// The plan that the checkpoint belongs to.
    plan: String,
}

impl RunDirectory {
    /// A directory for a new run: made if it is not there, refused if it holds another.
    ///
    /// # Errors
    /// If it holds a run already, another process has it, or it cannot be made.
    pub fn create(path: &Path, plan: &Plan) -> Result<Self> {
        let absolute = std::path::absolute(path).map_err(at(path))?;
        let existing = absolute.join(PLAN_FILE);
        if existing.exists() {
            let saved = fs::read_to_string(&existing).map_err(at(&existing))?;
            let reason = match first_difference(&saved, &plan.to_toml()) {
                None => {
                    "holds this run already; go on with `votive resume`, or choose another --out".to_owned()
                }
                Some(difference) => {
                    format!("holds a run of another recipe ({difference}); choose another --out")
                }
            };
            return Err(TrainError::RunDirectory { path: path.into(), reason });
        }
        fs::create_dir_all(&absolute).map_err(at(&absolute))?;
        let lock = Arc::new(RunLock::take(&absolute)?);
        files::write_bytes(&existing, plan.to_toml().as_bytes())?;
        Ok(Self { path: absolute, lock })
    }

    /// Takes back what [`RunDirectory::create`] made, if the run never made a step: the recipe can then be mended and
    /// trained into the same directory.
    pub fn abandon(self) {
        let metrics = self.path.join(METRICS_FILE);
        let made_a_step = fs::metadata(&metrics).is_ok_and(|found| found.len() > 0);
        if !made_a_step && !self.path.join(CHECKPOINTS).exists() {
            // Best effort, and a folder that holds anything else stays: the error that matters is the one that led here.
            let _ = fs::remove_file(metrics);
            let _ = fs::remove_file(self.path.join(EVENTS_FILE));
            let _ = fs::remove_file(self.plan_file());
            let Self { path, lock } = self;
            drop(lock);
            let _ = fs::remove_dir(&path);
        }
    }

    /// The directory of a run that was started before. What a crash left half-written is removed.
    ///
    /// # Errors
    /// If there is no plan in it, or another process has it.
    pub fn open(path: &Path) -> Result<Self> {
        let absolute = std::path::absolute(path).map_err(at(path))?;
        if !absolute.join(PLAN_FILE).exists() {
            let reason = format!("holds no {PLAN_FILE}, so it is not a run's directory");
            return Err(TrainError::RunDirectory { path: path.into(), reason });
        }
        let lock = Arc::new(RunLock::take(&absolute)?);
        checkpoint::sweep(&absolute.join(CHECKPOINTS), |name| name.starts_with("step-"))?;
        checkpoint::sweep(&absolute, |name| name == FINAL)?;
        Ok(Self { path: absolute, lock })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The saved plan.
    #[must_use]
    pub fn plan_file(&self) -> PathBuf {
        self.path.join(PLAN_FILE)
    }

    /// The folder of the finished model.
    #[must_use]
    pub fn final_folder(&self) -> PathBuf {
        self.path.join(FINAL)
    }

    /// The policy, optimizer and token count of the newest whole checkpoint, and the checkpoints that were passed
    /// over, each with the reason.
    ///
    /// # Errors
    /// If the newest checkpoint belongs to another plan, or does not fit the model.
    pub fn newest<F: FrontEnd>(
        &self,
        plan: &Plan,
        front: &F,
        start: &Params,
    ) -> Result<(Option<Resumed>, Vec<TrainError>)> {
        let (found, skipped) = checkpoint::newest(&self.path.join(CHECKPOINTS))?;
        let Some(found) = found else { return Ok((None, skipped)) };
        let trainer = found.path.join("trainer");
        let state_path = trainer.join("state.json");
        let text = fs::read(&state_path).map_err(at(&state_path))?;
        let state: TrainerState = serde_json::from_slice(&text).map_err(|error| TrainError::Checkpoint {
            path: found.path.clone(),
            reason: format!("trainer/state.json: {error}"),
        })?;
        if let Some(difference) = first_difference(&state.plan, &plan.to_toml()) {
            let reason = format!(
                "its {PLAN_FILE} was changed after the run began ({difference}); put it back, or start a new run"
            );
            return Err(TrainError::RunDirectory { path: self.path.clone(), reason });
        }
        let params = front.restore(start, &found.path)?;
        let moments = files::read(&trainer.join("optimizer.safetensors"), start.device())?.tensors;
        let optimizer = AdamW::restore(plan.optimizer.adamw.clone(), state.step, moments);
        let kept = |name: &str| -> Result<Option<BTreeMap<String, Tensor>>> {
            let file = trainer.join(name);
            let read = file.exists().then(|| files::read(&file, start.device())).transpose()?;
            Ok(read.map(|file| file.tensors))
        };
        let resumed = Resumed {
            params,
            optimizer,
            reference: kept(REFERENCE_FILE)?,
            ema: kept(EMA_FILE)?,
            heads: kept(HEADS_FILE)?,
            num_tokens: state.num_tokens,
            log_ratios: state.log_ratios,
        };
        Ok((Some(resumed), skipped))
    }

    fn save<F: FrontEnd>(&self, run: &Run<F>, plan: &Plan, front: &F) -> Result<PathBuf> {
        let step = run.steps_done();
        checkpoint::write(&self.path.join(CHECKPOINTS), &checkpoint_name(step), step, |folder| {
            // Exact, whatever the last model is written in: a resumed run is bit-identical.
            front.save(run.params(), folder, SaveDtype::Float32)?;
            let trainer = folder.join("trainer");
            fs::create_dir_all(&trainer).map_err(at(&trainer))?;
            let moments: Vec<_> = run.optimizer().state().collect();
            files::write(&trainer.join("optimizer.safetensors"), moments, DType::F32, BTreeMap::new())?;
            let reference = run.reference().state();
            if !reference.is_empty() {
                files::write(&trainer.join(REFERENCE_FILE), reference, DType::F32, BTreeMap::new())?;
            }
            if let Some(ema) = run.ema() {
                let values = ema.values().iter().map(|(name, tensor)| (name.clone(), tensor.clone()));
                files::write(&trainer.join(EMA_FILE), values, DType::F32, BTreeMap::new())?;
            }
            write_heads(&trainer, run)?;
            let (num_tokens, log_ratios) = (run.num_tokens(), run.log_ratios());
            let state =
                TrainerState { schema_version: 1, step, num_tokens, log_ratios, plan: plan.to_toml() };
            let path = trainer.join("state.json");
            let state = serde_json::to_value(&state).map_err(|error| at(&path)(error.into()))?;
            Ok(files::write_json(&path, &state)?)
        })
    }

    /// Trains to the end: a line of metrics per logged step and per evaluation, checkpoints, and the model in `final/`.
    ///
    /// # Errors
    /// If a step fails, a file cannot be written, `watch` ends the run, or `stop` was set; then everything up to the last
    /// step is saved.
    pub fn train<F: FrontEnd, W: Watch<F>>(
        &self,
        run: &mut Run<F>,
        plan: &Plan,
        front: &F,
        stop: &AtomicBool,
        watch: &mut W,
    ) -> Result<(), W::Error> {
        let mut log = RunLog::open(&self.path, run.steps_done(), plan)?;
        let train = &plan.train;
        let mut saved = run.steps_done();
        loop {
            let step = run.steps_done();
            let is_stopped = stop.load(Ordering::Relaxed) && step < train.steps;
            let seen = if is_stopped {
                Err(TrainError::Interrupted { step, path: self.path.clone() }.into())
            } else {
                self.look(run, plan, &mut log, watch)?
            };
            if let Err(reason) = seen {
                if step > saved {
                    self.save(run, plan, front)?;
                }
                return Err(reason);
            }
            if step >= train.steps {
                break;
            }
            let metrics = run.step()?;
            let mut seen = watch.step(&metrics);
            if is_due(metrics.step, train.log_every, train.steps) {
                log.write(Entry::Step, &metrics)?;
                seen = seen.and(sound(&mut log, metrics.step, watch)?);
            }
            if seen.is_err() || metrics.step.is_multiple_of(train.save_every) {
                self.save(run, plan, front)?;
                saved = metrics.step;
            }
            seen?;
        }
        let metrics = self.path.join(METRICS_FILE);
        checkpoint::write(&self.path, FINAL, run.steps_done(), |folder| {
            front.save(&run.outcome()?, folder, plan.train.save_dtype)?;
            write_heads(folder, run)?;
            model_card::write(folder, &RunFacts { plan, rows: front.rows(), metrics: &metrics })
        })?;
        Ok(())
    }

    /// Looks at the policy where the plan says so: held-out rows, and samples. The inner result is the watcher's.
    fn look<F: FrontEnd, W: Watch<F>>(
        &self,
        run: &Run<F>,
        plan: &Plan,
        log: &mut RunLog,
        watch: &mut W,
    ) -> Result<Result<(), W::Error>> {
        let (step, steps) = (run.steps_done(), plan.train.steps);
        let mut seen = Ok(());
        if plan.eval.as_ref().is_some_and(|eval| step > 0 && is_due(step, eval.every, steps)) {
            if !log.history().evaluations().contains_key(&step)
                && let Some(held_out) = run.held_out()?
            {
                log.write(Entry::Evaluation, &held_out)?;
                seen = watch.evaluated(&held_out).and(sound(log, step, watch)?);
            }
            self.note_best(plan, log.history())?;
        }
        let samples_are_due = plan.sample.as_ref().is_some_and(|sample| is_due(step, sample.every, steps));
        Ok(if samples_are_due { seen.and_then(|()| watch.sample(run)) } else { seen })
    }

    /// Notes the saved step with the lowest loss on held-out rows.
    fn note_best(&self, plan: &Plan, history: &History) -> Result<()> {
        let train = &plan.train;
        let is_saved = |step: &u64| is_due(*step, train.save_every, train.steps);
        let saved = history.evaluations().iter().filter(|(step, _)| is_saved(step));
        let Some((step, loss)) = saved.min_by(|a, b| a.1.total_cmp(b.1)) else { return Ok(()) };
        let folder = if *step == train.steps { FINAL.to_owned() } else { checkpoint_folder(*step) };
        let best = serde_json::json!({ "step": step, "eval_loss": loss, "folder": folder });
        Ok(files::write_json(&self.path.join(BEST_FILE), &best)?)
    }
}

/// Writes the objective's heads, if it has some.
fn write_heads<F: FrontEnd>(folder: &Path, run: &Run<F>) -> Result<()> {
    let heads = run.heads();
    match heads.is_empty() {
        true => Ok(()),
        false => Ok(files::write(&folder.join(HEADS_FILE), heads, DType::F32, BTreeMap::new())?),
    }
}

/// Logs the alarms that the latest line gives rise to, and tells the watcher.
fn sound<F: FrontEnd, W: Watch<F>>(
    log: &mut RunLog,
    step: u64,
    watch: &mut W,
) -> Result<Result<(), W::Error>> {
    let mut seen = Ok(());
    for alarm in alarms::raised(log.history(), step) {
        log.write(Entry::Alarm, &alarm)?;
        seen = seen.and(watch.alarm(&alarm));
    }
    Ok(seen)
}

/// Where the checkpoint of a step is, from the run directory.
fn checkpoint_folder(step: u64) -> String {
    format!("{CHECKPOINTS}/{}", checkpoint_name(step))
}

fn checkpoint_name(step: u64) -> String {
    format!("step-{step:06}")
}

/// The first line in which two plans differ, in words.
fn first_difference(saved: &str, now: &str) -> Option<String> {
    let lines = |text: &str| -> BTreeMap<String, String> {
        let mut table = String::new();
        let mut keys = BTreeMap::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[') {
                table = name.trim_end_matches(']').to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                keys.insert(format!("{table}.{}", key.trim()), value.trim().to_owned());
            }
        }
        keys
    };
    let (saved, now) = (lines(saved), lines(now));
    let absent = "absent".to_owned();
    saved.keys().chain(now.keys()).find(|key| saved.get(*key) != now.get(*key)).map(|key| {
        let (was, is) = (saved.get(key).unwrap_or(&absent), now.get(key).unwrap_or(&absent));
        format!("{key} was {was}, is {is}")
    })
}
