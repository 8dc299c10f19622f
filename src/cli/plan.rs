//! `votive plan`: what a recipe would do, before anything is trained.

use super::bench::peak_rss_mib;
use super::memory::{available, parse_bytes, show_bytes};
use super::{Context, Failure, Outcome, reward};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use votive_model::Params;
use votive_train::front_end::Wanted;
use votive_train::memory::{self, Footprint, Memory};
use votive_train::{Plan, Prepared, RowReport, Run, prepare};

/// Say what a recipe would do: rows, lengths, trained parameters, memory
///
/// Reads model and data and trains nothing. The memory is that of the largest step, part by part, with the largest
/// micro-batch that fits. With --trial a few steps are made and thrown away, and the time of the run is told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  votive plan recipe.toml\n  votive plan recipe.toml --set train.batch_size=16 \
                        --memory 8GiB --trial 3"
)]
pub(crate) struct Args {
    /// The recipe, a TOML file.
    recipe: PathBuf,
    /// Override a setting of the recipe.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Memory that the run may take, e.g. `8GiB` [default: what the machine has free].
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Make N steps, of which the first warms up, and estimate the time of the run from them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    trial: Option<u64>,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let plan = Plan::read(&args.recipe, &args.overrides)?;
    let encoding = ctx.output.progress("encoding", "pairs", 0);
    let prepared = prepare(&plan, &ctx.device()?, &reward::reward, |done, _| encoding.set(done as u64))?;
    encoding.finish();
    match prepared {
        Prepared::Text(front, start, rows) => {
            let lengths = sequences(&front.lengths_in_all(Wanted::of(&plan)));
            show(args, &plan, front.as_ref(), start, (&rows, Some(lengths)), ctx)
        }
        Prepared::Reward(front, start, rows) => {
            let lengths = sequences(&front.lengths_in_all(Wanted::of(&plan)));
            show(args, &plan, front.as_ref(), start, (&rows, Some(lengths)), ctx)
        }
        Prepared::Image(front, start, rows) => show(args, &plan, front.as_ref(), start, (&rows, None), ctx),
        Prepared::Rollout(front, start, rows) => show(args, &plan, front.as_ref(), start, (&rows, None), ctx),
    }
}

/// Tokens of every sequence, of rows of a prompt and completions.
fn sequences(rows: &[(usize, Vec<usize>)]) -> Vec<usize> {
    let of_row = |(prompt, completions): &(usize, Vec<usize>)| {
        completions.iter().map(|completion| prompt + completion).collect::<Vec<_>>()
    };
    rows.iter().flat_map(of_row).collect()
}

fn show<F: Footprint>(
    args: &Args,
    plan: &Plan,
    front: &F,
    start: Params,
    (rows, lengths): (&RowReport, Option<Vec<usize>>),
    ctx: &Context,
) -> Outcome {
    let need = memory::of(plan, front, &start, plan.train.micro_batch_size);
    let limit = args.memory.or_else(available);
    let fits = limit.and_then(|limit| memory::largest_micro_batch(plan, front, &start, limit));
    let trained = Trained::of(&start);
    let passes = (plan.train.steps * plan.train.batch_size as u64) as f64 / front.rows() as f64;
    let lengths = lengths.map(histogram);
    let trial = args.trial.map(|steps| trial(plan, front, start, steps)).transpose()?;
    let value = json!({
        "plan": plan.to_toml(),
        "rows": { "train": front.rows(), "held_out": front.held_out(), "read": rows.train.rows_read,
                  "dropped": rows.train.rows_dropped() },
        "lengths": lengths,
        "trained": trained.to_json(),
        "steps": plan.train.steps,
        "passes": passes,
        "memory": { "parts": need.parts, "step": need.step(), "loading": need.loading, "saving": need.saving,
                    "peak": need.peak(), "limit": limit, "micro_batch_that_fits": fits },
        "trial": trial,
    });
    if ctx.output.wants_json() {
        return ctx.output.json(&value);
    }
    let out = &ctx.output;
    out.line(plan.to_toml())?;
    out.line(rows)?;
    for Bin { up_to, sequences, share } in lengths.iter().flatten() {
        let bar = "#".repeat((share * 40.0).round() as usize);
        out.line(format!("  up to {up_to:>6} tokens: {sequences:>7} sequences {bar}"))?;
    }
    out.line(format!("{} steps, {passes:.2} passes over {} rows", plan.train.steps, front.rows()))?;
    trained.show(ctx)?;
    show_memory(&need, limit, fits, plan, ctx)?;
    match trial {
        None => Ok(()),
        Some(trial) => out.line(format!(
            "time: {} a step in a trial of {} steps, so {} for all; peak memory of the trial {:.0} MiB",
            super::progress::duration(trial.seconds_a_step),
            trial.steps,
            super::progress::duration(trial.seconds_in_all),
            trial.peak_mib
        )),
    }
}

fn show_memory(
    need: &Memory,
    limit: Option<u64>,
    fits: Option<usize>,
    plan: &Plan,
    ctx: &Context,
) -> Outcome {
    let out = &ctx.output;
    out.line(format!("memory at the peak of a step: {}", show_bytes(need.step())))?;
    for part in need.parts.iter().filter(|part| part.bytes > 0) {
        out.line(format!("  {:>12}  {}", show_bytes(part.bytes), part.name))?;
    }
    out.line(format!(
        "memory while reading: {}; while saving: {}",
        show_bytes(need.loading),
        show_bytes(need.saving)
    ))?;
    let Some(limit) = limit else { return out.line("how much memory is free is not known; give --memory") };
    let micro = plan.train.micro_batch_size;
    let verdict = match fits {
        _ if need.peak() <= limit => format!("micro_batch_size = {micro} fits"),
        None => "not even a micro-batch of one row fits; try an adapter, train.recompute or shorter rows"
            .to_owned(),
        Some(fits) => format!("micro_batch_size = {micro} does not fit; {fits} does"),
    };
    let most = fits.map_or_else(String::new, |fits| {
        format!(" (at most {fits} of a batch of {})", plan.train.batch_size)
    });
    out.line(format!("of {}: {verdict}{most}", show_bytes(limit)))
}

/// How many sequences there are up to a length.
#[derive(Clone, Debug, serde::Serialize)]
struct Bin {
    /// The longest of the bin, tokens.
    up_to: usize,
    /// Sequences in it.
    sequences: usize,
    /// Their share of all.
    share: f64,
}

/// Bins that end at powers of two.
fn histogram(lengths: Vec<usize>) -> Vec<Bin> {
    let mut bins: BTreeMap<usize, usize> = BTreeMap::new();
    for length in &lengths {
        *bins.entry(length.next_power_of_two()).or_default() += 1;
    }
    let share = |sequences: usize| sequences as f64 / lengths.len() as f64;
    bins.into_iter().map(|(up_to, sequences)| Bin { up_to, sequences, share: share(sequences) }).collect()
}

/// What is trained.
struct Trained {
    count: usize,
    of: usize,
    /// Values by kind of module: the name without the numbers of layers.
    modules: BTreeMap<String, usize>,
}

impl Trained {
    fn of(params: &Params) -> Self {
        let trainable = params.trainable();
        let mut modules: BTreeMap<String, usize> = BTreeMap::new();
        for (name, tensor) in &trainable {
            let kind = name.split('.').map(|part| if part.parse::<usize>().is_ok() { "*" } else { part });
            *modules.entry(kind.collect::<Vec<_>>().join(".")).or_default() += tensor.elem_count();
        }
        let count = trainable.iter().map(|(_, tensor)| tensor.elem_count()).sum();
        let adapter = if params.lora().is_some() { count } else { 0 };
        Self { count, of: params.count() + adapter, modules }
    }

    fn share(&self) -> f64 {
        self.count as f64 / self.of.max(1) as f64
    }

    fn to_json(&self) -> Value {
        json!({ "parameters": self.count, "of": self.of, "share": self.share(), "modules": self.modules })
    }

    fn show(&self, ctx: &Context) -> Outcome {
        let (count, of) = (self.count, self.of);
        ctx.output.line(format!("{count} of {of} parameters are trained ({:.2} %)", 100.0 * self.share()))?;
        for (module, count) in &self.modules {
            ctx.output.line(format!("  {count:>12}  {module}"))?;
        }
        Ok(())
    }
}

/// What a trial measured.
#[derive(Debug, serde::Serialize)]
struct Trial {
    steps: u64,
    seconds_a_step: f64,
    seconds_in_all: f64,
    peak_mib: f64,
}

/// Makes a few steps of the run; the median of all but the first is the time of a step.
fn trial<F: Footprint>(plan: &Plan, front: &F, start: Params, steps: u64) -> Outcome<Trial> {
    let mut run = Run::new(plan, front, start, None, |_, _| {})?;
    let mut seconds = Vec::new();
    for _ in 0..steps {
        let begun = Instant::now();
        run.step()?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    let mut later = seconds.split_off(1);
    later.sort_unstable_by(f64::total_cmp);
    let median = later.get(later.len() / 2).copied();
    let seconds_a_step = median.ok_or_else(|| Failure::usage("--trial: at least 2 steps are needed"))?;
    let seconds_in_all = seconds_a_step * plan.train.steps as f64;
    Ok(Trial { steps, seconds_a_step, seconds_in_all, peak_mib: peak_rss_mib() })
}
