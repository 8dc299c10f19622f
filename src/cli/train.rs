//! `votive train` and `votive resume`: one run, from its recipe or from where it stopped.

use super::run_samples::{ImageSampler, Sampler, TextSampler, draw};
use super::{Code, Context, Failure, Outcome, reward, signal};
use crate::cli::progress::Progress;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use votive_gallery::write_run_gallery;
use votive_model::Params;
use votive_train::front_end::{FrontEnd, TrainedPipeline};
use votive_train::run_directory::BEST_FILE;
use votive_train::{Alarm, HeldOut, Plan, Prepared, Run, RunDirectory, StepMetrics, Watch, prepare};

/// Align a model as a recipe says
///
/// The run's folder holds the resolved recipe (`plan.toml`), `metrics.jsonl`, the same as TensorBoard's events,
/// `checkpoints/`, `samples/` if the recipe asks for some, a page (`index.html`) and, at the end, the model in `final/`.
/// Ctrl-C saves everything and ends with exit code 6; `votive resume` goes on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The recipe, a TOML file.
    recipe: PathBuf,
    /// Override a setting of the recipe, e.g. `--set optimizer.lr=2e-5`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Folder of the run [default: runs/ and the recipe's name].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What an alarm does (docs/alarms.md lists them).
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnAlarm::Warn)]
    alarms: OnAlarm,
}

/// Go on with a run that was stopped
///
/// The result is bit for bit that of a run that was never stopped.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// Folder of the run.
    run: PathBuf,
    /// What an alarm does (docs/alarms.md lists them).
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnAlarm::Warn)]
    alarms: OnAlarm,
}

/// What an alarm does. It is logged either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnAlarm {
    /// Warn on stderr and go on.
    Warn,
    /// Save and stop with exit code 5.
    Error,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let plan = Plan::read(&args.recipe, &args.overrides)?;
    let name = args.recipe.file_stem().unwrap_or_default();
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
    ctx.output.note(format!("plan\n{}", indent(&plan.to_toml())));
    // From here on a signal finds a run that can be resumed.
    signal::stop_flag();
    let directory = RunDirectory::create(&out, &plan)?;
    go(&plan, &directory, args.alarms, ctx).inspect_err(|failure| {
        if failure.code() != Code::Interrupted {
            directory.abandon();
        }
    })
}

pub(crate) fn resume(args: &ResumeArgs, ctx: &Context) -> Outcome {
    signal::stop_flag();
    let directory = RunDirectory::open(&args.run)?;
    let plan = Plan::read(&directory.plan_file(), &[])?;
    go(&plan, &directory, args.alarms, ctx)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn go(plan: &Plan, directory: &RunDirectory, on_alarm: OnAlarm, ctx: &Context) -> Outcome {
    let alarms = execute(plan, directory, on_alarm, ctx)?;
    let page = write_run_gallery(directory.path())?;
    let (folder, best) = (directory.final_folder(), best(directory)?);
    if ctx.output.wants_json() {
        return ctx.output.json(&json!({
            "run": directory.path(),
            "final": folder,
            "steps": plan.train.steps,
            "best": best,
            "alarms": alarms,
            "page": page,
        }));
    }
    if let Some(best) = best {
        ctx.output.note(format!("best on held-out rows: step {}, {}", best["step"], best["folder"]));
    }
    ctx.output.line(folder.display())
}

/// What the run notes of its best checkpoint; none if nothing was held out.
fn best(directory: &RunDirectory) -> Outcome<Option<Value>> {
    let path = directory.path().join(BEST_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file(&path, error))?;
    let value = serde_json::from_str(&text);
    value.map(Some).map_err(|error| Failure::data(format!("{}: {error}", path.display())))
}

/// Trains a plan to its end in its directory, from the newest checkpoint if there is one; returns the alarms that were
/// raised.
pub(crate) fn execute(
    plan: &Plan,
    directory: &RunDirectory,
    on_alarm: OnAlarm,
    ctx: &Context,
) -> Outcome<Vec<Alarm>> {
    let device = ctx.device()?;
    let encoding = ctx.output.progress("encoding", "pairs", 0);
    let prepared = prepare(plan, &device, &reward::reward, |done, _| encoding.set(done as u64))?;
    encoding.finish();
    let sample = plan.sample.as_ref();
    match prepared {
        Prepared::Text(front, start, report) => {
            ctx.output.note(&report);
            let sampler = sample.map(|sample| TextSampler::new(sample, &front)).transpose()?;
            let sampler = sampler.as_ref().map(|sampler| sampler as &dyn Sampler<_>);
            drive((plan, directory), front.as_ref(), start, sampler, on_alarm, ctx)
        }
        Prepared::Reward(front, start, report) => {
            ctx.output.note(&report);
            drive((plan, directory), front.as_ref(), start, None, on_alarm, ctx)
        }
        Prepared::Image(front, start, report) => {
            ctx.output.note(&report);
            note_unused(front.pipeline(), ctx);
            let sampler = sample.map(|sample| ImageSampler::new(sample, front.pipeline())).transpose()?;
            let sampler = sampler.as_ref().map(|sampler| sampler as &dyn Sampler<_>);
            drive((plan, directory), front.as_ref(), start, sampler, on_alarm, ctx)
        }
        Prepared::Rollout(front, start, report) => {
            ctx.output.note(&report);
            note_unused(front.pipeline(), ctx);
            let sampler = sample.map(|sample| ImageSampler::new(sample, front.pipeline())).transpose()?;
            let sampler = sampler.as_ref().map(|sampler| sampler as &dyn Sampler<_>);
            drive((plan, directory), front.as_ref(), start, sampler, on_alarm, ctx)
        }
    }
}

/// Says which parts of a folder have no part in the run.
fn note_unused(pipeline: &TrainedPipeline, ctx: &Context) {
    let unused = pipeline.folder().unused();
    if !unused.is_empty() {
        ctx.output.note(format!("{}: not used: {}", pipeline.folder().root().display(), unused.join(", ")));
    }
}

fn drive<F: FrontEnd>(
    (plan, directory): (&Plan, &RunDirectory),
    front: &F,
    start: Params,
    sampler: Option<&dyn Sampler<F>>,
    on_alarm: OnAlarm,
    ctx: &Context,
) -> Outcome<Vec<Alarm>> {
    let (resumed, skipped) = directory.newest(plan, front, &start)?;
    for reason in skipped {
        ctx.output.warn(format!("passed over a checkpoint: {reason}"));
    }
    let trained: usize = start.trainable().iter().map(|(_, tensor)| tensor.elem_count()).sum();
    ctx.output.note(format!("{} rows; {trained} of {} parameters are trained", front.rows(), start.count()));
    let mut run = Run::new(plan, front, start, resumed, |_, _| {})?;
    let progress = ctx.output.progress("training", "steps", plan.train.steps).starting_at(run.steps_done());
    let mut watcher = Watcher {
        directory: directory.path(),
        sampler,
        on_alarm,
        progress: &progress,
        alarms: Vec::new(),
        ctx,
    };
    directory.train(&mut run, plan, front, signal::stop_flag(), &mut watcher)?;
    let alarms = watcher.alarms;
    progress.finish();
    Ok(alarms)
}

/// Who looks on: shows on stderr what a run tells, and draws its samples.
struct Watcher<'a, F: FrontEnd> {
    directory: &'a Path,
    sampler: Option<&'a dyn Sampler<F>>,
    on_alarm: OnAlarm,
    progress: &'a Progress,
    alarms: Vec<Alarm>,
    ctx: &'a Context,
}

impl<F: FrontEnd> Watch<F> for Watcher<'_, F> {
    type Error = Failure;

    fn step(&mut self, metrics: &StepMetrics) -> Outcome {
        self.progress.set(metrics.step);
        self.progress.detail(in_words(metrics.loss, &metrics.means));
        Ok(())
    }

    fn evaluated(&mut self, held_out: &HeldOut) -> Outcome {
        let numbers = in_words(held_out.loss, &held_out.means);
        let note = format!("held out after step {}: {numbers}", held_out.step);
        self.progress.pause(|| self.ctx.output.note(note));
        Ok(())
    }

    fn alarm(&mut self, alarm: &Alarm) -> Outcome {
        let words = format!("step {}: {} [{}]", alarm.step, alarm.message, alarm.id);
        self.alarms.push(alarm.clone());
        match self.on_alarm {
            OnAlarm::Warn => {
                self.progress.pause(|| self.ctx.output.warn(words));
                Ok(())
            }
            OnAlarm::Error => {
                let resume =
                    format!("everything is saved; `votive resume {}` goes on", self.directory.display());
                Err(Failure::new(Code::Numbers, words).hint(resume))
            }
        }
    }

    fn sample(&mut self, run: &Run<F>) -> Outcome {
        match self.sampler {
            Some(sampler) => self.progress.pause(|| draw(run, sampler, self.directory, self.ctx)),
            None => Ok(()),
        }
    }
}

/// Loss, margin and accuracy.
fn in_words(loss: f64, means: &votive_train::run::Means) -> String {
    let margin = means.get("rewards/margins").copied().unwrap_or(0.0);
    let accuracy = means.get("rewards/accuracies");
    let accuracy = accuracy.map_or_else(String::new, |accuracy| format!(", accuracy {accuracy:.2}"));
    format!("loss {loss:.4}, margin {margin:+.3}{accuracy}")
}
