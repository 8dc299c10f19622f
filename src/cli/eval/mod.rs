//! `votive eval`: how often a model does exactly what held-out prompts of the playground ask; images, scored and
//! compared with others; pairs of completions, ranked; and judges.

mod image_set;
mod images;
mod judge;
mod rank_accuracy;

use super::image_model::ImageModel;
use super::text_model::TextModel;
use super::world::{CFG, Decoding, STEPS, Sampling, answer, draw};
use super::{Context, Failure, Outcome};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use votive_eval::{Outcome as Graded, by_category, grade_images, grade_texts, share};
use votive_playground::{Split, image, text};
use votive_train::Modality;

/// Score a model on held-out prompts of its playground world
///
/// The exact checker decides. With --against, both models get the same prompts and seeds, and the gain of --model over
/// it is given with a 95 % interval over prompts.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The model's folder.
    #[arg(long, value_name = "DIR", required = true)]
    model: Option<PathBuf>,
    /// A LoRA adapter on the model.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The model to compare with.
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// Number of prompts.
    #[arg(long, value_name = "N", default_value_t = 300)]
    prompts: usize,
    /// Prompts for choosing settings instead of those for reporting.
    #[arg(long)]
    select: bool,
    /// Seed of prompts and draws.
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
    /// Temperature of answers; 0 is greedy.
    #[arg(long, value_name = "T", default_value_t = 0.7)]
    temperature: f64,
    /// Calls of the U-Net per image.
    #[arg(long, value_name = "N", default_value_t = STEPS)]
    steps: usize,
    /// Scale of classifier-free guidance.
    #[arg(long, value_name = "S", default_value_t = CFG)]
    cfg: f64,
}

/// What else can be evaluated.
#[derive(Debug, clap::Subcommand)]
enum What {
    Images(images::Args),
    Judge(judge::Args),
    RankAccuracy(rank_accuracy::Args),
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    match (&args.what, &args.model) {
        (Some(What::Images(args)), _) => images::run(args, ctx),
        (Some(What::Judge(args)), _) => judge::run(args, ctx),
        (Some(What::RankAccuracy(args)), _) => rank_accuracy::run(args, ctx),
        (None, Some(model)) => held_out_prompts(args, model, ctx),
        (None, None) => Err(Failure::usage("--model is missing")),
    }
}

fn held_out_prompts(args: &Args, model: &Path, ctx: &Context) -> Outcome {
    let split = if args.select { Split::Select } else { Split::Test };
    let grade = |folder: &Path, adapter: Option<&Path>| -> Outcome<Vec<Graded>> {
        let device = ctx.device()?;
        match Modality::of(folder)? {
            Modality::Text => {
                let prompts: Vec<String> =
                    text::prompts(split, args.seed, args.prompts).iter().map(text::Task::prompt).collect();
                let model = TextModel::load(folder, adapter, &device)?;
                let decoding = Decoding { temperature: args.temperature, seed: args.seed };
                Ok(grade_texts(&prompts, &answer(&model, &prompts, decoding, ctx)?)?)
            }
            Modality::Image => {
                let captions = image::prompts(split, args.seed, args.prompts);
                let model = ImageModel::load(folder, adapter, &device)?;
                let sampling = Sampling { steps: args.steps, cfg: args.cfg, seed: args.seed };
                Ok(grade_images(&captions, &draw(&model, &captions, sampling, ctx)?)?)
            }
        }
    };
    let graded = grade(model, args.adapter.as_deref())?;
    match &args.against {
        None => report_one(&graded, ctx),
        Some(folder) => report_pair(&grade(folder, None)?, &graded, args.seed, ctx),
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), value| (sum + value, n + 1));
    sum / f64::from(n.max(1))
}

fn report_one(graded: &[Graded], ctx: &Context) -> Outcome {
    let all = share(&graded.iter().map(|one| one.exact).collect::<Vec<_>>());
    let part = 100.0 * mean(graded.iter().map(|one| one.part));
    let ugliness = mean(graded.iter().filter_map(|one| one.ugliness));
    let mut names: Vec<&str> = graded.iter().map(|one| one.category.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let of = |name: &str| {
        share(&graded.iter().filter(|one| one.category == name).map(|one| one.exact).collect::<Vec<_>>())
    };
    let mut parts: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
    for (name, met) in graded.iter().flat_map(|one| &one.parts) {
        parts.entry(name).or_default().push(*met);
    }
    let parts: BTreeMap<&str, _> = parts.into_iter().map(|(name, met)| (name, share(&met))).collect();
    if ctx.output.wants_json() {
        let categories: serde_json::Map<String, serde_json::Value> =
            names.iter().map(|name| ((*name).to_owned(), json!(of(name)))).collect();
        let value = json!({ "exact": all, "part": part, "ugliness": ugliness, "categories": categories, "parts": parts });
        return ctx.output.json(&value);
    }
    ctx.output.line(format!(
        "exact {:5.1} % [{:.1}, {:.1}] of {}; parts met {part:.1} %",
        all.value, all.low, all.high, all.n
    ))?;
    if graded.iter().any(|one| one.ugliness.is_some()) {
        ctx.output.line(format!("ugliness {ugliness:.3}"))?;
    }
    let categories = names.into_iter().map(|name| (name, of(name)));
    for (name, share) in categories.chain(parts) {
        ctx.output.line(format!(
            "  {name:12} {:5.1} % [{:.1}, {:.1}] of {}",
            share.value, share.low, share.high, share.n
        ))?;
    }
    Ok(())
}

fn report_pair(base: &[Graded], aligned: &[Graded], seed: u64, ctx: &Context) -> Outcome {
    let rows = by_category(base, aligned, seed);
    if ctx.output.wants_json() {
        let rows: serde_json::Map<String, serde_json::Value> = rows
            .into_iter()
            .map(|(name, gain)| (if name.is_empty() { "all".to_owned() } else { name }, json!(gain)))
            .collect();
        return ctx.output.json(&rows);
    }
    for (name, gain) in rows {
        let name = if name.is_empty() { "all" } else { &name };
        let interval = format!("[{:+.1}, {:+.1}]", gain.gain_low, gain.gain_high);
        ctx.output.line(format!(
            "{name:10} {:5.1} % -> {:5.1} %  {:+5.1} {interval} of {}",
            gain.base, gain.aligned, gain.gain, gain.n
        ))?;
    }
    Ok(())
}
