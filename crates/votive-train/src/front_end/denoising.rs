//! Log-ratios from denoising errors: minus half the mean squared error at the pair's own time and noise.
//!
//! Source: Wallace et al., "Diffusion model alignment using direct preference optimization", arXiv:2311.12908,
//! Eq. 14: the margin is `−[(L_w − L_l) − (R_w − R_l)]`, with L and R the policy's and the reference's errors, means
//! over a latent, and the loss is `−log σ(½β·margin)`. The factor ½ is applied here, so an objective sees a
//! log-probability like any other.

use super::{FrontEnd, Likelihood, Sample, SaveDtype};
use crate::error::{Result, TrainError};
use candle_core::{Device, Tensor};
use std::path::Path;
use std::sync::Arc;
use votive_data::{Augmentation, ClipTokenizer, ImageLoader, ImagePair};
use votive_diffusion::{
    DiffusionError, LossWeight, NoisePolicy, NoiseSchedule, SchedulerConfig, TimestepPolicy, TimestepSharing,
};
use votive_model::stable_diffusion::{
    ClipTextModel, Component, StableDiffusionFolder, UNet2DConditionModel, UNetConfig,
};
use votive_model::{Denoiser, Lora, LoraFormat, Params, files};
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
    /// Whether the schedule is rescaled so that nothing of the latents is left at its last time.
    pub zero_terminal_snr: bool,
    /// Share of captions that are emptied.
    pub caption_dropout: f64,
    /// What β multiplies.
    pub beta_convention: BetaConvention,
    /// Pixels along a side of the images.
    pub resolution: u32,
}

/// A Stable Diffusion folder with encoded pairs.
pub struct DenoisingFrontEnd {
    folder: StableDiffusionFolder,
    scheduler: SchedulerConfig,
    schedule: NoiseSchedule,
    /// What the error at each time of the schedule counts.
    weights: Vec<f64>,
    settings: DenoisingSettings,
    device: Device,
    pairs: Vec<EncodedPair>,
    held_out: usize,
    empty_prompt: Tensor,
}

/// A pair after the frozen parts: latents `(C, h, w)` in the U-Net's scale, and the prompt's embedding `(S, D)`.
struct EncodedPair {
    chosen: Tensor,
    rejected: Tensor,
    prompt: Tensor,
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
    prompt_embeds: Tensor,
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
        let folder = StableDiffusionFolder::open(folder)?;
        let scheduler = scheduler(&folder, &settings)?;
        let schedule = NoiseSchedule::new(&scheduler)?;
        settings.timesteps.check(&schedule).map_err(of_recipe)?;
        settings.noise.check(&schedule).map_err(of_recipe)?;
        let weights = settings.weight.factors(&schedule).map_err(of_recipe)?;
        let unet = folder.params(Component::UNet, device)?;
        let prompts = Prompts::open(&folder, device)?;
        let empty_prompt = prompts.encode("")?;
        let mut front = Self {
            folder,
            scheduler,
            schedule,
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
        prompts: &Prompts,
        progress: impl Fn(usize),
    ) -> Result<Vec<EncodedPair>> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let vae = self.folder.read_vae(&self.device)?;
        let loader = ImageLoader::new(self.settings.resolution);
        let mut encoded = Vec::with_capacity(pairs.len());
        for (chunk, group) in pairs.chunks(ENCODE_BATCH / 2).enumerate() {
            let mut pixels = Vec::new();
            for pair in group {
                let both = loader.load(file, pair, Augmentation::default())?;
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
            let latents = (posterior.sample(&noise)? * self.folder.vae_config().scaling_factor)?.detach();
            for (i, pair) in group.iter().enumerate() {
                encoded.push(EncodedPair {
                    chosen: latents.get(2 * i)?,
                    rejected: latents.get(2 * i + 1)?,
                    prompt: prompts.encode(&pair.prompt)?,
                    caption: pair.prompt.clone(),
                    row: pair.row,
                });
            }
            progress(encoded.len());
        }
        Ok(encoded)
    }

    /// The folder of the model.
    #[must_use]
    pub fn folder(&self) -> &StableDiffusionFolder {
        &self.folder
    }

    /// The schedule that the model is trained with, as it is to be sampled from.
    #[must_use]
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
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

    /// The batch of given latents, noise, timesteps and prompt embeddings; rows `0..B` chosen, `B..2B` rejected.
    ///
    /// # Shapes
    /// `latents`, `noise` `(2B, C, H, W)`, `timesteps` of length 2B, `prompt_embeds (2B, S, D)`; `captions` of length B
    /// are for showing only.
    /// # Errors
    /// If shapes differ or a timestep is outside the schedule.
    pub fn noised(
        &self,
        (latents, noise): (Tensor, Tensor),
        timesteps: Vec<usize>,
        prompt_embeds: Tensor,
        captions: Vec<String>,
    ) -> Result<DenoisingBatch> {
        Ok(DenoisingBatch {
            noisy: self.schedule.add_noise(&latents, &noise, &timesteps)?,
            target: self.schedule.target(&latents, &noise, &timesteps)?,
            latents,
            noise,
            timesteps,
            prompt_embeds,
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

/// The key of the recipe that an error of noise and times is about.
fn of_recipe(error: DiffusionError) -> TrainError {
    match error {
        DiffusionError::Setting { setting, reason } => {
            TrainError::Plan(format!("diffusion.{setting}: {reason}"))
        }
        outside => TrainError::Plan(format!("diffusion.timesteps: {outside}")),
    }
}

/// The schedule of a folder, rescaled if the settings say so.
fn scheduler(folder: &StableDiffusionFolder, settings: &DenoisingSettings) -> Result<SchedulerConfig> {
    let config = SchedulerConfig::from_model_folder(folder.root())?;
    Ok(if settings.zero_terminal_snr { config.with_zero_terminal_snr() } else { config })
}

/// The frozen text encoder with its tokenizer.
struct Prompts {
    tokenizer: ClipTokenizer,
    encoder: ClipTextModel,
    device: Device,
}

impl Prompts {
    fn open(folder: &StableDiffusionFolder, device: &Device) -> Result<Self> {
        let tokenizer = ClipTokenizer::load(&folder.tokenizer())?;
        tokenizer.check_model_vocabulary(folder.text_encoder_config().vocab_size)?;
        let encoder = folder.read_text_encoder(device)?;
        Ok(Self { tokenizer, encoder, device: device.clone() })
    }

    fn encode(&self, prompt: &str) -> Result<Tensor> {
        let ids = self.tokenizer.encode(prompt)?.ids;
        let ids = Tensor::from_vec(ids, (1, self.tokenizer.positions()), &self.device)?;
        Ok(self.encoder.forward(&ids)?.squeeze(0)?.detach())
    }
}

impl FrontEnd for DenoisingFrontEnd {
    type Network = Arc<dyn Denoiser>;
    type Batch = DenoisingBatch;

    fn network(&self, params: &Params) -> Result<Self::Network> {
        Ok(Arc::new(params.build(|scope| UNet2DConditionModel::new(scope, self.folder.unet_config()))?))
    }

    fn other_network(&self, folder: &Path, device: &Device) -> Result<Self::Network> {
        let other = StableDiffusionFolder::open(folder)?;
        let schedule = NoiseSchedule::new(&scheduler(&other, &self.settings)?)?;
        if schedule != self.schedule {
            let reason = "its noise schedule is not the model's, so the errors could not be compared";
            return Err(TrainError::Plan(format!("reference.path = {}: {reason}", folder.display())));
        }
        let (own, others) = (self.folder.unet_config(), other.unet_config());
        let inputs = |config: &UNetConfig| (config.in_channels, config.cross_attention_dim);
        if inputs(own) != inputs(others) {
            let reason = "its U-Net reads other latents or prompt embeddings than the model's";
            return Err(TrainError::Plan(format!("reference.path = {}: {reason}", folder.display())));
        }
        let params = other.params(Component::UNet, device)?;
        Ok(Arc::new(params.build(|scope| UNet2DConditionModel::new(scope, others))?))
    }

    fn network_identity(&self) -> Vec<u8> {
        format!("{:?} {:?}", self.folder.unet_config(), self.schedule).into_bytes()
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
        let (schedule, sharing) = (&self.schedule, settings.timestep_sharing);
        let timesteps = settings.timesteps.for_pairs(sharing, schedule, settings.seed, step, &ids)?;
        let noise = settings.noise.for_pairs((c, h, w), settings.seed, step, &ids, &self.device)?;
        let dropped = |id: u64| {
            Draws::new(settings.seed, Stream::CaptionDropout, step, id).chance(settings.caption_dropout)
        };
        let prompts = pairs
            .iter()
            .zip(&ids)
            .map(|(pair, id)| if dropped(*id) { &self.empty_prompt } else { &pair.prompt });
        let prompts = Tensor::stack(&prompts.collect::<Vec<_>>(), 0)?;
        let captions = pairs.iter().map(|pair| pair.caption.clone()).collect();
        self.noised((latents, noise), timesteps, Tensor::cat(&[&prompts, &prompts], 0)?, captions)
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
        let prediction = network.predict(&batch.noisy, &times, &batch.prompt_embeds)?;
        let error = (prediction - &batch.target)?.sqr()?.flatten_from(1)?.mean(1)?;
        let error = (error * self.weights_of(batch)?)?;
        Ok(Likelihood { logps: (error * -self.settings.beta_convention.factor())?, tokens: None })
    }

    fn dump(
        &self,
        batch: &DenoisingBatch,
        policy: &Tensor,
        reference: Option<&Tensor>,
    ) -> Result<Vec<(String, Tensor)>> {
        let scale = -1.0 / self.settings.beta_convention.factor();
        let times: Vec<i64> = batch.timesteps.iter().map(|t| *t as i64).collect();
        let mut named = vec![
            ("latents", batch.latents.clone()),
            ("noise", batch.noise.clone()),
            ("timesteps", Tensor::new(times, &Device::Cpu)?),
            ("prompt_embeds", batch.prompt_embeds.clone()),
            ("weights", self.weights_of(batch)?),
            ("policy_error", (policy.detach() * scale)?),
        ];
        if let Some(reference) = reference {
            named.push(("reference_error", (reference * scale)?));
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
        match params.lora() {
            Some(lora) => lora.save(folder, LoraFormat::Diffusers, &self.folder.root().to_string_lossy())?,
            None => {
                let dtype = dtype.of(&self.folder.root().join("unet"), "diffusion_pytorch_model")?;
                self.folder.save_with_unet(folder, params, dtype)?;
                if self.settings.zero_terminal_snr {
                    let file = folder.join("scheduler").join("scheduler_config.json");
                    files::write_bytes(&file, self.scheduler.to_json().as_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn restore(&self, start: &Params, folder: &Path) -> Result<Params> {
        if start.lora().is_some() {
            let lora = Lora::load(folder, start.device())?.into_trainable()?;
            return Ok(start.without_adapter().untracked()?.with_lora(lora)?);
        }
        let saved = StableDiffusionFolder::open(folder)?;
        Ok(saved.params(Component::UNet, start.device())?.into_trainable()?)
    }
}
