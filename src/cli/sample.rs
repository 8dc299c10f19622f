//! `votive sample`: images from a Stable Diffusion model.

use crate::cli::image_edit::as_pixels;
use crate::cli::image_model::{ImageModel, as_network};
use crate::cli::made_with::{MadeWith, Weights};
use crate::cli::png::write_png;
use crate::cli::prompts::Prompts;
use crate::cli::weighted::WeightedPath;
use crate::cli::{Context, Failure, Outcome, geneval, model_hash};
use candle_core::{DType, Device, Tensor};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use image::imageops::FilterType;
use image::{ImageReader, RgbImage};
use serde_json::json;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use votive_diffusion::{
    DenoiseFn, Guidance, Sampler, SamplerKind, SamplerOptions, StepNoise, initial_latents, sample,
    sample_from_image,
};
use votive_model::files;
use votive_model::stable_diffusion::UNet2DConditionModel;

/// Draw images with a Stable Diffusion model
///
/// Image number i (from 0, all images of a prompt one after another, in the order of the prompts) is drawn from seed + i,
/// so but for rounding it does not depend on its batch; its file is 00000.png and so on. Every PNG says how it was made,
/// for other programs under `parameters`, and as JSON under `votive`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  votive sample --model DIR --prompt \"a red circle\" --sampler pndm --images-per-prompt 4 \
                  --out images\n  votive sample --model DIR --prompt \"a red circle\" --seeds 3,14,15 --out images\n  \
                  votive sample --model DIR --prompt \"a red circle\" --image sketch.png --strength 0.6 --out images\n  \
                  votive sample --model DIR --geneval evaluation_metadata.jsonl --out geneval"
)]
pub(crate) struct Args {
    /// The model's folder, in diffusers' layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A LoRA adapter in the format of diffusers, kohya or PEFT, a file or a folder, to put on the U-Net and, if it is for
    /// that too, on the text encoder.
    #[arg(long, value_name = "PATH")]
    adapter: Option<PathBuf>,
    /// A model whose U-Net predicts the negative half of the guidance (Diffusion-NPO).
    #[arg(long, value_name = "DIR")]
    negative_model: Option<PathBuf>,
    /// An adapter for the U-Net that predicts the negative half: that of --negative-model, or else that of --model without
    /// --adapter. Given several times, changes add up, each times its weight.
    #[arg(long, value_name = "[WEIGHT:]PATH", allow_hyphen_values = true)]
    negative_adapter: Vec<WeightedPath>,
    #[command(flatten)]
    prompts: Prompts,
    /// GenEval's prompts, as its evaluation_metadata.jsonl has them; images then lie where its scorer looks for them:
    /// OUT/00000/samples/00000.png and so on, beside OUT/00000/metadata.jsonl.
    #[arg(long, value_name = "METADATA.jsonl", group = "Prompts")]
    geneval: Option<PathBuf>,
    /// What to guide away from [default: the empty prompt, or zeros for an SDXL model that says so].
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// How to get from noise to latents.
    #[arg(long, value_name = "NAME", default_value = "ddim", value_parser = sampler())]
    sampler: SamplerKind,
    /// Steps of the sampler per image.
    #[arg(long, value_name = "N", default_value_t = 50)]
    steps: usize,
    /// Noise of DDIM's steps, from 0 for none to 1 for as much as DDPM's.
    #[arg(long, value_name = "E", default_value_t = 0.0, allow_negative_numbers = true)]
    eta: f64,
    /// Scale of classifier-free guidance; 1 or less guides nothing.
    #[arg(long, value_name = "S", default_value_t = 7.5, allow_negative_numbers = true)]
    cfg: f64,
    /// Rescale the schedule to end without signal, for a model that was trained so and whose folder does not say it.
    #[arg(long)]
    zero_terminal_snr: bool,
    /// An image to start from instead of noise (PNG, JPEG or WebP); it is scaled and cropped to the size.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// How much of the image is made anew: the share of the steps that are made, above 0 and at most 1.
    #[arg(long, value_name = "S", default_value_t = 0.8, requires = "image", allow_negative_numbers = true)]
    strength: f64,
    /// Seed of the first image.
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
    /// Seeds of the images of each prompt, one image for each.
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', conflicts_with_all = ["seed", "images_per_prompt"])]
    seeds: Vec<u64>,
    /// Images of each prompt [default: 1; of GenEval's prompts 4, as there].
    #[arg(long, value_name = "N")]
    images_per_prompt: Option<NonZeroUsize>,
    /// Pixels across [default: what the model was trained on].
    #[arg(long, value_name = "PIXELS")]
    width: Option<u32>,
    /// Pixels down [default: what the model was trained on].
    #[arg(long, value_name = "PIXELS")]
    height: Option<u32>,
    /// Images that are worked on at once.
    #[arg(long, value_name = "N", default_value = "4")]
    batch: NonZeroUsize,
    /// Folder for the images.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Starting noise: `latents` (B,C,h,w), unit variance, before any scaling by the sampler.
    #[arg(long, value_name = "FILE.safetensors")]
    latents: Option<PathBuf>,
    /// Save the starting noise (`latents`) and what the sampler makes of it (`final_latents`, before the VAE).
    #[arg(long, value_name = "FILE.safetensors")]
    save_latents: Option<PathBuf>,
}

/// Parses a sampler's name; clap suggests the nearest for one that does not exist.
pub(crate) fn sampler() -> impl TypedValueParser<Value = SamplerKind> {
    PossibleValuesParser::new(SamplerKind::ALL.iter().map(|kind| kind.name())).try_map(|name| name.parse())
}

/// An image to be drawn.
struct Job {
    prompt: String,
    seed: u64,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let rows = args.geneval.as_deref().map(geneval::read).transpose()?;
    let prompts = match &rows {
        Some(rows) => rows.iter().map(|row| row.prompt.clone()).collect(),
        None => args.prompts.read()?,
    };
    let jobs = jobs(args, &prompts);
    let negative = [("model", args.negative_model.is_some()), ("adapter", !args.negative_adapter.is_empty())];
    if let Some((what, _)) = negative.iter().find(|(_, is_given)| *is_given && args.cfg <= 1.0) {
        let idle = Failure::usage(format!("--negative-{what} has no effect at --cfg {}", args.cfg));
        return Err(idle.hint("use --cfg above 1"));
    }
    let device = ctx.device()?;
    let mut model = ImageModel::load(&args.model, args.adapter.as_deref(), &device)?;
    if !model.unused.is_empty() {
        let folder = args.model.display();
        ctx.output.note(format!("{folder}: not used: {}", model.unused.join(", ")));
    }
    if args.zero_terminal_snr {
        model.scheduler = model.scheduler.with_zero_terminal_snr();
    }
    let native = model.native_size();
    let size = (args.width.unwrap_or(native.0), args.height.unwrap_or(native.1));
    let shape = model.latent_shape(size)?;
    let seeds: Vec<u64> = jobs.iter().map(|job| job.seed).collect();
    let latents = match &args.latents {
        Some(file) => read_latents(file, (jobs.len(), shape), &device)?,
        None => initial_latents(&seeds, shape, &device)?,
    };
    let drawing = Drawing::new(args, &model, (size, rows.as_deref()), &device)?;
    let finished = drawing.draw(&jobs, &latents, ctx)?;
    if let Some(file) = &args.save_latents {
        let tensors =
            [("latents", latents), ("final_latents", finished)].map(|(name, t)| (name.to_owned(), t));
        files::write(file, tensors, DType::F32, BTreeMap::new())?;
    }
    Ok(())
}

fn images_per_prompt(args: &Args) -> usize {
    let usual = if args.geneval.is_some() { geneval::IMAGES_PER_PROMPT } else { 1 };
    let counted = args.images_per_prompt.map_or(usual, NonZeroUsize::get);
    if args.seeds.is_empty() { counted } else { args.seeds.len() }
}

/// Every prompt with every seed that it is drawn from.
fn jobs(args: &Args, prompts: &[String]) -> Vec<Job> {
    let each = images_per_prompt(args);
    let seed = |number: usize| {
        let given = args.seeds.get(number % each).copied();
        given.unwrap_or_else(|| args.seed.wrapping_add(number as u64))
    };
    let prompts = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, each));
    prompts.enumerate().map(|(number, prompt)| Job { prompt: prompt.clone(), seed: seed(number) }).collect()
}

/// Starting noise from a file, checked against what the images and the model ask for.
fn read_latents(
    file: &Path,
    (b, (c, h, w)): (usize, (usize, usize, usize)),
    device: &Device,
) -> Outcome<Tensor> {
    let wrong = |what: String| Failure::data(format!("{}: {what}", file.display()));
    let mut tensors = files::read(file, device)?.tensors;
    let Some(latents) = tensors.remove("latents") else {
        let names: Vec<String> = tensors.into_keys().collect();
        return Err(wrong(format!("no tensor `latents`; found {}", names.join(", "))));
    };
    if latents.dims() != [b, c, h, w] {
        let found = latents.dims();
        let message =
            format!("tensor `latents`: expected shape {:?} for {b} images, found {found:?}", [b, c, h, w]);
        return Err(wrong(message).hint("give one image for each latent, and --width and --height to fit"));
    }
    Ok(latents.to_dtype(DType::F32)?)
}

/// The pixels of an image file, scaled and cropped to a size, `(1, 3, H, W)` from −1 to 1.
fn read_image(file: &Path, (width, height): (u32, u32), device: &Device) -> Outcome<Tensor> {
    let reader = ImageReader::open(file).and_then(ImageReader::with_guessed_format);
    let reader = reader.map_err(|error| Failure::file(file, error))?;
    // The reader's own limits keep a file that states a huge size from filling the memory.
    let image = reader.decode().map_err(|error| Failure::data(format!("{}: {error}", file.display())))?;
    let image = image.resize_to_fill(width, height, FilterType::CatmullRom).into_rgb8();
    as_pixels(&[&image], device)
}

/// All that stays the same from batch to batch.
struct Drawing<'a> {
    args: &'a Args,
    model: &'a ImageModel,
    negative: Option<UNet2DConditionModel>,
    /// Pixels `(1, 3, H, W)` to start from.
    image: Option<Tensor>,
    /// Width and height in pixels.
    size: (u32, u32),
    /// The prompts' rows, if they are GenEval's.
    rows: Option<&'a [geneval::Row]>,
    model_hash: String,
    calls: usize,
}

impl<'a> Drawing<'a> {
    fn new(
        args: &'a Args,
        model: &'a ImageModel,
        (size, rows): ((u32, u32), Option<&'a [geneval::Row]>),
        device: &Device,
    ) -> Outcome<Self> {
        let image = args.image.as_deref().map(|file| read_image(file, size, device)).transpose()?;
        // Steps and options that do not fit are better known before other weights are read.
        let calls = sampler_of(args, model)?.timesteps().len();
        let negative = match &args.negative_model {
            None if args.negative_adapter.is_empty() => None,
            folder => {
                let folder = folder.as_deref().unwrap_or(&args.model);
                Some(model.load_partner(folder, &args.negative_adapter)?)
            }
        };
        Ok(Self {
            args,
            model,
            negative,
            image,
            size,
            rows,
            model_hash: model_hash::of_unet(&args.model)?,
            calls,
        })
    }

    /// Draws, decodes and saves every image; returns all finished latents.
    fn draw(&self, jobs: &[Job], latents: &Tensor, ctx: &Context) -> Outcome<Tensor> {
        let size = self.args.batch.get();
        let n_batches = jobs.len().div_ceil(size);
        let progress = ctx.output.progress("sampling", "steps", (n_batches * self.calls) as u64);
        let mut finished = Vec::with_capacity(n_batches);
        for (idx, jobs) in jobs.chunks(size).enumerate() {
            let start = latents.narrow(0, idx * size, jobs.len())?;
            let done = (idx * self.calls) as u64;
            let latents = self.sample(jobs, &start, ctx, |step| progress.set(done + step as u64))?;
            for (i, image) in self.model.decode(&latents)?.iter().enumerate() {
                progress.pause(|| self.save(idx * size + i, &jobs[i], image, ctx))?;
            }
            finished.push(latents);
        }
        progress.finish();
        Ok(Tensor::cat(&finished, 0)?)
    }

    fn sample(
        &self,
        jobs: &[Job],
        start: &Tensor,
        ctx: &Context,
        progress: impl Fn(usize),
    ) -> Outcome<Tensor> {
        let prompts: Vec<String> = jobs.iter().map(|job| job.prompt.clone()).collect();
        let seeds: Vec<u64> = jobs.iter().map(|job| job.seed).collect();
        let prompt_embeds = self.model.embed(&prompts, self.size, &ctx.output)?;
        let negative_prompt = self.args.negative_prompt.as_ref();
        let negative_embeds = self.model.embed_negative(negative_prompt, self.size, &ctx.output)?;
        let network = as_network(&self.model.unet);
        let negative = self.negative.as_ref().map(|unet| as_network(unet));
        let mut guidance = Guidance::new(&network, &prompt_embeds, &negative_embeds, self.args.cfg)?;
        if let Some(negative) = &negative {
            guidance = guidance.with_negative_network(negative as &DenoiseFn)?;
        }
        let mut sampler = sampler_of(self.args, self.model)?;
        let noise = StepNoise::Seeded(seeds.clone());
        let progress = |done, _| progress(done);
        Ok(match &self.image {
            None => sample(sampler.as_mut(), &guidance, start, &noise, progress)?,
            Some(pixels) => {
                let (_, channels, height, width) = pixels.dims4()?;
                let each = pixels.broadcast_as((seeds.len(), channels, height, width))?.contiguous()?;
                let image = self.model.encode_seeded(&each, &seeds, start)?;
                sample_from_image(sampler.as_mut(), &guidance, (&image, start), &noise, progress)?
            }
        })
    }

    fn save(&self, number: usize, job: &Job, image: &RgbImage, ctx: &Context) -> Outcome {
        let out = &self.args.out;
        let file = match self.rows {
            None => out.join(format!("{number:05}.png")),
            Some(rows) => {
                let each = images_per_prompt(self.args);
                let (prompt, image) = (number / each, number % each);
                if image == 0 {
                    geneval::write_metadata(out, prompt, &rows[prompt])?;
                }
                geneval::image_file(out, prompt, image)
            }
        };
        write_png(image, &self.texts(job), &file)?;
        if ctx.output.wants_json() {
            return ctx.output.json(&json!({"file": file, "prompt": job.prompt, "seed": job.seed}));
        }
        ctx.output.line(file.display())
    }

    /// How an image was made, for other programs and as JSON.
    fn texts(&self, job: &Job) -> [(&'static str, String); 2] {
        let args = self.args;
        let made = MadeWith {
            prompt: &job.prompt,
            negative_prompt: args.negative_prompt.as_deref().unwrap_or_default(),
            model: &args.model,
            weights: Weights::File { hash: &self.model_hash },
            adapter: args.adapter.as_deref(),
            negative_model: args.negative_model.as_deref(),
            sampler: args.sampler,
            steps: args.steps,
            eta: args.eta,
            cfg: args.cfg,
            seed: job.seed,
            size: self.size,
            image: args.image.as_deref().map(|image| (image, args.strength)),
            zero_terminal_snr: args.zero_terminal_snr,
            given_latents: args.latents.is_some(),
        };
        made.texts()
    }
}

/// The sampler that the arguments ask for.
fn sampler_of(args: &Args, model: &ImageModel) -> Outcome<Box<dyn Sampler>> {
    let strength = if args.image.is_some() { args.strength } else { 1.0 };
    let options = SamplerOptions { eta: args.eta, strength };
    Ok(args.sampler.build_with(&model.scheduler, args.steps, options)?)
}
