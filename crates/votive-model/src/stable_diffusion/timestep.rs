//! Timesteps as vectors.
//!
//! Source: Ho et al., "Denoising diffusion probabilistic models", arXiv:2006.11239, Appendix B, after Vaswani et al.,
//! arXiv:1706.03762, Sec. 3.5.

use crate::error::Result;
use crate::nn::Linear;
use crate::params::Scope;
use candle_core::{DType, Device, Tensor};
use votive_tensor::{Activation, activate};

/// Sines and cosines of a timestep, and two linear maps.
#[derive(Clone, Debug)]
pub(super) struct TimestepEmbedding {
    width: usize,
    cosine_first: bool,
    shift: f64,
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    /// `width` sines and cosines, mapped to `outs` numbers.
    pub(super) fn new(
        scope: &Scope,
        width: usize,
        outs: usize,
        (cosine_first, shift): (bool, f64),
    ) -> Result<Self> {
        Ok(Self {
            width,
            cosine_first,
            shift,
            linear_1: Linear::new(&scope.sub("linear_1"), width, outs, true)?,
            linear_2: Linear::new(&scope.sub("linear_2"), outs, outs, true)?,
        })
    }

    /// One timestep per row → `(B, outs)`, through the activation that every residual block applies first.
    pub(super) fn forward(&self, timesteps: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
        let waves: Vec<f32> = timesteps.iter().flat_map(|t| self.waves(*t as f32)).collect();
        let waves = Tensor::from_vec(waves, (timesteps.len(), self.width), device)?.to_dtype(dtype)?;
        let hidden = activate(&self.linear_1.forward(&waves)?, Activation::Silu)?;
        Ok(activate(&self.linear_2.forward(&hidden)?, Activation::Silu)?)
    }

    /// In f32 from the exponent on, as diffusers does: at t near 1000 an f64 angle would differ in the fifth digit.
    fn waves(&self, timestep: f32) -> Vec<f32> {
        let half = self.width / 2;
        let log_period = -(10_000f64.ln()) as f32;
        let angle = |i: usize| timestep * (log_period * i as f32 / (half as f64 - self.shift) as f32).exp();
        let sines = (0..half).map(|i| angle(i).sin());
        let cosines = (0..half).map(|i| angle(i).cos());
        let mut waves: Vec<f32> =
            if self.cosine_first { cosines.chain(sines).collect() } else { sines.chain(cosines).collect() };
        waves.resize(self.width, 0.0);
        waves
    }
}
