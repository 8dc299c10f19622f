//! Convolutional blocks that the U-Net and the VAE share: residual block, down- and up-sampling.
//!
//! Names and arithmetic are those of diffusers' `ResnetBlock2D`, `Downsample2D` and `Upsample2D`.

use crate::error::{ModelError, Result};
use crate::nn::{Conv2d, GroupNorm, Linear};
use crate::params::Scope;
use candle_core::Tensor;
use votive_tensor::{Activation, upsample_nearest_2x};

/// What the residual blocks of one network have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResnetConfig {
    pub(super) groups: usize,
    pub(super) eps: f64,
    /// Width of the time embedding; none in a VAE.
    pub(super) time_width: Option<usize>,
    /// What the sum of both branches is divided by.
    pub(super) scale: f64,
}

/// Two normalised convolutions beside an identity (or 1×1) branch.
#[derive(Clone, Debug)]
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    scale: f64,
}

impl ResnetBlock {
    pub(super) fn new(scope: &Scope, ins: usize, outs: usize, config: ResnetConfig) -> Result<Self> {
        let ResnetConfig { groups, eps, time_width, scale } = config;
        let time = |width| Linear::new(&scope.sub("time_emb_proj"), width, outs, true);
        let shortcut = || Conv2d::new(&scope.sub("conv_shortcut"), ins, outs, 1, (1, 0));
        Ok(Self {
            norm1: GroupNorm::new(&scope.sub("norm1"), ins, groups, eps)?,
            conv1: Conv2d::new(&scope.sub("conv1"), ins, outs, 3, (1, 1))?,
            time: time_width.map(time).transpose()?,
            norm2: GroupNorm::new(&scope.sub("norm2"), outs, groups, eps)?,
            conv2: Conv2d::new(&scope.sub("conv2"), outs, outs, 3, (1, 1))?,
            shortcut: (ins != outs).then(shortcut).transpose()?,
            scale,
        })
    }

    /// `x (B, ins, H, W)` and, where the block knows the time, `time (B, width)` after its activation
    /// → `(B, outs, H, W)`.
    pub(super) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let h = self.norm1.activated(x, Activation::Silu)?;
        let h = match (&self.time, time) {
            (Some(projection), Some(time)) => self.conv1.forward_shifted(&h, &projection.forward(time)?)?,
            _ => self.conv1.forward(&h)?,
        };
        let h = self.conv2.forward(&self.norm2.activated(&h, Activation::Silu)?)?;
        let sum = match &self.shortcut {
            Some(shortcut) => (shortcut.forward(x)? + h)?,
            None => (x + h)?,
        };
        Ok(if self.scale == 1.0 { sum } else { (sum / self.scale)? })
    }
}

/// A 3×3 convolution of stride two.
#[derive(Clone, Debug)]
pub(super) struct Downsample {
    conv: Conv2d,
    /// Zeros on the right and at the bottom only.
    asymmetric: bool,
}

impl Downsample {
    /// diffusers reads a padding of 0 as one row and column of zeros at the far ends.
    pub(super) fn new(scope: &Scope, channels: usize, padding: usize) -> Result<Self> {
        let conv = Conv2d::new(&scope.sub("conv"), channels, channels, 3, (2, padding))?;
        Ok(Self { conv, asymmetric: padding == 0 })
    }

    /// `x (B, C, H, W)` → `(B, C, ⌈H/2⌉, ⌈W/2⌉)`, rounded down instead if the padding is asymmetric.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.asymmetric {
            self.conv.forward(&x.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?)
        } else {
            self.conv.forward(x)
        }
    }
}

/// Nearest-neighbour up-sampling and a 3×3 convolution.
#[derive(Clone, Debug)]
pub(super) struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(super) fn new(scope: &Scope, channels: usize) -> Result<Self> {
        Ok(Self { conv: Conv2d::new(&scope.sub("conv"), channels, channels, 3, (1, 1))? })
    }

    /// `x (B, C, H, W)` → `(B, C, 2H, 2W)`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(&upsample_nearest_2x(x)?)
    }

    /// The same, to the height and width of the skip connection that follows.
    pub(super) fn forward_to(&self, x: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
        let mut doubled = upsample_nearest_2x(x)?;
        let (_, _, rows, columns) = doubled.dims4()?;
        // Halving rounds up, so the skip is as large as the doubled image or one smaller; nearest neighbours of a
        // size 2n − 1 are the first 2n − 1 of those of size 2n.
        let fits = |doubled: usize, target: usize| doubled == target || doubled == target + 1;
        if !fits(rows, height) || !fits(columns, width) {
            return Err(ModelError::Shape {
                what: "latents' height and width".to_owned(),
                expected: "multiples of 2 at every level".to_owned(),
                found: format!("a skip connection of {height}×{width} beside {rows}×{columns}"),
            });
        }
        if (rows, columns) != (height, width) {
            doubled = doubled.narrow(2, 0, height)?.narrow(3, 0, width)?;
        }
        self.conv.forward(&doubled)
    }
}
