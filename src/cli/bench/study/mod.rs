//! Studies on the image playground: what several ways of training do to the shipped model, over several seeds.
//!
//! ```text
//! for each seed: training captions ─ base model, several pictures ─ labels ─▶ pairs
//!   for each row: the pairs ─▶ run ─▶ model ─ held-out captions, same seeds ─ exact checker ─▶ result.json
//! all results ─▶ table.md, gains.svg
//! ```
//! What is done already is not done again, so a stopped study goes on where it was.

mod measure;
mod table;

use crate::cli::image_model::ImageModel;
use crate::cli::train::OnAlarm;
use crate::cli::world_pairs::Drawn;
use crate::cli::{Context, Failure, Outcome, embedded, train};
use measure::{Evaluation, Measured, Scores, measure};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;
use votive_model::files;
use votive_train::recipe::Resolver;
use votive_train::{Plan, RunDirectory};

/// The base model's name in results.
const BASE: &str = "base";

#[derive(Debug, clap::Args)]
pub(super) struct StudyArgs {
    /// How many seeds of data, training and evaluation.
    #[arg(long, value_name = "N", default_value = "5")]
    seeds: NonZeroUsize,
    /// The first of them, so that several processes can share a study; the last run, over all, makes the table.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first_seed: u32,
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

/// A study: where it lies, and what it starts from.
pub(super) struct Study<'a> {
    args: &'a StudyArgs,
    out: &'a Path,
    model: PathBuf,
    /// The model that everything starts from.
    base: ImageModel,
    pub(super) ctx: &'a Context,
    results: Vec<Measured>,
}

/// Where the work of a seed lies.
pub(super) struct Seed {
    pub(super) seed: u64,
    pub(super) folder: PathBuf,
}

impl<'a> Study<'a> {
    /// On the shipped model.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn new(args: &'a StudyArgs, out: &'a Path, ctx: &'a Context) -> Outcome<Self> {
        let model = embedded::folder("tiny-sd")?;
        let base = ImageModel::load(&model, None, &ctx.device()?)?;
        Ok(Self { args, out, model, base, ctx, results: Vec::new() })
    }

    /// The seeds, each with a folder.
    ///
    /// # Errors
    /// If a folder cannot be made.
    pub(super) fn seeds(&self) -> Outcome<Vec<Seed>> {
        let seed = |seed: u64| {
            let folder = self.out.join(format!("seed-{seed}"));
            std::fs::create_dir_all(&folder).map_err(|error| Failure::file(&folder, error))?;
            Ok(Seed { seed, folder })
        };
        let first = u64::from(self.args.first_seed);
        (first..first + self.args.seeds.get() as u64).map(seed).collect()
    }

    /// The base model's pictures of a seed's training captions, drawn once.
    ///
    /// # Errors
    /// If it cannot draw, or they cannot be written or read.
    pub(super) fn drawn(&self, seed: &Seed) -> Outcome<Drawn> {
        Drawn::kept_in(&seed.folder.join("drawn"), &self.base, seed.seed, self.ctx)
    }

    /// Measures the base model.
    ///
    /// # Errors
    /// If it cannot draw, or the result cannot be written or read.
    pub(super) fn measure_base(&mut self, seed: &Seed) -> Outcome {
        self.once(seed, BASE, |study| {
            Ok((measure(&study.base, None, &study.evaluation(seed), study.ctx)?, None))
        })
    }

    /// Trains by a recipe and measures what came of it, if there is no result of that name yet; `data` gives the data with the
    /// share of right labels.
    ///
    /// # Errors
    /// If the recipe does not resolve, or training or drawing fails.
    pub(super) fn align(
        &mut self,
        seed: &Seed,
        name: &str,
        recipe: &str,
        data: impl FnOnce(&Self, &Plan) -> Outcome<(PathBuf, Option<f64>)>,
    ) -> Outcome {
        self.once(seed, name, |study| {
            // Which data a recipe wants is known once it is resolved; where they lie says nothing about it.
            let wanted = study.resolve(name, recipe, seed, Path::new("data"))?;
            let (data, right) = data(study, &wanted)?;
            Ok((study.train(name, &study.resolve(name, recipe, seed, &data)?, seed)?, right))
        })
    }

    fn evaluation(&self, seed: &Seed) -> Evaluation {
        Evaluation { seed: seed.seed, prompts: self.args.prompts.get(), select: self.args.select }
    }

    fn resolve(&self, name: &str, recipe: &str, seed: &Seed, data: &Path) -> Outcome<Plan> {
        let mut overrides = vec![
            format!("model.path={}", self.model.display()),
            format!("data.path={}", data.display()),
            format!("train.seed={}", seed.seed),
        ];
        overrides.extend(self.args.overrides.iter().cloned());
        Ok(Plan::resolve(Resolver::parse(Path::new(name), recipe, &overrides)?)?)
    }

    fn train(&self, name: &str, plan: &Plan, seed: &Seed) -> Outcome<Scores> {
        let folder = seed.folder.join(name);
        let directory = match folder.exists() {
            true => RunDirectory::open(&folder)?,
            false => RunDirectory::create(&folder, plan)?,
        };
        train::execute(plan, &directory, OnAlarm::Warn, self.ctx)?;
        let trained = ImageModel::load(&directory.final_folder(), None, &self.ctx.device()?)?;
        let evaluation = self.evaluation(seed);
        match plan.data.prefer {
            votive_train::plan::Prefer::Chosen => measure(&trained, None, &evaluation, self.ctx),
            // What likes the rejected is what guidance leads away from.
            votive_train::plan::Prefer::Rejected => {
                measure(&self.base, Some(&trained), &evaluation, self.ctx)
            }
        }
    }

    /// The result of a name, from its file if it is there.
    fn once(
        &mut self,
        seed: &Seed,
        name: &str,
        work: impl FnOnce(&Self) -> Outcome<(Scores, Option<f64>)>,
    ) -> Outcome {
        let split = if self.args.select { "select" } else { "test" };
        let file = seed.folder.join(format!("{name}.{split}.json"));
        let measured = if file.exists() {
            let text = std::fs::read(&file).map_err(|error| Failure::file(&file, error))?;
            let wrong = |error| Failure::data(format!("{}: {error}; delete the file", file.display()));
            serde_json::from_slice(&text).map_err(wrong)?
        } else {
            self.ctx.output.note(format!("seed {}: {name}", seed.seed));
            let started = Instant::now();
            let (scores, labels_right) = work(self)?;
            let seconds = started.elapsed().as_secs_f64();
            let measured =
                Measured { method: name.to_owned(), seed: seed.seed, seconds, labels_right, scores };
            let value = serde_json::to_value(&measured).map_err(|error| Failure::data(error.to_string()))?;
            files::write_json(&file, &value)?;
            measured
        };
        self.results.push(measured);
        Ok(())
    }

    /// Writes all results in a table and a picture, and prints the table; rows are compared with that of the first name of
    /// `standard`, which headings call by the second.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn report(&self, standard: (&'static str, &'static str), heading: &'static str) -> Outcome {
        let table = table::Table::of(&self.results, standard, heading);
        files::write_bytes(&self.out.join("table.md"), table.to_markdown().as_bytes())?;
        files::write_bytes(&self.out.join("gains.svg"), table.to_svg().as_bytes())?;
        if self.ctx.output.wants_json() {
            return self.ctx.output.json(&table);
        }
        self.ctx.output.line(table.to_markdown())
    }
}
