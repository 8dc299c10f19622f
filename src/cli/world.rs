//! Asking models about the playground worlds: answers to instructions, pictures of captions.

use super::image_model::{ImageModel, as_network};
use super::text_model::TextModel;
use super::{Context, Outcome, signal};
use candle_core::Tensor;
use image::RgbImage;
use serde::Serialize;
use votive_diffusion::{Guidance, SamplerKind, StepNoise, initial_latents, sample};
use votive_model::{GenerateOptions, generate};
use votive_playground::image::Picture;

/// How answers are decoded.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Decoding {
    /// 0 is greedy.
    pub(crate) temperature: f64,
    /// Seed of the draws.
    pub(crate) seed: u64,
}

/// How pictures are sampled.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sampling {
    /// Calls of the U-Net per image and half.
    pub(crate) steps: usize,
    /// Scale of classifier-free guidance.
    pub(crate) cfg: f64,
    /// Seed of the first picture; picture i is drawn from seed + i.
    pub(crate) seed: u64,
}

/// Answers at most this long.
const MAX_NEW_TOKENS: usize = 64;

/// Prompts that go through a model at a time.
const BATCH: usize = 32;

/// The models' answers to instructions, in their order.
pub(crate) fn answer(
    model: &TextModel,
    prompts: &[String],
    decoding: Decoding,
    ctx: &Context,
) -> Outcome<Vec<String>> {
    let progress = ctx.output.progress("answering", "prompts", prompts.len() as u64);
    let mut answers = Vec::with_capacity(prompts.len());
    for chunk in prompts.chunks(BATCH) {
        signal::go_on()?;
        let encode = |prompt: &String| model.tokenizer.encode(&as_prompt(prompt), true);
        let ids = chunk.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let options = GenerateOptions {
            first_sample: answers.len() as u64,
            ..GenerateOptions::sampled(
                MAX_NEW_TOKENS,
                model.tokenizer.stop_ids().to_vec(),
                decoding.temperature,
                decoding.seed,
            )
        };
        for completion in generate(&model.network, &ids, &options)? {
            // An answer that does not end is no answer.
            let text = if completion.finished {
                model.tokenizer.decode(&completion.token_ids, true)?
            } else {
                String::new()
            };
            answers.push(text);
        }
        progress.set(answers.len() as u64);
    }
    progress.finish();
    Ok(answers)
}

/// The form in which the embedded language model reads an instruction: a line of its own.
pub(crate) fn as_prompt(instruction: &str) -> String {
    format!("{instruction}\n")
}

/// The models' pictures of captions, in their order.
pub(crate) fn draw(
    model: &ImageModel,
    captions: &[String],
    sampling: Sampling,
    ctx: &Context,
) -> Outcome<Vec<Picture>> {
    let progress = ctx.output.progress("drawing", "images", captions.len() as u64);
    let shape = model.latent_shape(model.native_size())?;
    let empty = model.embed(&[String::new()], &ctx.output)?;
    let network = as_network(&model.unet);
    let mut pictures = Vec::with_capacity(captions.len());
    for chunk in captions.chunks(BATCH) {
        signal::go_on()?;
        let first = sampling.seed + pictures.len() as u64;
        let seeds: Vec<u64> = (first..first + chunk.len() as u64).collect();
        let latents: Tensor = initial_latents(&seeds, shape, empty.device())?;
        let prompts = model.embed(chunk, &ctx.output)?;
        let mut sampler = SamplerKind::Ddim.build(&model.scheduler, sampling.steps)?;
        let guidance = Guidance::new(&network, &prompts, &empty, sampling.cfg)?;
        let latents = sample(sampler.as_mut(), &guidance, &latents, &StepNoise::Seeded(seeds), |_, _| {})?;
        pictures.extend(model.decode(&latents)?.into_iter().map(to_picture));
        progress.set(pictures.len() as u64);
    }
    progress.finish();
    Ok(pictures)
}

fn to_picture(image: RgbImage) -> Picture {
    Picture { width: image.width() as usize, height: image.height() as usize, rgb: image.into_raw() }
}
