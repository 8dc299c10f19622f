//! Log-ratios from denoising errors: minus half the mean squared error at the pair's own time and noise.
//!
//! Source: Wallace et al., "Diffusion model alignment using direct preference optimization", arXiv:2311.12908,
//! Eq. 14: the margin is `−[(L_w − L_l) − (R_w − R_l)]`, with L and R the policy's and the reference's errors, means
//! over a latent, and the loss is `−log σ(½β·margin)`. The factor ½ is applied here, so an objective sees a
//! log-probability like any other.

use super::{
    DenoisedLikelihood, FrontEnd, Likelihood, Networks, PipelineSettings, PromptEncoder, Sample, SaveDtype,
    TrainedPipeline,
};
use crate::error::{Result, TrainError};
use candle_core::{DType, Device, Tensor};
use std::path::Path;
use std::sync::Arc;
use votive_data::{Augmentation, Cut, ImageLoader, ImagePair};
use votive_diffusion::{
    Conditioning, ImageSizes, InversionBy, InversionInputs, LossWeight, NoisePolicy, TimestepPolicy,
    TimestepSharing,
};
use votive_model::{Denoiser, Params};
use votive_objective::CompletionFacts;
use votive_tensor::random::{Draws, Stream};
use votive_tensor::segment::Recorder;

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
    /// Pixels along a side of the images.
    pub resolution: u32,
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
    pairs: Vec<EncodedPair>,
    held_out: usize,
    empty_prompt: Conditioning,
}

/// A pair after the frozen parts: latents `(C, h, w)` in the U-Net's scale, the prompt, in one row, and the sizes of the
/// chosen and the rejected image.
struct EncodedPair {
    chosen: Tensor,
    rejected: Tensor,
    prompt: Conditioning,
    sizes: [ImageSizes; 2],
    caption: String,
    row: usize,
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

/// Images that go through the autoencoder at a time.
pub(crate) const ENCODE_BATCH: usize = 16;

impl DenoisingFrontEnd {
    /// Reads a Stable Diffusion folder and encodes images and prompts: of the pairs that are trained on and of those
    /// that are held out, each with the file that they come from.
    ///
    /// # Errors
    /// If a file is missing, an image cannot be decoded, or a part is not supported.
    pub fn open(
        folder: &Path,
        [train, held_out]: [(&Path, &[ImagePair]); 2],
        settings: DenoisingSettings,
        device: &Device,
        progress: impl Fn(usize, usize),
    ) -> Result<(Self, Params)> {
        let pipeline = TrainedPipeline::open(folder, settings.pipeline)?;
        let schedule = pipeline.schedule();
        let of_recipe = |error| TrainError::Plan(format!("diffusion.{error}"));
        settings.timesteps.check(schedule).map_err(of_recipe)?;
        settings.noise.check(schedule).map_err(of_recipe)?;
        let weights = settings.weight.factors(schedule).map_err(of_recipe)?;
        let unet = pipeline.unet(device)?;
        let prompts = pipeline.prompts(device)?;
        let empty_prompt = prompts.encode(&[""])?.conditioning;
        let mut front = Self {
            pipeline,
            weights,
            settings,
            device: device.clone(),
            pairs: Vec::new(),
            held_out: 0,
            empty_prompt,
        };
        let all = train.1.len() + held_out.1.len();
        for source in [train, held_out] {
            let before = front.pairs.len();
            let encoded = front.encode(source, before, &prompts, |done| progress(before + done, all))?;
            front.pairs.extend(encoded);
        }
        front.held_out = held_out.1.len();
        Ok((front, unet))
    }

    fn encode(
        &self,
        (file, pairs): (&Path, &[ImagePair]),
        before: usize,
        prompts: &PromptEncoder,
        progress: impl Fn(usize),
    ) -> Result<Vec<EncodedPair>> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let vae = self.pipeline.folder().read_vae(&self.device)?;
        let loader = ImageLoader::new(self.settings.resolution);
        let mut encoded = Vec::with_capacity(pairs.len());
        for (chunk, group) in pairs.chunks(ENCODE_BATCH / 2).enumerate() {
            let (mut pixels, mut cuts) = (Vec::new(), Vec::new());
            for pair in group {
                let both = loader.load(file, pair, Augmentation::default())?;
                cuts.push([both.chosen_cut, both.rejected_cut]);
                pixels.push(self.image(both.chosen)?);
                pixels.push(self.image(both.rejected)?);
            }
            let posterior = vae.encode(&Tensor::stack(&pixels, 0)?)?;
            let shape = posterior.mean.dims()[1..].to_vec();
            let size: usize = shape.iter().product();
            let first = before + chunk * (ENCODE_BATCH / 2);
            let noise: Vec<f32> = (0..pixels.len())
                .flat_map(|i| {
                    let row = (first + i / 2) as u64;
                    Draws::new(self.settings.seed, Stream::Posterior, (i % 2) as u64, row).normals(size)
                })
                .collect();
            let noise = Tensor::from_vec(noise, posterior.mean.shape(), &self.device)?;
            let latents =
                (posterior.sample(&noise)? * self.pipeline.folder().vae_config().scaling_factor)?.detach();
            for (i, (pair, cuts)) in group.iter().zip(cuts).enumerate() {
                encoded.push(EncodedPair {
                    chosen: latents.get(2 * i)?,
                    rejected: latents.get(2 * i + 1)?,
                    prompt: prompts.encode(&[&pair.prompt])?.conditioning,
                    sizes: cuts.map(|cut| sizes(cut, self.settings.resolution)),
                    caption: pair.prompt.clone(),
                    row: pair.row,
                });
            }
            progress(encoded.len());
        }
        Ok(encoded)
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

    /// Numbers of a row: those of its two latents, and those of its prompt's embedding.
    #[must_use]
    pub fn numbers_a_row(&self) -> (usize, usize) {
        self.pairs.first().map_or((0, 0), |pair| (2 * pair.chosen.elem_count(), pair.prompt.elem_count()))
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

    /// What the error of each row counts, f32 `(2B,)`.
    fn weights_of(&self, batch: &DenoisingBatch) -> Result<Tensor> {
        let weights: Vec<f32> = batch.timesteps.iter().map(|t| self.weights[*t] as f32).collect();
        Ok(Tensor::from_vec(weights, batch.timesteps.len(), &self.device)?)
    }

    fn image(&self, pixels: Vec<f32>) -> Result<Tensor> {
        let side = self.settings.resolution as usize;
        Ok(Tensor::from_vec(pixels, (3, side, side), &self.device)?)
    }
}

/// What SDXL is told of the sizes of an image.
fn sizes(cut: Cut, resolution: u32) -> ImageSizes {
    ImageSizes { original: cut.original, crop: cut.corner, target: (resolution, resolution) }
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
        self.pairs.len() - self.held_out.min(self.pairs.len())
    }

    fn held_out(&self) -> usize {
        self.held_out
    }

    fn source_row(&self, row: usize) -> usize {
        self.pairs[row].row
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
        let pairs: Vec<&EncodedPair> = samples.iter().map(|sample| &self.pairs[sample.row]).collect();
        let ids: Vec<u64> = samples.iter().map(|sample| sample.position as u64).collect();
        let sides = pairs.iter().map(|pair| &pair.chosen).chain(pairs.iter().map(|pair| &pair.rejected));
        let latents = Tensor::stack(&sides.collect::<Vec<_>>(), 0)?;
        let (_, c, h, w) = latents.dims4()?;
        let (schedule, sharing) = (self.pipeline.schedule(), settings.timestep_sharing);
        let timesteps = settings.timesteps.for_pairs(sharing, schedule, settings.seed, step, &ids)?;
        let noise = settings.noise.for_pairs((c, h, w), settings.seed, step, &ids, &self.device)?;
        let dropped = |id: u64| {
            Draws::new(settings.seed, Stream::CaptionDropout, step, id).chance(settings.caption_dropout)
        };
        let prompts = pairs
            .iter()
            .zip(&ids)
            .map(|(pair, id)| if dropped(*id) { &self.empty_prompt } else { &pair.prompt });
        let prompts = Conditioning::cat(&prompts.collect::<Vec<_>>())?;
        let side = |side: usize| pairs.iter().map(move |pair| pair.sizes[side]);
        let sizes: Vec<ImageSizes> = side(0).chain(side(1)).collect();
        let prompts = self
            .pipeline
            .folder()
            .unet_config()
            .with_sizes(Conditioning::cat(&[&prompts, &prompts])?, &sizes)?;
        let captions = pairs.iter().map(|pair| pair.caption.clone()).collect();
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

    fn likelihood(
        &self,
        network: &Self::Network,
        batch: &DenoisingBatch,
        _: Option<&Recorder>,
    ) -> Result<Likelihood> {
        let times: Vec<f64> = batch.timesteps.iter().map(|t| *t as f64).collect();
        let prediction = network.predict(&batch.noisy, &times, &batch.conditioning)?;
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
