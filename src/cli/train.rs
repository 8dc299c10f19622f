//! `votive train` and `votive resume`: one run, from its recipe or from where it stopped.

use super::{Code, Context, Outcome, signal};
use crate::cli::progress::Progress;
use std::path::{Path, PathBuf};
use votive_model::Params;
use votive_train::front_end::FrontEnd;
use votive_train::{Plan, Prepared, Run, RunDirectory, StepMetrics, prepare};

/// Align a model as a recipe says
///
/// The run's folder holds the resolved recipe (`plan.toml`), `metrics.jsonl`, `checkpoints/` and, at the end, the
/// model in `final/`. Ctrl-C saves everything and ends with exit code 6; `votive resume` goes on.
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
}

/// Go on with a run that was stopped
///
/// The result is bit for bit that of a run that was never stopped.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// Folder of the run.
    run: PathBuf,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let plan = Plan::read(&args.recipe, &args.overrides)?;
    let name = args.recipe.file_stem().unwrap_or_default();
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
    ctx.output.note(format!("plan\n{}", indent(&plan.to_toml())));
    // From here on a signal finds a run that can be resumed.
    signal::stop_flag();
    let directory = RunDirectory::create(&out, &plan)?;
    go(&plan, &directory, ctx).inspect_err(|failure| {
        if failure.code() != Code::Interrupted {
            directory.abandon();
        }
    })
}

pub(crate) fn resume(args: &ResumeArgs, ctx: &Context) -> Outcome {
    signal::stop_flag();
    let directory = RunDirectory::open(&args.run)?;
    let plan = Plan::read(&directory.plan_file(), &[])?;
    go(&plan, &directory, ctx)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn go(plan: &Plan, directory: &RunDirectory, ctx: &Context) -> Outcome {
    execute(plan, directory, ctx)?;
    let folder = directory.final_folder();
    if ctx.output.wants_json() {
        let value =
            serde_json::json!({ "run": directory.path(), "final": folder, "steps": plan.train.steps });
        return ctx.output.json(&value);
    }
    ctx.output.line(folder.display())
}

/// Trains a plan to its end in its directory, from the newest checkpoint if there is one.
pub(crate) fn execute(plan: &Plan, directory: &RunDirectory, ctx: &Context) -> Outcome {
    let device = ctx.device()?;
    let encoding = ctx.output.progress("encoding", "pairs", 0);
    let prepared = prepare(plan, &device, |done, _| encoding.set(done as u64))?;
    encoding.finish();
    match prepared {
        Prepared::Text(front, start, report) => {
            ctx.output.note(&report);
            drive(plan, front.as_ref(), start, directory, ctx)
        }
        Prepared::Image(front, start, report) => {
            ctx.output.note(&report);
            drive(plan, front.as_ref(), start, directory, ctx)
        }
    }
}

fn drive<F: FrontEnd>(
    plan: &Plan,
    front: &F,
    start: Params,
    directory: &RunDirectory,
    ctx: &Context,
) -> Outcome {
    let (resumed, skipped) = directory.newest(plan, front, &start)?;
    for reason in skipped {
        ctx.output.warn(format!("passed over a checkpoint: {reason}"));
    }
    let trained: usize = start.trainable().iter().map(|(_, tensor)| tensor.elem_count()).sum();
    ctx.output.note(format!("{} rows; {trained} of {} parameters are trained", front.rows(), start.count()));
    let mut run = Run::new(plan, front, start, resumed, |_, _| {})?;
    let progress = ctx.output.progress("training", "steps", plan.train.steps).starting_at(run.steps_done());
    directory.train(&mut run, plan, front, signal::stop_flag(), |metrics| show(&progress, metrics))?;
    progress.finish();
    Ok(())
}

fn show(progress: &Progress, metrics: &StepMetrics) {
    progress.set(metrics.step);
    let margin = metrics.means.get("rewards/margins").copied().unwrap_or(0.0);
    let accuracy = metrics.means.get("rewards/accuracies");
    let accuracy = accuracy.map_or_else(String::new, |accuracy| format!(", accuracy {accuracy:.2}"));
    progress.detail(format!("loss {:.4}, margin {margin:+.3}{accuracy}", metrics.loss));
}
