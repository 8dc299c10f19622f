//! Samples of a model while it is trained: the same prompts with the same seeds at step 0 and every so often, written
//! where the gallery finds them.

use crate::cli::image_model::{ImageModel, as_network};
use crate::cli::made_with::{MadeWith, Weights};
use crate::cli::png::write_png;
use crate::cli::prompts::read_file;
use crate::cli::{Context, Failure, Outcome, signal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use votive_data::{ChatOptions, Message, TextTokenizer};
use votive_diffusion::{Guidance, SamplerKind, SchedulerConfig, StepNoise, initial_latents, sample};
use votive_gallery::{SAMPLES_FILE, Sample, step_folder, write_run_gallery, write_samples};
use votive_model::{CausalLm, Denoiser, GenerateOptions, generate};
use votive_train::Run;
use votive_train::front_end::{FrontEnd, TextFrontEnd, TrainedPipeline};
use votive_train::plan::{Drawing, PromptSource, SamplePlan};

/// Prompts that are worked on at once.
const BATCH: usize = 8;

/// When samples are drawn, and where their files go.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Steps that are done.
    step: u64,
    folder: &'a Path,
}

/// Draws the samples of a run.
pub(super) trait Sampler<F: FrontEnd> {
    /// Draws every prompt. None if a signal came in between.
    ///
    /// # Errors
    /// If the model fails or a file cannot be written.
    fn draw(&self, network: &F::Network, place: Place, ctx: &Context) -> Outcome<Option<Vec<Sample>>>;
}

/// Draws, lists and shows the samples of the step that a run is at, unless they are there already. Those of step 0 may
/// be another recipe's, whose run did not begin, so they are drawn anew.
///
/// # Errors
/// If the model fails or a file cannot be written.
pub(super) fn draw<F: FrontEnd>(
    run: &Run<F>,
    sampler: &dyn Sampler<F>,
    directory: &Path,
    ctx: &Context,
) -> Outcome {
    let folder = step_folder(directory, run.steps_done());
    if run.steps_done() > 0 && folder.join(SAMPLES_FILE).exists() {
        return Ok(());
    }
    let network = run.front().network(&run.outcome()?)?;
    if let Some(samples) = sampler.draw(&network, Place { step: run.steps_done(), folder: &folder }, ctx)? {
        write_samples(directory, run.steps_done(), &samples)?;
        write_run_gallery(directory)?;
    }
    Ok(())
}

/// The prompts of a plan, in order.
fn prompts(plan: &SamplePlan) -> Outcome<Vec<String>> {
    match &plan.prompts {
        PromptSource::Given(prompts) => Ok(prompts.clone()),
        PromptSource::File(path) => read_file(path),
    }
}

fn is_stopped() -> bool {
    signal::stop_flag().load(Ordering::Relaxed)
}

/// Completions of a language model.
pub(super) struct TextSampler<'a> {
    tokenizer: &'a TextTokenizer,
    prompts: Vec<String>,
    ids: Vec<Vec<u32>>,
    options: GenerateOptions,
}

impl<'a> TextSampler<'a> {
    /// Encodes the prompts of a plan.
    ///
    /// # Errors
    /// If a prompt cannot be encoded, is too long for the model, or is there twice.
    pub(super) fn new(plan: &SamplePlan, front: &'a TextFrontEnd) -> Outcome<Self> {
        let Drawing::Text { max_new_tokens, temperature, chat } = plan.drawing else {
            return Err(Failure::usage("[sample] is for images, and the model writes text"));
        };
        let (tokenizer, prompts) = (front.tokenizer(), prompts(plan)?);
        let mut ids = Vec::with_capacity(prompts.len());
        for (i, prompt) in prompts.iter().enumerate() {
            if prompts[..i].contains(prompt) {
                return Err(Failure::usage(format!("[sample] has a prompt twice: {prompt:?}")));
            }
            let encoded = encode(tokenizer, prompt, chat)?;
            if encoded.is_empty() || encoded.len() >= front.max_positions() {
                return Err(Failure::usage(format!(
                    "[sample] prompt {}: {} tokens, expected 1 to {}: {prompt:?}",
                    i + 1,
                    encoded.len(),
                    front.max_positions() - 1
                )));
            }
            ids.push(encoded);
        }
        let stop = tokenizer.stop_ids().to_vec();
        let options = GenerateOptions::sampled(max_new_tokens, stop, temperature, plan.seed);
        Ok(Self { tokenizer, prompts, ids, options })
    }
}

fn encode(tokenizer: &TextTokenizer, prompt: &str, is_chat: bool) -> Outcome<Vec<u32>> {
    Ok(if is_chat {
        tokenizer.encode_chat(&[Message::new("user", prompt)], true, &ChatOptions::default())?
    } else {
        tokenizer.encode(prompt, true)?
    })
}

impl Sampler<TextFrontEnd> for TextSampler<'_> {
    fn draw(
        &self,
        network: &<TextFrontEnd as FrontEnd>::Network,
        _: Place,
        _: &Context,
    ) -> Outcome<Option<Vec<Sample>>> {
        let network: &dyn CausalLm = network.as_ref();
        let mut samples = Vec::with_capacity(self.prompts.len());
        for (prompts, ids) in self.prompts.chunks(BATCH).zip(self.ids.chunks(BATCH)) {
            if is_stopped() {
                return Ok(None);
            }
            let options = GenerateOptions { first_sample: samples.len() as u64, ..self.options.clone() };
            for (prompt, completion) in prompts.iter().zip(generate(network, ids, &options)?) {
                let text = self.tokenizer.decode(&completion.token_ids, true)?;
                samples.push(Sample {
                    prompt: prompt.clone(),
                    seed: options.seed,
                    text: Some(text),
                    ..Sample::default()
                });
            }
        }
        Ok(Some(samples))
    }
}

/// Images of a diffusion model. Autoencoder and text encoder are read each time: between samples their memory is for
/// training.
pub(super) struct ImageSampler {
    model: PathBuf,
    /// The schedule of the run, which may not be the folder's.
    scheduler: SchedulerConfig,
    zero_terminal_snr: bool,
    prompts: Vec<String>,
    kind: SamplerKind,
    steps: usize,
    cfg: f64,
    seed: u64,
}

impl ImageSampler {
    /// Reads the prompts of a plan.
    ///
    /// # Errors
    /// If the prompts cannot be read, or the number of steps does not go with the sampler.
    pub(super) fn new(plan: &SamplePlan, pipeline: &TrainedPipeline) -> Outcome<Self> {
        let Drawing::Image { sampler, steps, cfg } = plan.drawing else {
            return Err(Failure::usage("[sample] is for text, and the model draws images"));
        };
        let (model, scheduler) = (pipeline.folder().root().to_owned(), pipeline.scheduler().clone());
        sampler.build(&scheduler, steps)?;
        let prompts = prompts(plan)?;
        let zero_terminal_snr = pipeline.has_zero_terminal_snr();
        Ok(Self { model, scheduler, zero_terminal_snr, prompts, kind: sampler, steps, cfg, seed: plan.seed })
    }

    /// How the image of a prompt is made after a step.
    fn made_with<'a>(&'a self, prompt: &'a str, seed: u64, size: (u32, u32), step: u64) -> MadeWith<'a> {
        MadeWith {
            prompt,
            negative_prompt: "",
            model: &self.model,
            weights: Weights::Training { step },
            adapter: None,
            negative_model: None,
            sampler: self.kind,
            steps: self.steps,
            eta: 0.0,
            cfg: self.cfg,
            seed,
            size,
            image: None,
            zero_terminal_snr: self.zero_terminal_snr,
            given_latents: false,
        }
    }
}

impl<F: FrontEnd<Network = Arc<dyn Denoiser>>> Sampler<F> for ImageSampler {
    fn draw(&self, network: &Arc<dyn Denoiser>, place: Place, ctx: &Context) -> Outcome<Option<Vec<Sample>>> {
        let unet: &dyn Denoiser = network.as_ref();
        let (device, network) = (ctx.device()?, as_network(unet));
        let model = ImageModel::around_a_unet(&self.model, &device)?;
        let size = model.native_size();
        let shape = model.latent_shape(size)?;
        let empty = model.embed_negative(None, size, &ctx.output)?;
        let mut samples: Vec<Sample> = Vec::with_capacity(self.prompts.len());
        for prompts in self.prompts.chunks(BATCH) {
            if is_stopped() {
                return Ok(None);
            }
            let seeds: Vec<u64> =
                (0..prompts.len()).map(|i| self.seed.wrapping_add((samples.len() + i) as u64)).collect();
            let embeds = model.embed(prompts, size, &ctx.output)?;
            let guidance = Guidance::new(&network, &embeds, &empty, self.cfg)?;
            let mut sampler = self.kind.build(&self.scheduler, self.steps)?;
            let (latents, noise) =
                (initial_latents(&seeds, shape, &device)?, StepNoise::Seeded(seeds.clone()));
            let latents = sample(sampler.as_mut(), &guidance, &latents, &noise, |_, _| {})?;
            for ((prompt, seed), image) in prompts.iter().zip(seeds).zip(model.decode(&latents)?) {
                let name = format!("{:05}.png", samples.len());
                let texts = self.made_with(prompt, seed, size, place.step).texts();
                write_png(&image, &texts, &place.folder.join(&name))?;
                samples.push(Sample { prompt: prompt.clone(), seed, image: Some(name), ..Sample::default() });
            }
        }
        Ok(Some(samples))
    }
}
