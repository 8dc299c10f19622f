//! A Stable Diffusion folder, ready to draw: what the image commands share.

use crate::cli::{Failure, Outcome, Output};
use candle_core::{Device, Tensor};
use image::RgbImage;
use std::path::Path;
use votive_data::ClipTokenizer;
use votive_diffusion::{BoxError, SchedulerConfig};
use votive_model::stable_diffusion::{
    AutoencoderKl, ClipTextModel, Component, StableDiffusionFolder, UNet2DConditionModel, UNetConfig,
};
use votive_model::{Denoiser, Lora};

/// Pixels along a side at most: beyond, memory would end before the first step.
const MAX_SIDE: usize = 4096;

/// The networks of a Stable Diffusion folder without gradients, its tokenizer and its noise schedule. The denoiser may be
/// somebody else's.
#[derive(Debug)]
pub(crate) struct ImageModel<U = UNet2DConditionModel> {
    /// The denoiser, under its adapter if there is one.
    pub(crate) unet: U,
    unet_config: UNetConfig,
    /// The schedule that the denoiser was trained with, as its pipeline samples from it.
    pub(crate) scheduler: SchedulerConfig,
    tokenizer: ClipTokenizer,
    text_encoder: ClipTextModel,
    vae: AutoencoderKl,
    device: Device,
}

impl ImageModel {
    /// Loads a folder in diffusers' layout, and puts an adapter on its U-Net.
    ///
    /// # Errors
    /// If a file is missing or wrong, or the parts do not belong together.
    pub(crate) fn load(folder: &Path, adapter: Option<&Path>, device: &Device) -> Outcome<Self> {
        let unet = |files: &StableDiffusionFolder| unet(files, adapter, device);
        Self::with(&StableDiffusionFolder::open(folder)?, unet, device)
    }

    /// Loads the U-Net of another folder, for the same latents and prompts as this model's.
    ///
    /// # Errors
    /// As [`ImageModel::load`]; if the two don't fit together.
    pub(crate) fn load_partner(&self, folder: &Path) -> Outcome<UNet2DConditionModel> {
        let partner = unet(&StableDiffusionFolder::open(folder)?, None, &self.device)?;
        let (own, other) = (&self.unet_config, partner.config());
        for (what, own, other) in [
            ("channels", own.in_channels, other.in_channels),
            ("prompt width", own.cross_attention_dim, other.cross_attention_dim),
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

impl ImageModel<()> {
    /// Loads everything of a folder but its U-Net, for one that is in memory already.
    ///
    /// # Errors
    /// As [`ImageModel::load`].
    pub(crate) fn around_a_unet(folder: &Path, device: &Device) -> Outcome<Self> {
        Self::with(&StableDiffusionFolder::open(folder)?, |_| Ok(()), device)
    }
}

impl<U> ImageModel<U> {
    fn with(
        files: &StableDiffusionFolder,
        unet: impl FnOnce(&StableDiffusionFolder) -> Outcome<U>,
        device: &Device,
    ) -> Outcome<Self> {
        let scheduler = SchedulerConfig::from_model_folder(files.root())?;
        let tokenizer = ClipTokenizer::load(&files.tokenizer())?;
        tokenizer.check_model_vocabulary(files.text_encoder_config().vocab_size)?;
        let (text_encoder, vae) = (files.read_text_encoder(device)?, files.read_vae(device)?);
        let unet = unet(files)?;
        let unet_config = files.unet_config().clone();
        Ok(Self { unet, unet_config, scheduler, tokenizer, text_encoder, vae, device: device.clone() })
    }

    /// The text encoder's view of prompts; warns of words that don't fit.
    ///
    /// # Shapes
    /// → `(B, S, D)`
    /// # Errors
    /// If the tokenizer or the encoder fails.
    pub(crate) fn embed(&self, prompts: &[String], output: &Output) -> Outcome<Tensor> {
        let mut ids = Vec::new();
        for prompt in prompts {
            let encoded = self.tokenizer.encode(prompt)?;
            if encoded.truncated_tokens > 0 {
                let lost = encoded.truncated_tokens;
                output.warn(format!(
                    "the last {lost} tokens of this prompt do not fit and have no effect: {prompt}"
                ));
            }
            ids.extend(encoded.ids);
        }
        let ids = Tensor::from_vec(ids, (prompts.len(), self.tokenizer.positions()), &self.device)?;
        Ok(self.text_encoder.forward(&ids)?.detach())
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

    /// (C, h, w) of square latents.
    ///
    /// # Errors
    /// As [`ImageModel::latent_shape`].
    pub(crate) fn square_latents(&self, side: usize) -> Outcome<(usize, usize, usize)> {
        let pixels = u32::try_from(side.saturating_mul(self.vae.config().downscale())).unwrap_or(u32::MAX);
        self.latent_shape((pixels, pixels))
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

fn unet(
    files: &StableDiffusionFolder,
    adapter: Option<&Path>,
    device: &Device,
) -> Outcome<UNet2DConditionModel> {
    let mut params = files.params(Component::UNet, device)?;
    if let Some(adapter) = adapter {
        params = params.with_lora(Lora::load(adapter, device)?)?;
    }
    Ok(params.build(|scope| UNet2DConditionModel::new(scope, files.unet_config()))?)
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

/// A U-Net as samplers call it.
pub(crate) fn as_network(
    unet: &dyn Denoiser,
) -> impl Fn(&Tensor, &[f64], &Tensor) -> Result<Tensor, BoxError> + '_ {
    |latents, timesteps, prompt_embeds| Ok(unet.predict(latents, timesteps, prompt_embeds)?)
}
