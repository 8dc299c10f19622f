//! `votive bench diffusion-methods`: every recipe for images beside the base model, on the playground, over several seeds.

use super::study::{Seed, Study, StudyArgs};
use crate::cli::judges::{CHECKER, Subject};
use crate::cli::labels::Labeller;
use crate::cli::world_pairs::{FLIPPED, training_captions};
use crate::cli::{Context, Outcome, embedded};
use std::path::PathBuf;
use votive_model::files;

/// The recipes, as they are shipped.
const RECIPES: &[(&str, &str)] = &[
    ("curriculum", include_str!("../../../examples/recipes/image/curriculum.toml")),
    ("d3po", include_str!("../../../examples/recipes/image/d3po.toml")),
    ("dpo", include_str!("../../../examples/recipes/image/dpo.toml")),
    ("dspo", include_str!("../../../examples/recipes/image/dspo.toml")),
    ("inpo", include_str!("../../../examples/recipes/image/inpo.toml")),
    ("kto", include_str!("../../../examples/recipes/image/kto.toml")),
    ("mapo", include_str!("../../../examples/recipes/image/mapo.toml")),
    ("npo", include_str!("../../../examples/recipes/image/npo.toml")),
    ("refl", include_str!("../../../examples/recipes/image/refl.toml")),
    ("rethinking", include_str!("../../../examples/recipes/image/rethinking.toml")),
    ("rwr", include_str!("../../../examples/recipes/image/rwr.toml")),
    ("smpo", include_str!("../../../examples/recipes/image/smpo.toml")),
    ("spo", include_str!("../../../examples/recipes/image/spo.toml")),
    ("tailorpo", include_str!("../../../examples/recipes/image/tailorpo.toml")),
];

#[derive(Debug, clap::Args)]
pub(super) struct MethodsArgs {
    /// Folder for data, runs and results; what is there already is kept and counted.
    #[arg(long, value_name = "DIR", default_value = "runs/diffusion-methods")]
    out: PathBuf,
    /// Recipes to run [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = names())]
    only: Vec<String>,
    #[command(flatten)]
    study: StudyArgs,
}

fn names() -> clap::builder::PossibleValuesParser {
    RECIPES.iter().map(|(name, _)| *name).collect::<Vec<_>>().into()
}

pub(super) fn run(args: &MethodsArgs, ctx: &Context) -> Outcome {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    // Wherever the program is called from.
    let clip = embedded::folder("tiny-clip")?;
    let mut study = Study::new(&args.study, &args.out, ctx)?;
    for seed in study.seeds()? {
        study.measure_base(&seed)?;
        for (name, recipe) in RECIPES.iter().filter(|(name, _)| wanted(name)) {
            let recipe = recipe.replace("models/tiny-clip", &clip.display().to_string());
            study.align(&seed, name, &recipe, |study, plan| {
                // A policy that draws itself needs captions only.
                let data = if plan.rollout.is_some() { captions(&seed) } else { pairs(study, &seed) };
                Ok((data?, None))
            })?;
        }
    }
    study.report(("dpo", "Diffusion-DPO"), "method")
}

fn captions(seed: &Seed) -> Outcome<PathBuf> {
    let file = seed.folder.join("captions.txt");
    files::write_bytes(&file, training_captions(seed.seed).join("\n").as_bytes())?;
    Ok(file)
}

/// The labelled pairs of a seed, which all recipes share.
fn pairs(study: &Study, seed: &Seed) -> Outcome<PathBuf> {
    let file = seed.folder.join("pairs.jsonl");
    if !file.exists() {
        let truth = Labeller::open(CHECKER, Subject::Images, study.ctx)?;
        let drawn = study.drawn(seed)?;
        drawn.label((&truth, &drawn.utilities(&truth, study.ctx)?), FLIPPED, &seed.folder, study.ctx)?;
    }
    Ok(file)
}
