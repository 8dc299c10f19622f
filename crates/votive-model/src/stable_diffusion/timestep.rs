//! Timesteps, and the sizes of pictures, as vectors.
//!
//! Source: Ho et al., "Denoising diffusion probabilistic models", arXiv:2006.11239, Appendix B, after Vaswani et al.,
//! arXiv:1706.03762, Sec. 3.5; of sizes: Podell et al., "SDXL", arXiv:2307.01952, Sec. 2.2.

use super::unet_config::{AdditionConfig, UNetConfig};
use crate::error::{ModelError, Result};
use crate::nn::Linear;
use crate::params::Scope;
use candle_core::{DType, Device, Tensor};
use votive_tensor::{Activation, activate};

/// Sines and cosines of a number.
#[derive(Clone, Copy, Debug)]
struct Waves {
    width: usize,
    cosine_first: bool,
    shift: f64,
}

impl Waves {
    fn new(width: usize, config: &UNetConfig) -> Self {
        Self { width, cosine_first: config.flip_sin_to_cos, shift: config.freq_shift }
    }

    /// In f32 from the exponent on, as diffusers does: at t near 1000 an f64 angle would differ in the fifth digit.
    fn of(&self, number: f32) -> Vec<f32> {
        let half = self.width / 2;
        let log_period = -(10_000f64.ln()) as f32;
        let angle = |i: usize| number * (log_period * i as f32 / (half as f64 - self.shift) as f32).exp();
        let sines = (0..half).map(|i| angle(i).sin());
        let cosines = (0..half).map(|i| angle(i).cos());
        let mut waves: Vec<f32> =
            if self.cosine_first { cosines.chain(sines).collect() } else { sines.chain(cosines).collect() };
        waves.resize(self.width, 0.0);
        waves
    }
}

/// Two linear maps with an activation between them.
#[derive(Clone, Debug)]
struct Maps {
    linear_1: Linear,
    linear_2: Linear,
}

impl Maps {
    fn new(scope: &Scope, ins: usize, outs: usize) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::new(&scope.sub("linear_1"), ins, outs, true)?,
            linear_2: Linear::new(&scope.sub("linear_2"), outs, outs, true)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&activate(&self.linear_1.forward(x)?, Activation::Silu)?)
    }
}

/// Sines and cosines of a timestep, and two linear maps.
#[derive(Clone, Debug)]
pub(super) struct TimestepEmbedding {
    waves: Waves,
    maps: Maps,
}

impl TimestepEmbedding {
    /// `width` sines and cosines, mapped to `outs` numbers.
    pub(super) fn new(scope: &Scope, width: usize, outs: usize, config: &UNetConfig) -> Result<Self> {
        Ok(Self { waves: Waves::new(width, config), maps: Maps::new(scope, width, outs)? })
    }

    /// One timestep per row → `(B, outs)`.
    pub(super) fn forward(&self, timesteps: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
        let waves: Vec<f32> = timesteps.iter().flat_map(|t| self.waves.of(*t as f32)).collect();
        let waves = Tensor::from_vec(waves, (timesteps.len(), self.waves.width), device)?.to_dtype(dtype)?;
        self.maps.forward(&waves)
    }
}

/// The pooled prompt beside sines and cosines of the picture's sizes, and two linear maps: what SDXL adds to the time.
#[derive(Clone, Debug)]
pub(super) struct AddedEmbedding {
    waves: Waves,
    maps: Maps,
    input_dim: usize,
}

impl AddedEmbedding {
    pub(super) fn new(
        scope: &Scope,
        addition: AdditionConfig,
        outs: usize,
        config: &UNetConfig,
    ) -> Result<Self> {
        Ok(Self {
            waves: Waves::new(addition.time_embed_dim, config),
            maps: Maps::new(scope, addition.input_dim, outs)?,
            input_dim: addition.input_dim,
        })
    }

    /// `pooled (B, P)`, `sizes (B, N)` → `(B, outs)`.
    pub(super) fn forward(&self, pooled: &Tensor, sizes: &Tensor) -> Result<Tensor> {
        let (rows, n) = sizes.dims2()?;
        let width = n * self.waves.width;
        if pooled.dims() != [rows, self.input_dim.saturating_sub(width)] {
            return Err(ModelError::Shape {
                what: format!("pooled prompt embeddings beside {n} sizes"),
                expected: format!("({rows}, {})", self.input_dim.saturating_sub(width)),
                found: format!("{:?}", pooled.dims()),
            });
        }
        let numbers = sizes.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let waves: Vec<f32> = numbers.into_iter().flat_map(|number| self.waves.of(number)).collect();
        let waves = Tensor::from_vec(waves, (rows, width), pooled.device())?.to_dtype(pooled.dtype())?;
        self.maps.forward(&Tensor::cat(&[pooled, &waves], 1)?)
    }
}
