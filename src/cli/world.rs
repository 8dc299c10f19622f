//! Asking models about the playground worlds: answers to instructions, pictures of captions.

use super::image_model::{ImageModel, as_network};
use super::text_model::TextModel;
use super::{Context, Failure, Outcome, signal};
use candle_core::Tensor;
use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;
use votive_critic::Candidate;
use votive_diffusion::{BoxError, Conditioning, Guidance, SamplerKind, StepNoise, initial_latents, sample};
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

/// DDIM steps of a picture of the playground.
pub(crate) const STEPS: usize = 10;

/// Guidance of pictures of the playground: enough to draw what the caption says, not so much that the flaws the model
/// learnt from its data, which alignment is to remove, are hidden.
pub(crate) const CFG: f64 = 1.5;

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

/// Does the work of all batches, in order; on the CPU several at a time, because small networks have no operation that
/// is worth sharing between cores.
fn in_batches<T: Send>(
    (what, unit): (&'static str, &'static str),
    prompts: &[String],
    ctx: &Context,
    work: impl Fn(usize, &[String]) -> Outcome<Vec<T>> + Sync,
) -> Outcome<Vec<T>> {
    let progress = ctx.output.progress(what, unit, prompts.len() as u64);
    let one = |(index, batch): (usize, &[String])| {
        signal::go_on()?;
        let made = work(index * BATCH, batch)?;
        progress.add(made.len() as u64);
        Ok(made)
    };
    let batches: Outcome<Vec<Vec<T>>> = if ctx.device()?.is_cpu() {
        prompts.par_chunks(BATCH).enumerate().map(one).collect()
    } else {
        prompts.chunks(BATCH).enumerate().map(one).collect()
    };
    let made = batches?.into_iter().flatten().collect();
    progress.finish();
    Ok(made)
}

/// The models' answers to instructions, in their order.
pub(crate) fn answer(
    model: &TextModel,
    prompts: &[String],
    decoding: Decoding,
    ctx: &Context,
) -> Outcome<Vec<String>> {
    in_batches(("answering", "prompts"), prompts, ctx, |first, batch| {
        let encode = |prompt: &String| model.tokenizer.encode(&as_prompt(prompt), true);
        let ids = batch.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let options = GenerateOptions {
            first_sample: first as u64,
            ..GenerateOptions::sampled(
                MAX_NEW_TOKENS,
                model.tokenizer.stop_ids().to_vec(),
                decoding.temperature,
                decoding.seed,
            )
        };
        let completions = generate(&model.network, &ids, &options)?;
        completions
            .into_iter()
            .map(|completion| match completion.finished {
                true => Ok(model.tokenizer.decode(&completion.token_ids, true)?),
                // An answer that does not end is no answer.
                false => Ok(String::new()),
            })
            .collect()
    })
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
    draw_against(model, None, captions, sampling, ctx)
}

/// A network as samplers call it, from several threads.
pub(crate) type Network<'a> = dyn Fn(&Tensor, &[f64], &Conditioning) -> Result<Tensor, BoxError> + Sync + 'a;

/// The same, where another network may predict what guidance leads away from.
pub(crate) fn draw_against(
    model: &ImageModel,
    negative: Option<&Network>,
    captions: &[String],
    sampling: Sampling,
    ctx: &Context,
) -> Outcome<Vec<Picture>> {
    let size = model.native_size();
    let shape = model.latent_shape(size)?;
    let empty = model.embed_negative(None, size, &ctx.output)?;
    let network = as_network(&model.unet);
    in_batches(("drawing", "images"), captions, ctx, |start, batch| {
        let first = sampling.seed + start as u64;
        let seeds: Vec<u64> = (first..first + batch.len() as u64).collect();
        let latents: Tensor = initial_latents(&seeds, shape, &ctx.device()?)?;
        let prompts = model.embed(batch, size, &ctx.output)?;
        let mut sampler = SamplerKind::Ddim.build(&model.scheduler, sampling.steps)?;
        let mut guidance = Guidance::new(&network, &prompts, &empty, sampling.cfg)?;
        if let Some(negative) = negative {
            guidance = guidance.with_negative_network(negative)?;
        }
        let latents = sample(sampler.as_mut(), &guidance, &latents, &StepNoise::Seeded(seeds), |_, _| {})?;
        Ok(model.decode(&latents)?.into_iter().map(to_picture).collect())
    })
}

/// An image as a picture of the playground.
pub(crate) fn to_picture(image: RgbImage) -> Picture {
    Picture { width: image.width() as usize, height: image.height() as usize, rgb: image.into_raw() }
}

/// A picture of the playground as an image.
///
/// # Errors
/// If it has fewer numbers than pixels.
pub(crate) fn to_image(picture: &Picture) -> Outcome<RgbImage> {
    RgbImage::from_raw(picture.width as u32, picture.height as u32, picture.rgb.clone())
        .ok_or_else(|| Failure::data("a picture has fewer numbers than pixels"))
}

/// A picture of the playground as judges see it.
///
/// # Errors
/// If it has fewer numbers than pixels, or cannot be stored.
pub(crate) fn stored(picture: &Picture) -> Outcome<votive_critic::Picture> {
    Ok(votive_critic::Picture::of_pixels(&to_image(picture)?)?)
}

/// Pictures of the playground as candidates.
///
/// # Errors
/// As [`stored`].
pub(crate) fn candidates(pictures: &[Picture]) -> Outcome<Vec<Candidate>> {
    pictures.iter().map(|picture| Ok(Candidate::Image(stored(picture)?))).collect()
}
