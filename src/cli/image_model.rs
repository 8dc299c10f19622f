//! A Stable Diffusion folder, ready to draw: what the image commands share.

use crate::cli::weighted::WeightedPath;
use crate::cli::{Failure, Outcome, Output};
use candle_core::{Device, Tensor};
use image::RgbImage;
use std::path::Path;
use votive_diffusion::{
    BoxError, Conditioning, Guidance, ImageSizes, SamplerKind, SchedulerConfig, StepNoise, initial_latents,
    sample,
};
use votive_model::stable_diffusion::{
    AutoencoderKl, Component, StableDiffusionFolder, UNet2DConditionModel, UNetConfig,
};
use votive_model::{Adaptable, Denoiser, Lora, Params, PipelineLora, predict_in_parts};
use votive_train::front_end::PromptEncoder;

/// Pixels along a side at most: beyond, memory would end before the first step.
const MAX_SIDE: usize = 4096;

/// The networks of a Stable Diffusion folder without gradients, its tokenizers and its noise schedule. The denoiser may be
/// somebody else's.
#[derive(Debug)]
pub(crate) struct ImageModel<U = UNet2DConditionModel> {
    /// The denoiser, under its adapter if there is one.
    pub(crate) unet: U,
    unet_config: UNetConfig,
    /// The schedule that the denoiser was trained with, as its pipeline samples from it.
    pub(crate) scheduler: SchedulerConfig,
    /// Parts of the folder that nothing here reads.
    pub(crate) unused: Vec<String>,
    prompts: PromptEncoder,
    vae: AutoencoderKl,
    device: Device,
}

impl ImageModel {
    /// Loads a folder in diffusers' layout, and puts an adapter on its U-Net, and on its text encoder if it has one for it.
    ///
    /// # Errors
    /// If a file is missing or wrong, or the parts do not belong together.
    pub(crate) fn load(folder: &Path, adapter: Option<&Path>, device: &Device) -> Outcome<Self> {
        let adapters = adapter.map(|path| PipelineLora::load(path, device)).transpose()?.unwrap_or_default();
        let files = StableDiffusionFolder::open(folder)?;
        files.check_networks_of(&adapters)?;
        let unet = |files: &StableDiffusionFolder| {
            build_unet(files, &files.adapted(Adaptable::UNet, &adapters, device)?)
        };
        Self::with(&files, unet, &adapters, device)
    }

    /// Loads the U-Net of another folder, for the same latents and prompts as this model's, under the sum of adapters.
    ///
    /// # Errors
    /// As [`ImageModel::load`]; if the two don't fit together.
    pub(crate) fn load_partner(
        &self,
        folder: &Path,
        adapters: &[WeightedPath],
    ) -> Outcome<UNet2DConditionModel> {
        let files = StableDiffusionFolder::open(folder)?;
        let params = under_sum(files.params(Component::UNet, &self.device)?, adapters)?;
        let partner = build_unet(&files, &params)?;
        let (own, other) = (&self.unet_config, partner.config());
        for (what, own, other) in [
            ("channels", own.in_channels, other.in_channels),
            ("prompt width", own.cross_attention_dim, other.cross_attention_dim),
            ("width of pooled prompt and sizes", added(own), added(other)),
        ] {
            if own != other {
                let folder = folder.display();
                return Err(Failure::data(format!(
                    "{folder}: the U-Net's {what} is {other}, expected {own} as in --model"
                )));
            }
        }
        Ok(partner)
    }
}

/// How images are drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrawSettings {
    /// How to get from noise to latents.
    pub(crate) sampler: SamplerKind,
    /// Its steps.
    pub(crate) steps: usize,
    /// Scale of classifier-free guidance.
    pub(crate) cfg: f64,
}

impl ImageModel {
    /// Draws an image of each prompt from its seed, in the size that the model was trained on, away from no prompt.
    ///
    /// # Errors
    /// If a network fails, or a pixel is not a number.
    pub(crate) fn draw(
        &self,
        (prompts, seeds): (&[String], &[u64]),
        settings: DrawSettings,
        output: &Output,
    ) -> Outcome<Vec<RgbImage>> {
        let size = self.native_size();
        let latents = initial_latents(seeds, self.latent_shape(size)?, &self.device)?;
        let (embeds, empty) = (self.embed(prompts, size, output)?, self.embed_negative(None, size, output)?);
        let network = as_network(&self.unet);
        let guidance = Guidance::new(&network, &embeds, &empty, settings.cfg)?;
        let mut sampler = settings.sampler.build(&self.scheduler, settings.steps)?;
        let noise = StepNoise::Seeded(seeds.to_vec());
        self.decode(&sample(sampler.as_mut(), &guidance, &latents, &noise, |_, _| {})?)
    }
}

impl ImageModel<()> {
    /// Loads everything of a folder but its U-Net, for one that is in memory already.
    ///
    /// # Errors
    /// As [`ImageModel::load`].
    pub(crate) fn around_a_unet(folder: &Path, device: &Device) -> Outcome<Self> {
        Self::with(&StableDiffusionFolder::open(folder)?, |_| Ok(()), &PipelineLora::default(), device)
    }
}

impl<U> ImageModel<U> {
    fn with(
        files: &StableDiffusionFolder,
        unet: impl FnOnce(&StableDiffusionFolder) -> Outcome<U>,
        adapters: &PipelineLora,
        device: &Device,
    ) -> Outcome<Self> {
        let prompts = PromptEncoder::open(files, adapters, device)?;
        Ok(Self {
            unet: unet(files)?,
            unet_config: files.unet_config().clone(),
            scheduler: files.scheduler().clone(),
            unused: files.unused(),
            prompts,
            vae: files.read_vae(device)?,
            device: device.clone(),
        })
    }

    /// What the U-Net is told of prompts, one a row, and of the width and height of the images; warns of words that don't
    /// fit.
    ///
    /// # Errors
    /// If a tokenizer or an encoder fails.
    pub(crate) fn embed(
        &self,
        prompts: &[String],
        size: (u32, u32),
        output: &Output,
    ) -> Outcome<Conditioning> {
        let encoded = self.prompts.encode(prompts)?;
        for (prompt, lost) in prompts.iter().zip(encoded.truncated_tokens).filter(|(_, lost)| *lost > 0) {
            output.warn(format!(
                "the last {lost} tokens of this prompt do not fit and have no effect: {prompt}"
            ));
        }
        self.sized(encoded.conditioning, size)
    }

    /// The same of what to guide away from, in one row: a prompt, or what stands for none in this model.
    ///
    /// # Errors
    /// As [`ImageModel::embed`].
    pub(crate) fn embed_negative(
        &self,
        prompt: Option<&String>,
        size: (u32, u32),
        output: &Output,
    ) -> Outcome<Conditioning> {
        match prompt {
            Some(prompt) => self.embed(std::slice::from_ref(prompt), size, output),
            None => self.sized(self.prompts.no_prompt()?, size),
        }
    }

    fn sized(&self, prompts: Conditioning, (width, height): (u32, u32)) -> Outcome<Conditioning> {
        let sizes = vec![ImageSizes::whole(height, width); prompts.rows()];
        Ok(self.unet_config.with_sizes(prompts, &sizes)?)
    }

    /// Where its networks are.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Width and height in pixels of what the model was trained on.
    pub(crate) fn native_size(&self) -> (u32, u32) {
        let factor = self.vae.config().downscale();
        let sample = self.vae.config().sample_size;
        let (height, width) =
            self.unet_config.sample_size.map_or((sample, sample), |(h, w)| (h * factor, w * factor));
        (width as u32, height as u32)
    }

    /// (C, h, w) of the latents of an image.
    ///
    /// # Errors
    /// If the sides are no multiples of what the networks halve.
    pub(crate) fn latent_shape(&self, (width, height): (u32, u32)) -> Outcome<(usize, usize, usize)> {
        let factor = self.vae.config().downscale();
        // Every level of the U-Net but the last halves the latents once more.
        let unit = factor << (self.unet_config.levels.len() - 1);
        let (width, height) = (width as usize, height as usize);
        if width.max(height) > MAX_SIDE {
            return Err(Failure::usage(format!(
                "{width}x{height} pixels: at most {MAX_SIDE} a side can be drawn"
            )));
        }
        if width == 0 || height == 0 || width % unit != 0 || height % unit != 0 {
            return Err(Failure::usage(format!(
                "{width}x{height} pixels: this model draws multiples of {unit}"
            )));
        }
        Ok((self.unet_config.in_channels, height / factor, width / factor))
    }

    /// Width and height in pixels of the image of square latents.
    pub(crate) fn square_size(&self, side: usize) -> (u32, u32) {
        let pixels = u32::try_from(side.saturating_mul(self.vae.config().downscale())).unwrap_or(u32::MAX);
        (pixels, pixels)
    }

    /// Latents of an image, drawn from the autoencoder's posterior, in the U-Net's scale.
    ///
    /// # Shapes
    /// `pixels (B, 3, H, W)` from −1 to 1 and standard normal `noise (B, C, h, w)` → `(B, C, h, w)`
    /// # Errors
    /// If the autoencoder fails.
    pub(crate) fn encode(&self, pixels: &Tensor, noise: &Tensor) -> Outcome<Tensor> {
        let latents = self.vae.encode(pixels)?.sample(noise)?;
        Ok((latents * self.vae.config().scaling_factor)?.detach())
    }

    /// The images of finished latents.
    ///
    /// # Shapes
    /// `latents (B, C, h, w)` as the sampler leaves them
    /// # Errors
    /// If they are not the VAE's latents, or a pixel is not a number.
    pub(crate) fn decode(&self, latents: &Tensor) -> Outcome<Vec<RgbImage>> {
        let pixels = self.vae.decode(&(latents / self.vae.config().scaling_factor)?)?;
        let pixels = ((pixels / 2.0)? + 0.5)?.clamp(0.0, 1.0)?.permute((0, 2, 3, 1))?;
        let (_, height, width, _) = pixels.dims4()?;
        let images = pixels.flatten_from(1)?.to_vec2::<f32>()?;
        images.into_iter().map(|values| to_image(&values, width as u32, height as u32)).collect()
    }
}

/// Numbers that a U-Net is told beside time and prompt.
fn added(config: &UNetConfig) -> usize {
    config.addition.map_or(0, |addition| addition.input_dim)
}

fn build_unet(files: &StableDiffusionFolder, params: &Params) -> Outcome<UNet2DConditionModel> {
    Ok(params.build(|scope| UNet2DConditionModel::new(scope, files.unet_config()))?)
}

/// A U-Net under the weighted sum of adapters; as it is if there are none.
fn under_sum(unet: Params, adapters: &[WeightedPath]) -> Outcome<Params> {
    if adapters.is_empty() {
        return Ok(unet);
    }
    let mut terms = Vec::new();
    for WeightedPath { weight, path } in adapters {
        let adapted = unet.with_lora(Lora::load(path, unet.device())?)?;
        terms.extend(adapted.lora().cloned().map(|lora| (*weight, lora)));
    }
    let terms: Vec<(f64, &Lora)> = terms.iter().map(|(weight, lora)| (*weight, lora)).collect();
    Ok(unet.with_lora(Lora::weighted_sum(&terms)?)?)
}

fn to_image(values: &[f32], width: u32, height: u32) -> Outcome<RgbImage> {
    if values.iter().any(|value| value.is_nan()) {
        let faulty =
            Failure::new(crate::cli::Code::Numbers, "the model drew an image that is not a number (NaN)");
        return Err(faulty.hint("lower --cfg; if that does not help, the weights are damaged"));
    }
    let bytes = values.iter().map(|value| (value * 255.0).round_ties_even() as u8).collect();
    RgbImage::from_raw(width, height, bytes).ok_or_else(|| {
        Failure::data(format!("the VAE gives {} numbers for {width}x{height} pixels", values.len()))
    })
}

/// A U-Net as samplers call it. On a CPU the rows of a batch, as the two halves of guidance, are computed side by side, one
/// thread each: most operations are too small to be shared between threads without waiting.
pub(crate) fn as_network(
    unet: &dyn Denoiser,
) -> impl Fn(&Tensor, &[f64], &Conditioning) -> Result<Tensor, BoxError> + '_ {
    |latents, timesteps, conditioning| {
        let parts = if latents.device().is_cpu() { rayon::current_num_threads() } else { 1 };
        Ok(predict_in_parts(unet, parts, (latents, timesteps, conditioning), None)?)
    }
}
