//! What a diffusion model is to the rest of the program.

use crate::error::Result;
use candle_core::Tensor;
use rayon::prelude::*;
use votive_diffusion::Conditioning;
use votive_tensor::{KeptWeights, Recorder};

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

/// What a network makes of parts of some rows at the same time: most of its operations are too small to be shared between cores
/// without waiting. With a recorder the parts also go backwards at the same time, and gradients come out there; the parts' gradients
/// of what is trained are in memory beside each other then.
///
/// # Shapes
/// As [`Denoiser::predict`]; at most `parts` parts, all but the last of the same number of rows.
/// # Errors
/// Those of the network.
pub fn predict_in_parts(
    network: &dyn Denoiser,
    parts: usize,
    (latents, timesteps, conditioning): (&Tensor, &[f64], &Conditioning),
    recorder: Option<&Recorder>,
) -> Result<Tensor> {
    let rows = timesteps.len();
    let size = rows.div_ceil(parts.max(1)).max(1);
    let predict = |part: usize| {
        let (first, here) = (part * size, size.min(rows - part * size));
        let conditioning = conditioning.narrow(first, here)?;
        network.predict(&latents.narrow(0, first, here)?, &timesteps[first..first + here], &conditioning)
    };
    let parts = rows.div_ceil(size);
    match (parts, recorder) {
        (0 | 1, _) => network.predict(latents, timesteps, conditioning),
        (_, Some(recorder)) => recorder.beside(parts, predict),
        (_, None) => {
            let kept = KeptWeights::here();
            let predict = |part| kept.within(|| predict(part));
            let parts = (0..parts).into_par_iter().map(predict).collect::<Result<Vec<_>>>()?;
            Ok(Tensor::cat(&parts, 0)?)
        }
    }
}
