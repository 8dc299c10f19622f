//! `votive sample`: images from a Stable Diffusion model.

use crate::cli::image_model::{ImageModel, as_network, write_png};
use crate::cli::prompts::Prompts;
use crate::cli::weighted::WeightedPath;
use crate::cli::{Context, Failure, Outcome};
use candle_core::{DType, Device, Tensor};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use image::RgbImage;
use serde_json::json;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use votive_diffusion::{DenoiseFn, Guidance, SamplerKind, StepNoise, initial_latents, sample};
use votive_model::files;
use votive_model::stable_diffusion::UNet2DConditionModel;

/// Draw images with a Stable Diffusion model.
///
/// Image number i (from 0, in the order of the prompts) is drawn from seed + i, so but for rounding it does not depend
/// on its batch; its file is 00000.png and so on.
#[derive(Debug, clap::Args)]
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
    /// What to guide away from [default: the empty prompt, or zeros for an SDXL model that says so].
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// How to get from noise to latents.
    #[arg(long, value_name = "NAME", default_value = "ddim", value_parser = sampler())]
    sampler: SamplerKind,
    /// Calls of the network per image.
    #[arg(long, value_name = "N", default_value_t = 50)]
    steps: usize,
    /// Scale of classifier-free guidance; 1 or less guides nothing.
    #[arg(long, value_name = "S", default_value_t = 7.5, allow_negative_numbers = true)]
    cfg: f64,
    /// Seed of the first image.
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
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
fn sampler() -> impl TypedValueParser<Value = SamplerKind> {
    PossibleValuesParser::new(SamplerKind::ALL.iter().map(|kind| kind.name())).try_map(|name| name.parse())
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let prompts = args.prompts.read()?;
    let negative = [("model", args.negative_model.is_some()), ("adapter", !args.negative_adapter.is_empty())];
    if let Some((what, _)) = negative.iter().find(|(_, is_given)| *is_given && args.cfg <= 1.0) {
        let idle = Failure::usage(format!("--negative-{what} has no effect at --cfg {}", args.cfg));
        return Err(idle.hint("use --cfg above 1"));
    }
    let device = ctx.device()?;
    let model = ImageModel::load(&args.model, args.adapter.as_deref(), &device)?;
    if !model.unused.is_empty() {
        let folder = args.model.display();
        ctx.output.note(format!("{folder}: not used: {}", model.unused.join(", ")));
    }
    let native = model.native_size();
    let size = (args.width.unwrap_or(native.0), args.height.unwrap_or(native.1));
    let shape = model.latent_shape(size)?;
    let seeds: Vec<u64> = (0..prompts.len() as u64).map(|i| args.seed.wrapping_add(i)).collect();
    let latents = match &args.latents {
        Some(file) => read_latents(file, (prompts.len(), shape), &device)?,
        None => initial_latents(&seeds, shape, &device)?,
    };
    let drawing = Drawing::new(args, &model, size)?;
    let finished = drawing.draw(&prompts, &seeds, &latents, ctx)?;
    if let Some(file) = &args.save_latents {
        let tensors =
            [("latents", latents), ("final_latents", finished)].map(|(name, t)| (name.to_owned(), t));
        files::write(file, tensors, DType::F32, BTreeMap::new())?;
    }
    Ok(())
}

/// Starting noise from a file, checked against what the prompts and the model ask for.
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
            format!("tensor `latents`: expected shape {:?} for {b} prompts, found {found:?}", [b, c, h, w]);
        return Err(wrong(message).hint("give one prompt for each latent, and --width and --height to fit"));
    }
    Ok(latents.to_dtype(DType::F32)?)
}

/// All that stays the same from batch to batch.
struct Drawing<'a> {
    args: &'a Args,
    model: &'a ImageModel,
    /// Width and height in pixels.
    size: (u32, u32),
    negative: Option<UNet2DConditionModel>,
}

impl<'a> Drawing<'a> {
    fn new(args: &'a Args, model: &'a ImageModel, size: (u32, u32)) -> Outcome<Self> {
        // A number of steps that does not fit is better known before other weights are read.
        args.sampler.build(&model.scheduler, args.steps)?;
        let negative = match &args.negative_model {
            None if args.negative_adapter.is_empty() => None,
            folder => {
                let folder = folder.as_deref().unwrap_or(&args.model);
                Some(model.load_partner(folder, &args.negative_adapter)?)
            }
        };
        Ok(Self { args, model, size, negative })
    }

    /// Draws, decodes and saves every image; returns all finished latents.
    fn draw(&self, prompts: &[String], seeds: &[u64], latents: &Tensor, ctx: &Context) -> Outcome<Tensor> {
        let size = self.args.batch.get();
        let n_batches = prompts.len().div_ceil(size);
        let progress = ctx.output.progress("sampling", "steps", (n_batches * self.args.steps) as u64);
        let mut finished = Vec::with_capacity(n_batches);
        for (idx, (prompts, seeds)) in prompts.chunks(size).zip(seeds.chunks(size)).enumerate() {
            let start = latents.narrow(0, idx * size, prompts.len())?;
            let done = (idx * self.args.steps) as u64;
            let latents =
                self.sample(prompts, seeds, &start, ctx, |step| progress.set(done + step as u64))?;
            for (i, image) in self.model.decode(&latents)?.iter().enumerate() {
                progress.pause(|| self.save(idx * size + i, &prompts[i], seeds[i], image, ctx))?;
            }
            finished.push(latents);
        }
        progress.finish();
        Ok(Tensor::cat(&finished, 0)?)
    }

    fn sample(
        &self,
        prompts: &[String],
        seeds: &[u64],
        latents: &Tensor,
        ctx: &Context,
        progress: impl Fn(usize),
    ) -> Outcome<Tensor> {
        let prompt_embeds = self.model.embed(prompts, self.size, &ctx.output)?;
        let negative_prompt = self.args.negative_prompt.as_ref();
        let negative_embeds = self.model.embed_negative(negative_prompt, self.size, &ctx.output)?;
        let network = as_network(&self.model.unet);
        let negative = self.negative.as_ref().map(|unet| as_network(unet));
        let mut guidance = Guidance::new(&network, &prompt_embeds, &negative_embeds, self.args.cfg)?;
        if let Some(negative) = &negative {
            guidance = guidance.with_negative_network(negative as &DenoiseFn)?;
        }
        let mut sampler = self.args.sampler.build(&self.model.scheduler, self.args.steps)?;
        let noise = StepNoise::Seeded(seeds.to_vec());
        Ok(sample(sampler.as_mut(), &guidance, latents, &noise, |done, _| progress(done))?)
    }

    fn save(&self, number: usize, prompt: &str, seed: u64, image: &RgbImage, ctx: &Context) -> Outcome {
        let file = self.args.out.join(format!("{number:05}.png"));
        write_png(image, &file)?;
        if ctx.output.wants_json() {
            return ctx.output.json(&json!({"file": file, "prompt": prompt, "seed": seed}));
        }
        ctx.output.line(file.display())
    }
}
