//! Images out of other images: SDEdit (Meng et al., arXiv:2108.01073).

use super::image_model::{DrawSettings, ImageModel, as_network};
use super::{Failure, Outcome, Output};
use candle_core::{Device, Tensor};
use image::RgbImage;
use votive_diffusion::{
    Conditioning, Guidance, SamplerOptions, StepNoise, initial_latents, sample_from_image,
};
use votive_tensor::random::{Draws, Stream};

/// An image that is to be made anew from itself.
pub(crate) struct Retouch<'a> {
    /// The image; all of a batch have its size.
    pub(crate) image: &'a RgbImage,
    /// Where guidance leads to.
    pub(crate) prompt: &'a str,
    /// Where it leads away from; none for what stands for no prompt.
    pub(crate) negative: Option<&'a str>,
    /// Key of all noise.
    pub(crate) seed: u64,
}

impl ImageModel {
    /// Puts noise on each image for the first of the last `strength` of the steps, and samples from there.
    ///
    /// # Errors
    /// If there is none, they differ in size, the size is none that the model draws, `strength` leaves no step, or a network
    /// fails.
    pub(crate) fn retouch(
        &self,
        all: &[Retouch],
        (settings, strength): (DrawSettings, f64),
        output: &Output,
    ) -> Outcome<Vec<RgbImage>> {
        let images: Vec<&RgbImage> = all.iter().map(|one| one.image).collect();
        let size = images.first().map_or((0, 0), |image| image.dimensions());
        let seeds: Vec<u64> = all.iter().map(|one| one.seed).collect();
        let start = initial_latents(&seeds, self.latent_shape(size)?, self.device())?;
        let originals = self.encode_seeded(&as_pixels(&images, self.device())?, &seeds, &start)?;
        let prompts: Vec<String> = all.iter().map(|one| one.prompt.to_owned()).collect();
        let towards = self.embed(&prompts, size, output)?;
        let negative =
            |one: &Retouch| self.embed_negative(one.negative.map(str::to_owned).as_ref(), size, output);
        let away = all.iter().map(negative).collect::<Outcome<Vec<_>>>()?;
        let away = Conditioning::cat(&away.iter().collect::<Vec<_>>())?;
        let network = as_network(&self.unet);
        let guidance = Guidance::new(&network, &towards, &away, settings.cfg)?;
        let options = SamplerOptions { strength, ..SamplerOptions::default() };
        let mut sampler = settings.sampler.build_with(&self.scheduler, settings.steps, options)?;
        let noise = StepNoise::Seeded(seeds);
        let latents =
            sample_from_image(sampler.as_mut(), &guidance, (&originals, &start), &noise, |_, _| {})?;
        self.decode(&latents)
    }

    /// Latents of images, each drawn from the autoencoder's posterior by its seed.
    ///
    /// # Shapes
    /// `pixels (B, 3, H, W)` from −1 to 1 → `(B, C, h, w)`, shaped like `like`
    /// # Errors
    /// If the autoencoder fails.
    pub(crate) fn encode_seeded(&self, pixels: &Tensor, seeds: &[u64], like: &Tensor) -> Outcome<Tensor> {
        let per_image = like.elem_count() / seeds.len().max(1);
        let draw = |seed: &u64| Draws::new(*seed, Stream::Posterior, 0, 0).normals(per_image);
        let noise: Vec<f32> = seeds.iter().flat_map(draw).collect();
        self.encode(pixels, &Tensor::from_vec(noise, like.shape(), like.device())?)
    }
}

/// The pixels of images of one size.
///
/// # Shapes
/// → `(B, 3, H, W)` from −1 to 1
/// # Errors
/// If their sizes differ.
pub(crate) fn as_pixels(images: &[&RgbImage], device: &Device) -> Outcome<Tensor> {
    let (width, height) = images.first().map_or((0, 0), |image| image.dimensions());
    if images.iter().any(|image| image.dimensions() != (width, height)) {
        return Err(Failure::data("images of several sizes are no batch"));
    }
    let bytes = images.iter().flat_map(|image| image.as_raw());
    let values: Vec<f32> = bytes.map(|value| f32::from(*value) / 127.5 - 1.0).collect();
    let pixels = Tensor::from_vec(values, (images.len(), height as usize, width as usize, 3), device)?;
    Ok(pixels.permute((0, 3, 1, 2))?.contiguous()?)
}
