//! Encoder and decoder of the image autoencoder.

use super::resnet::{Downsample, ResnetBlock, ResnetConfig, Upsample};
use super::spatial::{to_image, to_sequence};
use super::vae_config::VaeConfig;
use crate::error::Result;
use crate::nn::{Conv2d, GroupNorm, Linear};
use crate::params::Scope;
use candle_core::Tensor;
use votive_tensor::{Activation, AttentionMask, attention};

const EPS: f64 = 1e-6;

fn resnets(config: &VaeConfig) -> ResnetConfig {
    ResnetConfig { groups: config.norm_num_groups, eps: EPS, time_width: None, scale: 1.0 }
}

/// Self-attention of one head over all pixels.
#[derive(Clone, Debug)]
struct PixelAttention {
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
}

impl PixelAttention {
    fn new(scope: &Scope, channels: usize, groups: usize) -> Result<Self> {
        // Checkpoints written before diffusers 0.18 use the first of these names.
        let linear = |old: &str, new: &str| {
            let name = if scope.sub(old).has("weight") { old } else { new };
            Linear::new(&scope.sub(name), channels, channels, true)
        };
        Ok(Self {
            norm: GroupNorm::new(&scope.sub("group_norm"), channels, groups, EPS)?,
            query: linear("query", "to_q")?,
            key: linear("key", "to_k")?,
            value: linear("value", "to_v")?,
            out: linear("proj_attn", "to_out.0")?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = x.dims4()?;
        let h = to_sequence(&self.norm.forward(x)?)?;
        let (q, k, v) = (self.query.forward(&h)?, self.key.forward(&h)?, self.value.forward(&h)?);
        let scale = (channels as f64).powf(-0.5);
        let h = self.out.forward(&attention((&q, &k, &v), 1, 1, scale, &AttentionMask::full())?)?;
        Ok((x + to_image(&h, (height, width))?)?)
    }
}

/// Residual block, attention, residual block at the lowest resolution.
#[derive(Clone, Debug)]
struct MidBlock {
    before: ResnetBlock,
    attention: Option<PixelAttention>,
    after: ResnetBlock,
}

impl MidBlock {
    fn new(scope: &Scope, channels: usize, config: &VaeConfig) -> Result<Self> {
        let resnet =
            |i: usize| ResnetBlock::new(&scope.sub("resnets").sub(i), channels, channels, resnets(config));
        let attention = || PixelAttention::new(&scope.sub("attentions.0"), channels, config.norm_num_groups);
        Ok(Self {
            before: resnet(0)?,
            attention: config.mid_block_add_attention.then(attention).transpose()?,
            after: resnet(1)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = self.before.forward(x, None)?;
        if let Some(attention) = &self.attention {
            h = attention.forward(&h)?;
        }
        self.after.forward(&h, None)
    }
}

/// Residual blocks of one resolution, and the way to the next.
#[derive(Clone, Debug)]
struct Level<S> {
    resnets: Vec<ResnetBlock>,
    resample: Option<S>,
}

impl<S> Level<S> {
    fn new(
        scope: &Scope,
        (ins, outs): (usize, usize),
        layers: usize,
        config: &VaeConfig,
        resample: Option<S>,
    ) -> Result<Self> {
        let resnet = |i: usize| {
            ResnetBlock::new(
                &scope.sub("resnets").sub(i),
                if i == 0 { ins } else { outs },
                outs,
                resnets(config),
            )
        };
        Ok(Self { resnets: (0..layers).map(resnet).collect::<Result<_>>()?, resample })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.resnets.iter().try_fold(x.clone(), |h, resnet| resnet.forward(&h, None))
    }
}

/// The normalised last convolution.
#[derive(Clone, Debug)]
struct Head {
    norm: GroupNorm,
    conv: Conv2d,
}

impl Head {
    fn new(scope: &Scope, ins: usize, outs: usize, groups: usize) -> Result<Self> {
        Ok(Self {
            norm: GroupNorm::new(&scope.sub("conv_norm_out"), ins, groups, EPS)?,
            conv: Conv2d::new(&scope.sub("conv_out"), ins, outs, 3, (1, 1))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(&self.norm.activated(x, Activation::Silu)?)
    }
}

/// From images to the mean and log-variance of latents.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    levels: Vec<Level<Downsample>>,
    mid: MidBlock,
    head: Head,
}

impl Encoder {
    pub(super) fn new(scope: &Scope, config: &VaeConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (first, last) = ends(channels);
        let level = |(i, outs): (usize, &usize)| {
            let scope = scope.sub("down_blocks").sub(i);
            let ins = if i == 0 { first } else { channels[i - 1] };
            let down = || Downsample::new(&scope.sub("downsamplers.0"), *outs, 0);
            let down = (i + 1 < channels.len()).then(down).transpose()?;
            Level::new(&scope, (ins, *outs), config.layers_per_block, config, down)
        };
        Ok(Self {
            conv_in: Conv2d::new(&scope.sub("conv_in"), config.in_channels, first, 3, (1, 1))?,
            levels: channels.iter().enumerate().map(level).collect::<Result<_>>()?,
            mid: MidBlock::new(&scope.sub("mid_block"), last, config)?,
            head: Head::new(scope, last, 2 * config.latent_channels, config.norm_num_groups)?,
        })
    }

    /// `(B, in_channels, H, W)` → `(B, 2·latent_channels, H/f, W/f)`.
    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let mut h = self.conv_in.forward(images)?;
        for level in &self.levels {
            h = level.forward(&h)?;
            if let Some(down) = &level.resample {
                h = down.forward(&h)?;
            }
        }
        self.head.forward(&self.mid.forward(&h)?)
    }
}

/// From latents to images.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid: MidBlock,
    levels: Vec<Level<Upsample>>,
    head: Head,
}

impl Decoder {
    pub(super) fn new(scope: &Scope, config: &VaeConfig) -> Result<Self> {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = ends(&channels);
        let level = |(i, outs): (usize, &usize)| {
            let scope = scope.sub("up_blocks").sub(i);
            let ins = if i == 0 { first } else { channels[i - 1] };
            let up = || Upsample::new(&scope.sub("upsamplers.0"), *outs);
            let up = (i + 1 < channels.len()).then(up).transpose()?;
            Level::new(&scope, (ins, *outs), config.layers_per_block + 1, config, up)
        };
        Ok(Self {
            conv_in: Conv2d::new(&scope.sub("conv_in"), config.latent_channels, first, 3, (1, 1))?,
            mid: MidBlock::new(&scope.sub("mid_block"), first, config)?,
            levels: channels.iter().enumerate().map(level).collect::<Result<_>>()?,
            head: Head::new(scope, last, config.out_channels, config.norm_num_groups)?,
        })
    }

    /// `(B, latent_channels, h, w)` → `(B, out_channels, f·h, f·w)`.
    pub(super) fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let mut h = self.mid.forward(&self.conv_in.forward(latents)?)?;
        for level in &self.levels {
            h = level.forward(&h)?;
            if let Some(up) = &level.resample {
                h = up.forward(&h)?;
            }
        }
        self.head.forward(&h)
    }
}

/// First and last number of a list; 0 for an empty one, which the first convolution then refuses.
fn ends(channels: &[usize]) -> (usize, usize) {
    (channels.first().copied().unwrap_or(0), channels.last().copied().unwrap_or(0))
}
