//! `votive bench diffusion-methods`: every recipe for images beside the base model, on the playground, over several seeds.
//!
//! ```text
//! for each seed: training captions ─ base model, several pictures ─ exact checker, some labels flipped ─▶ pairs
//!   for each recipe: the pairs (or captions, where the policy draws itself) ─▶ run ─▶ model
//!     ─ held-out captions, same seeds ─ exact checker ─▶ result.json
//! all results ─▶ table.md, gains.svg
//! ```
//! What is done already is not done again, so a stopped bench goes on where it was.

mod measure;
mod table;

use super::super::image_model::ImageModel;
use super::super::train::OnAlarm;
use super::super::{Context, Failure, Outcome, embedded, train, world_pairs};
use measure::{Measured, measure};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;
use votive_model::files;
use votive_train::recipe::Resolver;
use votive_train::{Plan, RunDirectory};

/// The recipes, as they are shipped; not ReFL's, which needs a CLIP model that knows the playground's pictures.
const RECIPES: &[(&str, &str)] = &[
    ("curriculum", include_str!("../../../../examples/recipes/image/curriculum.toml")),
    ("d3po", include_str!("../../../../examples/recipes/image/d3po.toml")),
    ("dpo", include_str!("../../../../examples/recipes/image/dpo.toml")),
    ("dspo", include_str!("../../../../examples/recipes/image/dspo.toml")),
    ("inpo", include_str!("../../../../examples/recipes/image/inpo.toml")),
    ("kto", include_str!("../../../../examples/recipes/image/kto.toml")),
    ("mapo", include_str!("../../../../examples/recipes/image/mapo.toml")),
    ("npo", include_str!("../../../../examples/recipes/image/npo.toml")),
    ("rethinking", include_str!("../../../../examples/recipes/image/rethinking.toml")),
    ("rwr", include_str!("../../../../examples/recipes/image/rwr.toml")),
    ("smpo", include_str!("../../../../examples/recipes/image/smpo.toml")),
    ("spo", include_str!("../../../../examples/recipes/image/spo.toml")),
    ("tailorpo", include_str!("../../../../examples/recipes/image/tailorpo.toml")),
];
/// What all others are compared with, besides the base.
const STANDARD: &str = "dpo";
/// The base model's name in results.
const BASE: &str = "base";

#[derive(Debug, clap::Args)]
pub(super) struct MethodsArgs {
    /// Folder for data, runs and results; what is there already is kept and counted.
    #[arg(long, value_name = "DIR", default_value = "runs/diffusion-methods")]
    out: PathBuf,
    /// Seeds of data, training and evaluation: 0 to N − 1.
    #[arg(long, value_name = "N", default_value = "5")]
    seeds: NonZeroUsize,
    /// Recipes to run [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = names())]
    only: Vec<String>,
    /// Held-out captions of a seed.
    #[arg(long, value_name = "N", default_value = "340")]
    prompts: NonZeroUsize,
    /// Captions for choosing settings instead of those for reporting.
    #[arg(long)]
    select: bool,
    /// Override a setting of every recipe, e.g. `--set train.steps=100`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

fn names() -> clap::builder::PossibleValuesParser {
    RECIPES.iter().map(|(name, _)| *name).collect::<Vec<_>>().into()
}

/// Where the work of a seed lies, and what it is done with.
struct Seed<'a> {
    seed: u64,
    folder: PathBuf,
    model: &'a Path,
    base: &'a ImageModel,
    args: &'a MethodsArgs,
    ctx: &'a Context,
}

pub(super) fn run(args: &MethodsArgs, ctx: &Context) -> Outcome {
    let model = embedded::folder("tiny-sd")?;
    let base = ImageModel::load(&model, None, &ctx.device()?)?;
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let mut results: Vec<Measured> = Vec::new();
    for seed in 0..args.seeds.get() as u64 {
        let folder = args.out.join(format!("seed-{seed}"));
        std::fs::create_dir_all(&folder).map_err(|error| Failure::file(&folder, error))?;
        let work = Seed { seed, folder, model: &model, base: &base, args, ctx };
        results.push(work.once(BASE, || measure(&base, None, &work.evaluation(), ctx))?);
        for (name, recipe) in RECIPES.iter().filter(|(name, _)| wanted(name)) {
            results.push(work.once(name, || work.align(name, recipe))?);
        }
    }
    let table = table::Table::of(&results);
    files::write_bytes(&args.out.join("table.md"), table.to_markdown().as_bytes())?;
    files::write_bytes(&args.out.join("gains.svg"), table.to_svg().as_bytes())?;
    if ctx.output.wants_json() {
        return ctx.output.json(&table);
    }
    ctx.output.line(table.to_markdown())
}

impl Seed<'_> {
    fn evaluation(&self) -> measure::Evaluation {
        measure::Evaluation { seed: self.seed, prompts: self.args.prompts.get(), select: self.args.select }
    }

    /// The result of a name, from its file if it is there.
    fn once(&self, name: &str, work: impl FnOnce() -> Outcome<measure::Scores>) -> Outcome<Measured> {
        let split = if self.args.select { "select" } else { "test" };
        let file = self.folder.join(format!("{name}.{split}.json"));
        if file.exists() {
            let text = std::fs::read(&file).map_err(|error| Failure::file(&file, error))?;
            let wrong = |error| Failure::data(format!("{}: {error}; delete the file", file.display()));
            return serde_json::from_slice(&text).map_err(wrong);
        }
        self.ctx.output.note(format!("seed {}: {name}", self.seed));
        let started = Instant::now();
        let scores = work()?;
        let seconds = started.elapsed().as_secs_f64();
        let measured = Measured { method: name.to_owned(), seed: self.seed, seconds, scores };
        let value = serde_json::to_value(&measured).map_err(|error| Failure::data(error.to_string()))?;
        files::write_json(&file, &value)?;
        Ok(measured)
    }

    /// Trains by a recipe and evaluates what came of it.
    fn align(&self, name: &str, recipe: &str) -> Outcome<measure::Scores> {
        let overrides = |data: &Path| {
            let mut all = vec![
                format!("model.path={}", self.model.display()),
                format!("data.path={}", data.display()),
                format!("train.seed={}", self.seed),
            ];
            all.extend(self.args.overrides.iter().cloned());
            all
        };
        let resolve = |data: &Path| -> Outcome<Plan> {
            Ok(Plan::resolve(Resolver::parse(Path::new(name), recipe, &overrides(data))?)?)
        };
        let captions = self.folder.join("captions.txt");
        let mut plan = resolve(&captions)?;
        if plan.rollout.is_some() {
            let text = world_pairs::training_captions(self.seed).join("\n");
            files::write_bytes(&captions, text.as_bytes())?;
        } else {
            plan = resolve(&self.pairs()?)?;
        }
        let folder = self.folder.join(name);
        let directory = match folder.exists() {
            true => RunDirectory::open(&folder)?,
            false => RunDirectory::create(&folder, &plan)?,
        };
        train::execute(&plan, &directory, OnAlarm::Warn, self.ctx)?;
        let trained = ImageModel::load(&directory.final_folder(), None, &self.ctx.device()?)?;
        match plan.data.prefer {
            votive_train::plan::Prefer::Chosen => measure(&trained, None, &self.evaluation(), self.ctx),
            votive_train::plan::Prefer::Rejected => {
                measure(self.base, Some(&trained), &self.evaluation(), self.ctx)
            }
        }
    }

    /// The labelled pairs of this seed.
    fn pairs(&self) -> Outcome<PathBuf> {
        let file = self.folder.join("pairs.jsonl");
        if !file.exists() {
            world_pairs::make(self.base, &self.folder, self.seed, self.ctx)?;
        }
        Ok(file)
    }
}
