//! `votive eval images`: how good images are, and whether they are better than others of the same prompts and seeds.

use super::image_set::{Drawn, ImageSet, check_pairs, is_model};
use crate::cli::image_model::{DrawSettings, ImageModel};
use crate::cli::prompts::read_file;
use crate::cli::sample::sampler;
use crate::cli::world::{CFG, STEPS};
use crate::cli::{Context, Failure, Outcome};
use image::RgbImage;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use votive_diffusion::SamplerKind;
use votive_eval::{Comparison, Mean, compare, grade_images, mean_over_prompts};
use votive_model::files;
use votive_playground::Split;
use votive_playground::image::{Picture, prompts};
use votive_train::reward::PictureScorer;

/// Score images, and compare them with others of the same prompts and seeds
///
/// IMAGES is a folder of images, a folder in GenEval's layout, or a Stable Diffusion model that is to draw them; so is
/// --against. Prompts and seeds are those that `votive sample` and other programs note in PNG files, unless prompts are
/// given. Means have 95 % intervals by a bootstrap over prompts. A win is a higher score at the same prompt and seed; its
/// share has Wilson's interval over prompts.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  votive eval images out/aligned --against out/base --clip clip-vit-large-patch14\n  \
                  votive eval images models/tiny-sd --adapter runs/dpo/final --against models/tiny-sd --playground 100 \
                  --checker"
)]
pub(super) struct Args {
    /// A folder of images, or a model that draws them.
    #[arg(value_name = "IMAGES")]
    images: PathBuf,
    /// A LoRA adapter on the model.
    #[arg(long, value_name = "PATH")]
    adapter: Option<PathBuf>,
    /// What to compare with: a folder of images, or a model.
    #[arg(long, value_name = "IMAGES")]
    against: Option<PathBuf>,
    /// A LoRA adapter on the model to compare with.
    #[arg(long, value_name = "PATH", requires = "against")]
    against_adapter: Option<PathBuf>,
    #[command(flatten)]
    scores: Scores,
    /// The prompts in order: one a line, or the column `prompt` of a .jsonl file.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Held-out captions of the playground as prompts, this many.
    #[arg(long, value_name = "N", conflicts_with = "prompts")]
    playground: Option<usize>,
    /// Images of each prompt that a model draws [default: 1].
    #[arg(long, value_name = "N")]
    images_per_prompt: Option<NonZeroUsize>,
    /// Seed of the first image that a model draws, of the playground's captions, and of the bootstrap.
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
    /// How a model gets from noise to latents [default: ddim].
    #[arg(long, value_name = "NAME", value_parser = sampler())]
    sampler: Option<SamplerKind>,
    /// Steps of the sampler [default: 10 on the playground's captions, else 50].
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Scale of classifier-free guidance [default: 1.5 on the playground's captions, else 7.5].
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    cfg: Option<f64>,
    /// Images that are worked on at once.
    #[arg(long, value_name = "N", default_value = "8")]
    batch: NonZeroUsize,
    /// Write a line of JSON for each image: prompt, seed, scores of it and of the one it is compared with.
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
}

/// What images are scored by.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Scores {
    /// A CLIP model's folder (PickScore and HPSv2 are such models), whose CLIPScore is given: 100·max(cos, 0); with an
    /// `aesthetic.safetensors` in it, the points of 10 that this head gives. Repeat it for several.
    #[arg(long, value_name = "DIR")]
    clip: Vec<PathBuf>,
    /// The playground's exact checker: whether an image shows what its caption says, by category.
    #[arg(long)]
    checker: bool,
}

/// Steps and guidance of images of other prompts than the playground's.
const USUAL: (usize, f64) = (50, 7.5);

pub(super) fn run(args: &Args, ctx: &Context) -> Outcome {
    check_options(args)?;
    let (set, against) = sets(args, ctx)?;
    if let Some(against) = &against {
        check_pairs(&set.images, &against.images)?;
    }
    let scorers = scorers(args, &set.images, ctx)?;
    let scores = score(&scorers, &set, args, ctx)?;
    let others = against.as_ref().map(|against| score(&scorers, against, args, ctx)).transpose()?;
    if let Some(file) = &args.out {
        write_rows(file, &scorers, (&set.images, &scores), others.as_deref())?;
    }
    let prompts: Vec<&str> = set.images.iter().map(|image| image.prompt.as_str()).collect();
    let result = |(scorer, number): (&Scorer, usize)| {
        let others = others.as_ref().map(|others| others[number].as_slice());
        scorer.results(&set.images, &scores[number], others, args.seed)
    };
    let results: Vec<Scored> = scorers.iter().zip(0..).flat_map(result).collect();
    report(&results, set.images.len(), prompts.iter().collect::<BTreeSet<_>>().len(), ctx)
}

/// Refuses options that nothing would read.
fn check_options(args: &Args) -> Outcome {
    let model = is_model(&args.images);
    let other = args.against.as_deref().is_some_and(is_model);
    let place = |path: &Path| format!("{} is no Stable Diffusion folder", path.display());
    if args.adapter.is_some() && !model {
        return Err(Failure::usage(format!("--adapter needs a model, and {}", place(&args.images))));
    }
    if let (Some(against), Some(_), false) = (&args.against, &args.against_adapter, other) {
        return Err(Failure::usage(format!("--against-adapter needs a model, and {}", place(against))));
    }
    let drawing = [
        ("images-per-prompt", args.images_per_prompt.is_some()),
        ("sampler", args.sampler.is_some()),
        ("steps", args.steps.is_some()),
        ("cfg", args.cfg.is_some()),
        ("playground", args.playground.is_some()),
    ];
    if let (false, false, Some((name, _))) = (model, other, drawing.iter().find(|(_, given)| *given)) {
        return Err(Failure::usage(format!("--{name} has no effect: no model draws anything here")));
    }
    if args.playground == Some(0) {
        return Err(Failure::usage("--playground 0: at least one prompt is needed"));
    }
    Ok(())
}

/// The images, and those that they are compared with.
fn sets(args: &Args, ctx: &Context) -> Outcome<(ImageSet, Option<ImageSet>)> {
    let prompts = match (&args.prompts, args.playground) {
        (Some(file), _) => Some(read_file(file)?),
        (None, Some(n)) => Some(prompts(Split::Test, args.seed, n)),
        (None, None) => None,
    };
    let folder = |path: &Path| ImageSet::of_folder(path, prompts.as_deref());
    let against = args.against.as_deref();
    match (is_model(&args.images), against.map(is_model)) {
        (false, None) => Ok((folder(&args.images)?, None)),
        (false, Some(false)) => Ok((folder(&args.images)?, against.map(folder).transpose()?)),
        (false, Some(true)) => {
            let set = folder(&args.images)?;
            let jobs = jobs(args, prompts.as_deref(), Some(&set))?;
            let other = against.map(|path| model(path, args.against_adapter.as_deref(), jobs, args, ctx));
            Ok((set, other.transpose()?))
        }
        (true, Some(false)) => {
            let other = against.map(folder).transpose()?;
            let jobs = jobs(args, prompts.as_deref(), other.as_ref())?;
            Ok((model(&args.images, args.adapter.as_deref(), jobs, args, ctx)?, other))
        }
        (true, _) => {
            let jobs = jobs(args, prompts.as_deref(), None)?;
            let set = model(&args.images, args.adapter.as_deref(), jobs.clone(), args, ctx)?;
            let other = against.map(|path| model(path, args.against_adapter.as_deref(), jobs, args, ctx));
            Ok((set, other.transpose()?))
        }
    }
}

/// Prompts and seeds that a model draws: those given, numbered on as `votive sample` does, or those of the images that
/// it is compared with.
fn jobs(args: &Args, prompts: Option<&[String]>, images: Option<&ImageSet>) -> Outcome<Vec<(String, u64)>> {
    let Some(prompts) = prompts else {
        if args.images_per_prompt.is_some() && images.is_some() {
            let idle = Failure::usage(
                "--images-per-prompt has no effect: the images to compare with say what is drawn",
            );
            return Err(idle.hint("give --prompts, or leave it out"));
        }
        return images.map_or_else(
            || Err(Failure::usage("a model needs prompts: give --prompts or --playground")),
            ImageSet::prompts_and_seeds,
        );
    };
    let each = args.images_per_prompt.map_or(1, NonZeroUsize::get);
    let repeated = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.clone(), each));
    Ok(repeated.zip(0..).map(|(prompt, number)| (prompt, args.seed.wrapping_add(number))).collect())
}

fn model(
    folder: &Path,
    adapter: Option<&Path>,
    jobs: Vec<(String, u64)>,
    args: &Args,
    ctx: &Context,
) -> Outcome<ImageSet> {
    let (steps, cfg) = if args.playground.is_some() { (STEPS, CFG) } else { USUAL };
    let settings = DrawSettings {
        sampler: args.sampler.unwrap_or(SamplerKind::Ddim),
        steps: args.steps.unwrap_or(steps),
        cfg: args.cfg.unwrap_or(cfg),
    };
    let model = ImageModel::load(folder, adapter, &ctx.device()?)?;
    settings.sampler.build(&model.scheduler, settings.steps)?;
    Ok(ImageSet::of_model(model, settings, jobs))
}

/// Something that gives every image a number.
enum Scorer {
    Clip { name: String, scorer: PictureScorer },
    Checker,
}

fn scorers(args: &Args, images: &[Drawn], ctx: &Context) -> Outcome<Vec<Scorer>> {
    let mut scorers = Vec::new();
    for folder in &args.scores.clip {
        let scorer = PictureScorer::open(folder, &ctx.device()?)?;
        let prompts: BTreeSet<&str> = images.iter().map(|image| image.prompt.as_str()).collect();
        let prompts: Vec<&str> = prompts.into_iter().collect();
        let cut = scorer.cut_prompts(&prompts)?;
        if cut > 0 {
            let folder = folder.display();
            ctx.output.warn(format!("{folder}: {cut} of {} prompts are too long and are cut", prompts.len()));
        }
        let name = std::path::absolute(folder).ok().and_then(|path| Some(path.file_name()?.to_owned()));
        let name = name.map_or_else(|| "clip".to_owned(), |name| name.to_string_lossy().into_owned());
        scorers.push(Scorer::Clip { name, scorer });
    }
    if args.scores.checker {
        scorers.push(Scorer::Checker);
    }
    Ok(scorers)
}

impl Scorer {
    /// The key in rows and results.
    fn key(&self) -> String {
        match self {
            Self::Clip { name, scorer } => match scorer {
                PictureScorer::Fit(_) => format!("clip:{name}"),
                PictureScorer::Aesthetic(_) => format!("aesthetic:{name}"),
            },
            Self::Checker => "exact".to_owned(),
        }
    }

    /// CLIPScores, points of 10, or 100 where the checker sees all that the caption says and 0 where not.
    fn scores(&self, images: &[Drawn], pictures: &[RgbImage]) -> Outcome<Vec<f64>> {
        let prompts: Vec<String> = images.iter().map(|image| image.prompt.clone()).collect();
        let size = |picture: &RgbImage| (picture.width() as usize, picture.height() as usize);
        match self {
            Self::Clip { scorer, .. } => {
                let bytes: Vec<(&[u8], (usize, usize))> =
                    pictures.iter().map(|picture| (picture.as_raw().as_slice(), size(picture))).collect();
                let found = scorer.of_files(&prompts, &bytes)?;
                Ok(match scorer {
                    PictureScorer::Fit(_) => found.into_iter().map(|cos| 100.0 * cos.max(0.0)).collect(),
                    PictureScorer::Aesthetic(_) => found,
                })
            }
            Self::Checker => {
                let pictures = pictures.iter().map(|picture| {
                    let (width, height) = size(picture);
                    Picture { width, height, rgb: picture.as_raw().clone() }
                });
                let graded = grade_images(&prompts, &pictures.collect::<Vec<_>>()).map_err(|error| {
                    Failure::from(error).hint("--checker is for the playground's captions")
                })?;
                Ok(graded.into_iter().map(|one| 100.0 * f64::from(u8::from(one.exact))).collect())
            }
        }
    }

    /// The result over all images, and of the checker that of every category.
    fn results(&self, images: &[Drawn], scores: &[f64], others: Option<&[f64]>, seed: u64) -> Vec<Scored> {
        let of = |name: String, places: &[usize]| {
            let pick = |numbers: &[f64]| places.iter().map(|place| numbers[*place]).collect::<Vec<f64>>();
            let prompts: Vec<&str> = places.iter().map(|place| images[*place].prompt.as_str()).collect();
            let others = others.map(pick);
            Scored {
                name,
                mean: mean_over_prompts(&prompts, &pick(scores), seed),
                against: others.as_ref().map(|others| mean_over_prompts(&prompts, others, seed)),
                comparison: others.as_ref().map(|others| compare(&prompts, &pick(scores), others, seed)),
            }
        };
        let all: Vec<usize> = (0..images.len()).collect();
        let mut results = vec![of(self.key(), &all)];
        if let Self::Checker = self {
            let category = |place: &usize| votive_playground::image::category(&images[*place].prompt);
            for wanted in votive_playground::image::Category::ALL {
                let places: Vec<usize> =
                    all.iter().copied().filter(|place| category(place) == Some(*wanted)).collect();
                if !places.is_empty() {
                    results.push(of(format!("exact:{}", format!("{wanted:?}").to_lowercase()), &places));
                }
            }
        }
        results
    }
}

/// The scores of every image by every scorer.
fn score(scorers: &[Scorer], set: &ImageSet, args: &Args, ctx: &Context) -> Outcome<Vec<Vec<f64>>> {
    let mut scores = vec![Vec::with_capacity(set.images.len()); scorers.len()];
    set.each_batch(args.batch.get(), ctx, |first, pictures| {
        let images = &set.images[first..first + pictures.len()];
        for (scorer, scores) in scorers.iter().zip(&mut scores) {
            let found = scorer.scores(images, pictures)?;
            if let Some(place) = found.iter().position(|score| !score.is_finite()) {
                let message = format!("{}: {} is not a number", images[place].name, scorer.key());
                return Err(Failure::new(crate::cli::Code::Numbers, message));
            }
            scores.extend(found);
        }
        Ok(())
    })?;
    Ok(scores)
}

/// What one score says of all images, or of a category's.
#[derive(Serialize)]
struct Scored {
    name: String,
    mean: Mean,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Mean>,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    comparison: Option<Comparison>,
}

fn write_rows(
    file: &Path,
    scorers: &[Scorer],
    (images, scores): (&[Drawn], &[Vec<f64>]),
    others: Option<&[Vec<f64>]>,
) -> Outcome {
    let at = |table: &[Vec<f64>], place: usize| -> Map<String, Value> {
        scorers.iter().zip(table).map(|(scorer, scores)| (scorer.key(), json!(scores[place]))).collect()
    };
    let mut text = String::new();
    for (place, image) in images.iter().enumerate() {
        let mut row = json!({ "image": image.name, "prompt": image.prompt, "seed": image.seed });
        row["scores"] = at(scores, place).into();
        if let Some(others) = others {
            row["against"] = at(others, place).into();
        }
        text += &format!("{row}\n");
    }
    Ok(files::write_bytes(file, text.as_bytes())?)
}

fn report(results: &[Scored], images: usize, prompts: usize, ctx: &Context) -> Outcome {
    if ctx.output.wants_json() {
        return ctx.output.json(&json!({ "images": images, "prompts": prompts, "scores": results }));
    }
    ctx.output.line(format!("{images} images of {prompts} prompts"))?;
    let widest = results.iter().map(|result| result.name.chars().count()).max().unwrap_or(0);
    for Scored { name, mean, against, comparison } in results {
        let own = format!("{name:widest$}  {:6.2} [{:.2}, {:.2}]", mean.value, mean.low, mean.high);
        let (Some(against), Some(found)) = (against, comparison) else {
            ctx.output.line(format!("{own}  of {} prompts", mean.n))?;
            continue;
        };
        let (gain, win) = (found.difference, found.win);
        ctx.output.line(format!(
            "{own}  against {:6.2}  {:+.2} [{:+.2}, {:+.2}]  wins {:.1} % [{:.1}, {:.1}], ties {:.1} %, losses {:.1} %  of {} prompts",
            against.value, gain.value, gain.low, gain.high, win.value, win.low, win.high, found.tie.value,
            found.loss.value, win.n
        ))?;
    }
    Ok(())
}
