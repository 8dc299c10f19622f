//! The run directory: plan, metrics, checkpoints, and the finished model.

use crate::checkpoint::{self, at};
use crate::error::{Result, TrainError};
use crate::front_end::{FrontEnd, SaveDtype};
use crate::optimizer::AdamW;
use crate::plan::Plan;
use crate::run::{Resumed, Run, StepMetrics};
use candle_core::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use votive_model::{Params, files};

/// The resolved recipe of a run.
pub const PLAN_FILE: &str = "plan.toml";
/// One line of JSON for each logged step.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// The checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The finished model.
pub const FINAL: &str = "final";

/// What a checkpoint keeps of a reference that follows the policy, below `trainer/`.
const REFERENCE_FILE: &str = "reference.safetensors";

/// Where a run keeps everything.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    path: PathBuf,
}

/// What a checkpoint knows besides weights and moments.
#[derive(Debug, Serialize, Deserialize)]
struct TrainerState {
    schema_version: u32,
    step: u64,
    num_tokens: u64,
    /// The plan that the checkpoint belongs to.
    plan: String,
}

impl RunDirectory {
    /// A directory for a new run: made if it is not there, refused if it holds another.
    ///
    /// # Errors
    /// If it holds a run already, or cannot be made.
    pub fn create(path: &Path, plan: &Plan) -> Result<Self> {
        let directory = Self { path: std::path::absolute(path).map_err(at(path))? };
        let existing = directory.path.join(PLAN_FILE);
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
        fs::create_dir_all(&directory.path).map_err(at(&directory.path))?;
        files::write_bytes(&existing, plan.to_toml().as_bytes())?;
        Ok(directory)
    }

    /// Takes back what [`RunDirectory::create`] made, if the run never made a step: the recipe can then be mended and
    /// trained into the same directory.
    pub fn abandon(self) {
        let metrics = self.path.join(METRICS_FILE);
        let made_a_step = fs::metadata(&metrics).is_ok_and(|found| found.len() > 0);
        if !made_a_step && !self.path.join(CHECKPOINTS).exists() {
            // Best effort, and a folder that holds anything else stays: the error that matters is the one that led here.
            let _ = fs::remove_file(metrics);
            let _ = fs::remove_file(self.plan_file());
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// The directory of a run that was started before.
    ///
    /// # Errors
    /// If there is no plan in it.
    pub fn open(path: &Path) -> Result<Self> {
        let directory = Self { path: std::path::absolute(path).map_err(at(path))? };
        if !directory.plan_file().exists() {
            let reason = format!("holds no {PLAN_FILE}, so it is not a run's directory");
            return Err(TrainError::RunDirectory { path: path.into(), reason });
        }
        Ok(directory)
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
        let kept = trainer.join(REFERENCE_FILE);
        let reference = kept.exists().then(|| files::read(&kept, start.device())).transpose()?;
        let resumed = Resumed {
            params,
            optimizer,
            reference: reference.map(|file| file.tensors),
            num_tokens: state.num_tokens,
        };
        Ok((Some(resumed), skipped))
    }

    fn save<F: FrontEnd>(&self, run: &Run<F>, plan: &Plan, front: &F) -> Result<PathBuf> {
        let step = run.steps_done();
        checkpoint::write(&self.path.join(CHECKPOINTS), &format!("step-{step:06}"), step, |folder| {
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
            let state =
                TrainerState { schema_version: 1, step, num_tokens: run.num_tokens(), plan: plan.to_toml() };
            let path = trainer.join("state.json");
            let state = serde_json::to_value(&state).map_err(|error| at(&path)(error.into()))?;
            Ok(files::write_json(&path, &state)?)
        })
    }

    /// Trains to the end: a line of metrics per logged step, checkpoints, and the model in `final/`.
    ///
    /// # Errors
    /// If a step fails, a file cannot be written, or `stop` was set; then everything up to the last step is saved.
    pub fn train<F: FrontEnd>(
        &self,
        run: &mut Run<F>,
        plan: &Plan,
        front: &F,
        stop: &AtomicBool,
        mut report: impl FnMut(&StepMetrics),
    ) -> Result<()> {
        let mut log = self.open_log(run.steps_done())?;
        let path = self.path.join(METRICS_FILE);
        let interrupted = |step| TrainError::Interrupted { step, path: self.path.clone() };
        if stop.load(Ordering::Relaxed) && run.steps_done() < plan.train.steps {
            return Err(interrupted(run.steps_done()));
        }
        while run.steps_done() < plan.train.steps {
            let metrics = run.step()?;
            let step = metrics.step;
            if step % plan.train.log_every == 0 || step == plan.train.steps {
                let line = serde_json::to_string(&metrics).map_err(|error| at(&path)(error.into()))?;
                writeln!(log, "{line}").map_err(at(&path))?;
            }
            report(&metrics);
            let stopped = stop.load(Ordering::Relaxed) && step < plan.train.steps;
            if stopped || step % plan.train.save_every == 0 {
                self.save(run, plan, front)?;
            }
            if stopped {
                return Err(interrupted(step));
            }
        }
        let dtype = plan.train.save_dtype;
        let save = |folder: &Path| front.save(run.params(), folder, dtype);
        checkpoint::write(&self.path, FINAL, run.steps_done(), save)?;
        Ok(())
    }

    /// Opens the metrics for appending, without the lines of steps that will be made again.
    fn open_log(&self, steps_done: u64) -> Result<File> {
        let path = self.path.join(METRICS_FILE);
        if path.exists() {
            let file = File::open(&path).map_err(at(&path))?;
            let mut kept = String::new();
            for line in BufReader::new(file).lines() {
                let line = line.map_err(at(&path))?;
                let step =
                    serde_json::from_str::<serde_json::Value>(&line).ok().and_then(|v| v["step"].as_u64());
                // A line that was cut off by a crash has no step.
                if step.is_some_and(|step| step <= steps_done) {
                    kept.push_str(&line);
                    kept.push('\n');
                }
            }
            files::write_bytes(&path, kept.as_bytes())?;
        }
        OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))
    }
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
