//! Log-ratios from denoising errors: minus half the mean squared error at the pair's own time and noise.
//!
//! Source: Wallace et al., "Diffusion model alignment using direct preference optimization", arXiv:2311.12908,
//! Eq. 14: the margin is `−[(L_w − L_l) − (R_w − R_l)]`, with L and R the policy's and the reference's errors, means
//! over a latent, and the loss is `−log σ(½β·margin)`. The factor ½ is applied here, so an objective sees a
//! log-probability like any other.

use super::encoded::EncodedCounts;
use super::pair_latents::{ImageSettings, PairLatents, PairsOfFile};
use super::prompt_table::PromptTable;
use super::{
    DenoisedLikelihood, FrontEnd, Likelihood, Networks, PipelineSettings, Sample, SaveDtype, TrainedPipeline,
};
use crate::error::{Result, TrainError};
use candle_core::{DType, Device, Tensor};
use std::path::Path;
use std::sync::Arc;
use votive_data::Frame;
use votive_diffusion::{
    Conditioning, DiffusionError, ImageSizes, InversionBy, InversionInputs, LossWeight, NoisePolicy,
    TimestepPolicy, TimestepSharing,
};
use votive_model::{Denoiser, Params, predict_in_parts};
use votive_objective::CompletionFacts;
use votive_tensor::Recorder;
use votive_tensor::random::{Draws, Stream};

/// What β multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BetaConvention {
    /// `−log σ(½β·margin)`: the paper's and its authors' code.
    Paper,
    /// `−log σ(β·margin)`: the script in diffusers, whose β is half as large for the same loss.
    Diffusers,
}

impl BetaConvention {
    fn factor(self) -> f64 {
        match self {
            Self::Paper => 0.5,
            Self::Diffusers => 1.0,
        }
    }
}

/// How noise is put on latents, and what β means.
#[derive(Clone, Debug)]
pub struct DenoisingSettings {
    /// Seed of timesteps, noise, posterior draws and dropped captions.
    pub seed: u64,
    /// Which times are drawn.
    pub timesteps: TimestepPolicy,
    /// Whether the two sides of a pair share their time.
    pub timestep_sharing: TimestepSharing,
    /// Whether the two sides of a pair share their noise.
    pub noise: NoisePolicy,
    /// What the error at each time counts.
    pub weight: LossWeight,
    /// Share of captions that are emptied.
    pub caption_dropout: f64,
    /// What β multiplies.
    pub beta_convention: BetaConvention,
    /// Pixels along a side of the images; with buckets, the root of their area.
    pub resolution: u32,
    /// Whether the two sides of pairs go through a network at the same time, on a CPU. Each has its own gradients of what is
    /// trained then, so it is for adapters.
    pub side_by_side: bool,
    /// How images are seen.
    pub images: ImageSettings,
    /// How the model is trained and saved.
    pub pipeline: PipelineSettings,
}

/// A Stable Diffusion folder with encoded pairs.
pub struct DenoisingFrontEnd {
    pipeline: TrainedPipeline,
    /// What the error at each time of the schedule counts.
    weights: Vec<f64>,
    settings: DenoisingSettings,
    device: Device,
    latents: PairLatents,
    prompts: PromptTable,
    counts: EncodedCounts,
    held_out: usize,
    empty_prompt: Conditioning,
}

/// Noisy latents with everything that made them; rows chosen first.
pub struct DenoisingBatch {
    latents: Tensor,
    noise: Tensor,
    noisy: Tensor,
    target: Tensor,
    timesteps: Vec<usize>,
    conditioning: Conditioning,
    captions: Vec<String>,
}

impl DenoisingFrontEnd {
    /// Reads a Stable Diffusion folder and encodes images and prompts: of the pairs that are trained on and of those
    /// that are held out, each with the file that they come from.
    ///
    /// # Errors
    /// If a file is missing, an image cannot be decoded, or a part is not supported.
    pub fn open(
        folder: &Path,
        pairs: [PairsOfFile; 2],
        settings: DenoisingSettings,
        device: &Device,
        progress: impl Fn(usize, usize),
    ) -> Result<(Self, Params)> {
        let pipeline = TrainedPipeline::open(folder, settings.pipeline)?;
        let schedule = pipeline.schedule();
        settings.timesteps.check(schedule).map_err(of_recipe)?;
        settings.noise.check(schedule).map_err(of_recipe)?;
        let weights = settings.weight.factors(schedule).map_err(of_recipe)?;
        let unet = pipeline.unet(device)?;
        let encoder = pipeline.prompts(device)?;
        let empty_prompt = encoder.encode(&[""])?.conditioning;
        let held_out = pairs[1].1.len();
        let how = (&settings.images, settings.seed);
        let (latents, images) = PairLatents::new(pipeline.folder(), pairs, how, device, progress)?;
        let captions = (0..latents.len()).map(|row| latents.pair(row).pair.prompt.as_str());
        let (prompts, encoded) = PromptTable::new(
            (pipeline.folder(), &encoder),
            captions,
            settings.images.cache.as_deref(),
            device,
        )?;
        let counts = EncodedCounts { computed: [images[0], encoded[0]], found: [images[1], encoded[1]] };
        let device = device.clone();
        let front =
            Self { pipeline, weights, settings, device, latents, prompts, counts, held_out, empty_prompt };
        Ok((front, unet))
    }

    /// How much was encoded, and how much was found encoded.
    #[must_use]
    pub fn counts(&self) -> EncodedCounts {
        self.counts
    }

    /// How the images of a step's rows are cut out, rows `0..B` chosen, `B..2B` rejected.
    #[must_use]
    pub fn frames(&self, step: u64, samples: &[Sample]) -> Vec<Frame> {
        self.latents.frames(step, samples)
    }

    /// The model whose U-Net is trained.
    #[must_use]
    pub fn pipeline(&self) -> &TrainedPipeline {
        &self.pipeline
    }

    /// Pixels along a side of the images.
    #[must_use]
    pub fn resolution(&self) -> usize {
        self.settings.resolution as usize
    }

    /// Numbers that are in memory while rows wait: what their images and prompts were encoded to.
    #[must_use]
    pub fn numbers_in_memory(&self) -> usize {
        self.latents.numbers_in_memory() + self.prompts.numbers_in_memory()
    }

    /// Whether images go through the autoencoder at every step.
    #[must_use]
    pub fn encodes_on_the_way(&self) -> bool {
        self.latents.encodes_on_the_way()
    }

    /// Tokens of a prompt.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.empty_prompt.prompt_embeds().dims()[1]
    }

    /// The batch of given latents, noise, timesteps and conditioning; rows `0..B` chosen, `B..2B` rejected.
    ///
    /// # Shapes
    /// `latents`, `noise` `(2B, C, H, W)`, `timesteps` of length 2B, `conditioning` of 2B rows; `captions` of length B
    /// are for showing only.
    /// # Errors
    /// If shapes differ or a timestep is outside the schedule.
    pub fn noised(
        &self,
        (latents, noise): (Tensor, Tensor),
        timesteps: Vec<usize>,
        conditioning: Conditioning,
        captions: Vec<String>,
    ) -> Result<DenoisingBatch> {
        Ok(DenoisingBatch {
            noisy: self.pipeline.schedule().add_noise(&latents, &noise, &timesteps)?,
            target: self.pipeline.schedule().target(&latents, &noise, &timesteps)?,
            latents,
            noise,
            timesteps,
            conditioning,
            captions,
        })
    }

    /// Whether both sides of pairs go through the network at the same time.
    pub(crate) fn is_side_by_side(&self) -> bool {
        self.settings.side_by_side && self.device.is_cpu()
    }

    /// What the error of each row counts, f32 `(2B,)`.
    fn weights_of(&self, batch: &DenoisingBatch) -> Result<Tensor> {
        let weights: Vec<f32> = batch.timesteps.iter().map(|t| self.weights[*t] as f32).collect();
        Ok(Tensor::from_vec(weights, batch.timesteps.len(), &self.device)?)
    }
}

/// The key of the recipe that an error of noise and times is about.
fn of_recipe(error: DiffusionError) -> TrainError {
    match error {
        DiffusionError::Setting { setting, reason } => {
            TrainError::Plan(format!("diffusion.{setting}: {reason}"))
        }
        outside => TrainError::Plan(format!("diffusion.timesteps: {outside}")),
    }
}

/// What SDXL is told of the sizes of an image, each down and across.
fn sizes(frame: &Frame) -> ImageSizes {
    let size = |size: votive_data::ImageSize| (size.height, size.width);
    ImageSizes { original: size(frame.original), crop: (frame.top, frame.left), target: size(frame.target) }
}

impl FrontEnd for DenoisingFrontEnd {
    type Network = Arc<dyn Denoiser>;
    type Batch = DenoisingBatch;

    fn network(&self, params: &Params) -> Result<Self::Network> {
        self.pipeline.network(params)
    }

    fn other_network(&self, folder: &Path, device: &Device) -> Result<Self::Network> {
        self.pipeline.other_network(folder, device)
    }

    fn network_identity(&self) -> Vec<u8> {
        self.pipeline.identity()
    }

    fn rows(&self) -> usize {
        self.latents.len() - self.held_out.min(self.latents.len())
    }

    fn held_out(&self) -> usize {
        self.held_out
    }

    fn source_row(&self, row: usize) -> usize {
        self.latents.pair(row).pair.row
    }

    fn weight(&self, row: usize) -> f64 {
        self.latents.pair(row).pair.numbers.weight.unwrap_or(1.0)
    }

    fn margin(&self, row: usize) -> Option<f64> {
        self.latents.pair(row).pair.numbers.margin
    }

    fn bucket(&self, row: usize) -> usize {
        self.latents.bucket(row)
    }

    fn completions(&self, _: usize) -> Vec<CompletionFacts> {
        // The error is a mean over the latent already.
        [true, false].map(|is_desirable| CompletionFacts { is_desirable, tokens: 1.0 }).into()
    }

    fn is_fixed(&self) -> bool {
        false
    }

    fn batch(&self, step: u64, samples: &[Sample]) -> Result<DenoisingBatch> {
        let settings = &self.settings;
        let ids: Vec<u64> = samples.iter().map(|sample| sample.position as u64).collect();
        let latents = self.latents.draw(step, samples)?;
        let (_, c, h, w) = latents.dims4()?;
        let (schedule, sharing) = (self.pipeline.schedule(), settings.timestep_sharing);
        let timesteps = settings.timesteps.for_pairs(sharing, schedule, settings.seed, step, &ids)?;
        let noise = settings.noise.for_pairs((c, h, w), settings.seed, step, &ids, &self.device)?;
        let dropped = |id: u64| {
            Draws::new(settings.seed, Stream::CaptionDropout, step, id).chance(settings.caption_dropout)
        };
        let prompt = |sample: &Sample| match dropped(sample.position as u64) {
            true => Ok(self.empty_prompt.clone()),
            false => self.prompts.get(sample.row),
        };
        let prompts = samples.iter().map(prompt).collect::<Result<Vec<_>>>()?;
        let prompts = Conditioning::cat(&prompts.iter().chain(&prompts).collect::<Vec<_>>())?;
        let sizes: Vec<ImageSizes> = self.frames(step, samples).iter().map(sizes).collect();
        let prompts = self.pipeline.folder().unet_config().with_sizes(prompts, &sizes)?;
        let captions =
            samples.iter().map(|sample| self.latents.pair(sample.row).pair.prompt.clone()).collect();
        self.noised((latents, noise), timesteps, prompts, captions)
    }

    fn asks_networks(&self) -> bool {
        matches!(self.settings.noise, NoisePolicy::Inversion(_))
    }

    /// Puts the noise that a network finds by inversion in the place of what was drawn.
    fn complete(
        &self,
        (step, samples): (u64, &[Sample]),
        batch: DenoisingBatch,
        networks: Networks<Self::Network>,
    ) -> Result<DenoisingBatch> {
        let NoisePolicy::Inversion(plan) = self.settings.noise else { return Ok(batch) };
        let network = match (plan.by, networks.reference) {
            (InversionBy::Policy, _) => networks.policy,
            (InversionBy::Reference, Some(reference)) => reference,
            (InversionBy::Reference, None) => {
                let reason = "diffusion.inversion_by = \"reference\" needs a reference that is a network";
                return Err(TrainError::Plan(reason.to_owned()));
            }
        };
        // The two sides of a pair need numbers of their own.
        let side = |side: u64| samples.iter().map(move |sample| 2 * sample.position as u64 + side);
        let inputs = InversionInputs {
            latents: &batch.latents,
            noise: &batch.noise,
            timesteps: &batch.timesteps,
            conditioning: &batch.conditioning,
            seed: self.settings.seed,
            step,
            rows: &side(0).chain(side(1)).collect::<Vec<_>>(),
        };
        let predict = |latents: &Tensor, timesteps: &[f64], conditioning: &Conditioning| {
            Ok(network.predict(latents, timesteps, conditioning)?)
        };
        let noise = plan.invert(self.pipeline.schedule(), &predict, &inputs)?.noise;
        self.noised((batch.latents, noise), batch.timesteps, batch.conditioning, batch.captions)
    }

    fn parts(&self, batch: &DenoisingBatch) -> Option<Vec<String>> {
        Some(batch.timesteps.iter().map(|t| self.pipeline.part(*t)).collect())
    }

    fn divergence_batch(&self, step: u64, samples: &[Sample]) -> Result<DenoisingBatch> {
        self.batch(step, samples)
    }

    fn sequence_identities(&self, batch: &DenoisingBatch) -> Vec<Vec<u8>> {
        // Latents, times and noise change with the step, so no two batches are of the same sequences.
        vec![Vec::new(); 2 * batch.captions.len()]
    }

    fn tokens(&self, batch: &DenoisingBatch) -> usize {
        batch.timesteps.len()
    }

    fn records_gradients(&self, _: bool) -> bool {
        self.is_side_by_side()
    }

    fn likelihood(
        &self,
        network: &Self::Network,
        batch: &DenoisingBatch,
        recorder: Option<&Recorder>,
    ) -> Result<Likelihood> {
        let times: Vec<f64> = batch.timesteps.iter().map(|t| *t as f64).collect();
        // Every network alike, and whatever the number of threads: the same weights then give the same numbers to the last bit.
        let parts = if self.is_side_by_side() { 2 } else { 1 };
        let inputs = (&batch.noisy, &*times, &batch.conditioning);
        let prediction = predict_in_parts(&**network, parts, inputs, recorder)?;
        let denoised = DenoisedLikelihood::new(prediction, &batch.target, self.weights_of(batch)?)?;
        let logps = (&denoised.errors * -self.settings.beta_convention.factor())?;
        Ok(Likelihood { denoised: Some(denoised), ..Likelihood::new(logps) })
    }

    fn dump(
        &self,
        batch: &DenoisingBatch,
        policy: &Tensor,
        reference: Option<&Tensor>,
    ) -> Result<Vec<(String, Tensor)>> {
        let scale = -1.0 / self.settings.beta_convention.factor();
        let error = |logps: &Tensor| (logps.detach() * scale)?.to_dtype(DType::F32);
        let times: Vec<i64> = batch.timesteps.iter().map(|t| *t as i64).collect();
        let mut named = vec![
            ("latents", batch.latents.clone()),
            ("noise", batch.noise.clone()),
            ("timesteps", Tensor::new(times, &Device::Cpu)?),
            ("prompt_embeds", batch.conditioning.prompt_embeds().clone()),
            ("weights", self.weights_of(batch)?),
            ("policy_error", error(policy)?),
        ];
        let added = [
            ("pooled_prompt_embeds", batch.conditioning.pooled()),
            ("time_ids", batch.conditioning.time_ids()),
        ];
        named.extend(added.into_iter().filter_map(|(name, tensor)| Some((name, tensor?.clone()))));
        if let Some(reference) = reference {
            named.push(("reference_error", error(reference)?));
        }
        Ok(named.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect())
    }

    fn show(&self, batch: &DenoisingBatch, _: bool) -> Result<Vec<String>> {
        let half = batch.captions.len();
        let side = |i: usize| if i < half { "chosen" } else { "rejected" };
        let line = |(i, t): (usize, &usize)| format!("{} t={t} {:?}", side(i), batch.captions[i % half]);
        Ok(batch.timesteps.iter().enumerate().map(line).collect())
    }

    fn save(&self, params: &Params, folder: &Path, dtype: SaveDtype) -> Result<()> {
        self.pipeline.save(params, folder, dtype)
    }

    fn restore(&self, start: &Params, folder: &Path) -> Result<Params> {
        self.pipeline.restore(start, folder)
    }
}
