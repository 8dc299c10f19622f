//! Log-ratios from denoising errors: minus half the mean squared error at the pair's own time and noise.
//!
//! Source: Wallace et al., "Diffusion model alignment using direct preference optimization", arXiv:2311.12908,
//! Eq. 14: the margin is `−[(L_w − L_l) − (R_w − R_l)]`, with L and R the policy's and the reference's errors, means
//! over a latent, and the loss is `−log σ(½β·margin)`. The factor ½ is applied here, so an objective sees a
//! log-probability like any other.

use super::encoded::{Encoded, EncodedCounts, Key, identity};
use super::pair_latents::{ImageSettings, PairLatents, PairsOfFile};
use super::{FrontEnd, Likelihood, Sample, SaveDtype};
use crate::error::{Result, TrainError};
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use votive_data::{ClipTokenizer, Frame};
use votive_diffusion::{NoisePolicy, NoiseSchedule, SchedulerConfig, TimestepPolicy};
use votive_model::stable_diffusion::{
    ClipTextModel, Component, StableDiffusionFolder, UNet2DConditionModel, UNetConfig,
};
use votive_model::{Denoiser, Lora, LoraFormat, Params};
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
    /// Whether the two sides of a pair share their noise.
    pub noise: NoisePolicy,
    /// Share of captions that are emptied.
    pub caption_dropout: f64,
    /// What β multiplies.
    pub beta_convention: BetaConvention,
    /// Pixels along a side of the images; with buckets, the root of their area.
    pub resolution: u32,
    /// How images are seen.
    pub images: ImageSettings,
}

/// A Stable Diffusion folder with encoded pairs.
pub struct DenoisingFrontEnd {
    folder: StableDiffusionFolder,
    schedule: NoiseSchedule,
    settings: DenoisingSettings,
    device: Device,
    latents: PairLatents,
    /// Keys of the rows' prompts.
    prompt_keys: Vec<Key>,
    prompts: Encoded,
    counts: EncodedCounts,
    held_out: usize,
    empty_prompt: Tensor,
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
        let folder = StableDiffusionFolder::open(folder)?;
        let schedule = NoiseSchedule::new(&SchedulerConfig::from_model_folder(folder.root())?)?;
        let of_recipe = |error| TrainError::Plan(format!("diffusion.timesteps: {error}"));
        settings.timesteps.check(&schedule).map_err(of_recipe)?;
        let unet = folder.params(Component::UNet, device)?;
        let encoder = Prompts::open(&folder, device)?;
        let empty_prompt = encoder.encode("")?;
        let held_out = pairs[1].1.len();
        let how = (&settings.images, settings.seed);
        let (latents, images) = PairLatents::new(&folder, pairs, how, device, progress)?;
        let mut prompts = Encoded::open(settings.images.cache.as_deref(), "prompts", PROMPT_PARTS, device)?;
        let all = (0..latents.len()).map(|row| latents.pair(row).pair.prompt.as_str());
        let (prompt_keys, encoded) = encoder.encode_all(all, &mut prompts)?;
        let counts = EncodedCounts { computed: [images[0], encoded[0]], found: [images[1], encoded[1]] };
        let device = device.clone();
        let front = Self {
            folder,
            schedule,
            settings,
            device,
            latents,
            prompt_keys,
            prompts,
            counts,
            held_out,
            empty_prompt,
        };
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

    /// The folder of the model.
    #[must_use]
    pub fn folder(&self) -> &StableDiffusionFolder {
        &self.folder
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

    /// Tokens of a prompt's embedding.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.empty_prompt.dims().first().copied().unwrap_or(0)
    }

    /// Whether images go through the autoencoder at every step.
    #[must_use]
    pub fn encodes_on_the_way(&self) -> bool {
        self.latents.encodes_on_the_way()
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
}

/// What is kept of a prompt.
const PROMPT_PARTS: &[&str] = &["prompt_embeds"];

/// The frozen text encoder with its tokenizer.
struct Prompts {
    tokenizer: ClipTokenizer,
    encoder: ClipTextModel,
    identity: Key,
    device: Device,
}

impl Prompts {
    fn open(folder: &StableDiffusionFolder, device: &Device) -> Result<Self> {
        let tokenizer = ClipTokenizer::load(&folder.tokenizer())?;
        tokenizer.check_model_vocabulary(folder.text_encoder_config().vocab_size)?;
        let params = folder.params(Component::TextEncoder, device)?;
        let encoder = params.build(|scope| ClipTextModel::new(scope, folder.text_encoder_config()))?;
        let identity = identity(folder.text_encoder_config(), &params)?;
        Ok(Self { tokenizer, encoder, identity, device: device.clone() })
    }

    fn encode(&self, prompt: &str) -> Result<Tensor> {
        self.encode_ids(&self.tokenizer.encode(prompt)?.ids)
    }

    fn encode_ids(&self, ids: &[u32]) -> Result<Tensor> {
        let ids = Tensor::new(ids, &self.device)?.unsqueeze(0)?;
        Ok(self.encoder.forward(&ids)?.squeeze(0)?.detach())
    }

    /// Encodes prompts that are not in `prompts` yet, equal ones once; gives the key of each, and how many were encoded
    /// and how many found.
    fn encode_all<'a>(
        &self,
        all: impl Iterator<Item = &'a str>,
        prompts: &mut Encoded,
    ) -> Result<(Vec<Key>, [usize; 2])> {
        let (mut keys, mut missing, mut found) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for prompt in all {
            let ids = self.tokenizer.encode(prompt)?.ids;
            let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            let key = Sha256::new().chain_update(self.identity).chain_update(bytes).finalize().into();
            if seen.insert(key) {
                let list = if prompts.contains(&key) { &mut found } else { &mut missing };
                list.push((key, ids));
            }
            keys.push(key);
        }
        prompts.verify(&found, |ids| Ok(vec![self.encode_ids(ids)?]))?;
        for (key, ids) in &missing {
            prompts.insert(*key, vec![self.encode_ids(ids)?])?;
        }
        prompts.write()?;
        Ok((keys, [missing.len(), found.len()]))
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
        let schedule = NoiseSchedule::new(&SchedulerConfig::from_model_folder(other.root())?)?;
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
        let timesteps = settings.timesteps.for_pairs(&self.schedule, settings.seed, step, &ids)?;
        let noise = settings.noise.for_pairs((c, h, w), settings.seed, step, &ids, &self.device)?;
        let dropped = |id: u64| {
            Draws::new(settings.seed, Stream::CaptionDropout, step, id).chance(settings.caption_dropout)
        };
        let prompt = |sample: &Sample| match dropped(sample.position as u64) {
            true => Ok(self.empty_prompt.clone()),
            false => Ok(self.prompts.get(&self.prompt_keys[sample.row])?.remove(0)),
        };
        let prompts = Tensor::stack(&samples.iter().map(prompt).collect::<Result<Vec<_>>>()?, 0)?;
        let captions =
            samples.iter().map(|sample| self.latents.pair(sample.row).pair.prompt.clone()).collect();
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
