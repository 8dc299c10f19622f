//! A U-Net and its text encoder from nothing: weighted denoising error on latents of captioned images.

use super::Examples;
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::ops::Range;
use votive_data::ClipTokenizer;
use votive_diffusion::{Conditioning, NoiseSchedule};
use votive_model::Denoiser;
use votive_model::stable_diffusion::{AutoencoderKl, ClipTextModel};
use votive_tensor::random::{Draws, Stream};

/// Numbers of the loss.
#[derive(Clone, Debug)]
pub struct DenoiserRecipe {
    /// Share of captions that are emptied, for classifier-free guidance.
    pub caption_dropout: f64,
    /// Bounds of the weight of the error in z₀, which is SNR between them. The upper one is γ of min-SNR (Hang et al.,
    /// arXiv:2303.09556); the lower one is 0 there and 1 in the truncated SNR of Salimans & Ho (arXiv:2202.00512).
    pub snr_bounds: (f64, f64),
    /// Seed of noise, timesteps and dropped captions.
    pub seed: u64,
    /// Pixels along a side.
    pub side: usize,
}

/// The loss of a denoiser and a text encoder that learn together.
pub struct DenoiserPretraining<'a> {
    /// The U-Net that is trained.
    pub denoiser: &'a dyn Denoiser,
    /// The text encoder that is trained with it.
    pub text_encoder: &'a ClipTextModel,
    /// Its tokenizer.
    pub tokenizer: &'a ClipTokenizer,
    /// The autoencoder, as it is.
    pub vae: &'a AutoencoderKl,
    /// Noise levels.
    pub schedule: &'a NoiseSchedule,
    /// Captioned images by index.
    pub examples: &'a Examples<Vec<f32>>,
    /// Numbers of the loss.
    pub recipe: &'a DenoiserRecipe,
}

impl DenoiserPretraining<'_> {
    /// The loss on some of the examples.
    ///
    /// # Errors
    /// Those of the networks.
    pub fn loss(&self, examples: Range<u64>) -> Result<Tensor> {
        let recipe = self.recipe;
        let n = (examples.end - examples.start) as usize;
        let (mut ids, mut pixels, mut timesteps) = (Vec::new(), Vec::new(), Vec::new());
        for index in examples.clone() {
            let (caption, image) = (self.examples)(index);
            let dropped =
                Draws::new(recipe.seed, Stream::CaptionDropout, index, 0).chance(recipe.caption_dropout);
            ids.extend(self.tokenizer.encode(if dropped { "" } else { &caption })?.ids);
            pixels.extend(image);
            timesteps.push(
                Draws::new(recipe.seed, Stream::Timestep, index, 0)
                    .below(self.schedule.num_train_timesteps()),
            );
        }
        let images = Tensor::from_vec(pixels, (n, 3, recipe.side, recipe.side), &Device::Cpu)?;
        let latents = (self.vae.encode(&images)?.mean * self.vae.config().scaling_factor)?.detach();
        // Drawn for each example by its number, so that a share of a batch sees what the whole batch would.
        let size = latents.elem_count() / n;
        let noise: Vec<f32> = examples
            .flat_map(|index| Draws::new(recipe.seed, Stream::Noise, index, 0).normals(size))
            .collect();
        let noise = Tensor::from_vec(noise, latents.shape(), &Device::Cpu)?;
        let ids = Tensor::from_vec(ids, (n, self.tokenizer.positions()), &Device::Cpu)?;
        let prompts = Conditioning::new(self.text_encoder.forward(&ids)?)?;
        let noisy = self.schedule.add_noise(&latents, &noise, &timesteps)?;
        let target = self.schedule.target(&latents, &noise, &timesteps)?;
        let times: Vec<f64> = timesteps.iter().map(|t| *t as f64).collect();
        let error =
            (self.denoiser.predict(&noisy, &times, &prompts)? - target)?.sqr()?.flatten_from(1)?.mean(1)?;
        let weights =
            timesteps.iter().map(|t| Ok(self.schedule.bounded_snr_weight(*t, recipe.snr_bounds)? as f32));
        let weights = Tensor::from_vec(weights.collect::<Result<Vec<f32>>>()?, n, &Device::Cpu)?;
        Ok(error.mul(&weights)?.mean_all()?)
    }
}
