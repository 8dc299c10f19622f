//! What a diffusion model is to the rest of the program.

use crate::error::Result;
use candle_core::Tensor;
use votive_diffusion::Conditioning;

/// A network that looks at noisy latents and says what to take away.
pub trait Denoiser: Send + Sync {
    /// The model's prediction; whether it is the noise or the velocity is the noise schedule's business.
    ///
    /// # Shapes
    /// `noisy_latents (B, C, H, W)`, one timestep per row, `conditioning` of B rows → `(B, C, H, W)`.
    /// # Units
    /// Latents as the network was trained on, that is in the U-Net's scale; timesteps count from 0.
    /// # Errors
    /// If the sizes don't fit.
    fn predict(
        &self,
        noisy_latents: &Tensor,
        timesteps: &[f64],
        conditioning: &Conditioning,
    ) -> Result<Tensor>;
}
