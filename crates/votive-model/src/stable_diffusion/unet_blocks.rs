//! The U-Net's blocks: one resolution on the way down or up, and the middle.

use super::resnet::{Downsample, ResnetBlock, ResnetConfig, Upsample};
use super::transformer::{Transformer2d, TransformerConfig};
use super::unet_config::{UNetConfig, UNetLevel};
use crate::error::Result;
use crate::params::Scope;
use candle_core::Tensor;

/// What every block is conditioned on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition<'a> {
    /// The activated time embedding, `(B, width)`.
    pub(super) time: &'a Tensor,
    /// The prompt, `(B, S, D)`.
    pub(super) prompt: &'a Tensor,
}

fn resnet_config(config: &UNetConfig, time_width: usize, scale: f64) -> ResnetConfig {
    ResnetConfig { groups: config.norm_num_groups, eps: config.norm_eps, time_width: Some(time_width), scale }
}

fn transformer(
    scope: &Scope,
    (i, layers): (usize, usize),
    level: &UNetLevel,
    config: &UNetConfig,
) -> Result<Transformer2d> {
    let sizes = TransformerConfig {
        channels: level.channels,
        heads: level.heads,
        layers,
        context: config.cross_attention_dim,
        groups: config.norm_num_groups,
        linear_projection: config.use_linear_projection,
    };
    Transformer2d::new(&scope.sub("attentions").sub(i), &sizes)
}

/// A residual block, and attention where its level has it.
#[derive(Clone, Debug)]
struct Layer {
    resnet: ResnetBlock,
    attention: Option<Transformer2d>,
}

impl Layer {
    fn forward(&self, x: &Tensor, condition: Condition) -> Result<Tensor> {
        let h = self.resnet.forward(x, Some(condition.time))?;
        match &self.attention {
            Some(attention) => attention.forward(&h, condition.prompt),
            None => Ok(h),
        }
    }
}

/// `DownBlock2D` or `CrossAttnDownBlock2D`.
#[derive(Clone, Debug)]
pub(super) struct DownBlock {
    layers: Vec<Layer>,
    downsample: Option<Downsample>,
}

impl DownBlock {
    pub(super) fn new(scope: &Scope, index: usize, config: &UNetConfig, time_width: usize) -> Result<Self> {
        let level = &config.levels[index];
        let first = if index == 0 { level.channels } else { config.levels[index - 1].channels };
        let resnets = resnet_config(config, time_width, 1.0);
        let layer = |i: usize| {
            let ins = if i == 0 { first } else { level.channels };
            let attention = || transformer(scope, (i, level.down_transformers.at(i)), level, config);
            Ok(Layer {
                resnet: ResnetBlock::new(&scope.sub("resnets").sub(i), ins, level.channels, resnets)?,
                attention: level.down_attention.then(attention).transpose()?,
            })
        };
        let downsample =
            || Downsample::new(&scope.sub("downsamplers.0"), level.channels, config.downsample_padding);
        let is_last = index + 1 == config.levels.len();
        Ok(Self {
            layers: (0..level.layers).map(layer).collect::<Result<_>>()?,
            downsample: (!is_last).then(downsample).transpose()?,
        })
    }

    /// Leaves every intermediate result in `skips`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        condition: Condition,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        let mut h = x.clone();
        for layer in &self.layers {
            h = layer.forward(&h, condition)?;
            skips.push(h.clone());
        }
        if let Some(downsample) = &self.downsample {
            h = downsample.forward(&h)?;
            skips.push(h.clone());
        }
        Ok(h)
    }
}

/// `UNetMidBlock2DCrossAttn`.
#[derive(Clone, Debug)]
pub(super) struct MidBlock {
    before: Layer,
    after: ResnetBlock,
}

impl MidBlock {
    pub(super) fn new(
        scope: &Scope,
        config: &UNetConfig,
        level: &UNetLevel,
        time_width: usize,
    ) -> Result<Self> {
        let resnets = resnet_config(config, time_width, config.mid_block_scale_factor);
        let resnet = |i: usize| {
            ResnetBlock::new(&scope.sub("resnets").sub(i), level.channels, level.channels, resnets)
        };
        let attention = Some(transformer(scope, (0, level.down_transformers.at(0)), level, config)?);
        Ok(Self { before: Layer { resnet: resnet(0)?, attention }, after: resnet(1)? })
    }

    pub(super) fn forward(&self, x: &Tensor, condition: Condition) -> Result<Tensor> {
        self.after.forward(&self.before.forward(x, condition)?, Some(condition.time))
    }
}

/// `UpBlock2D` or `CrossAttnUpBlock2D`.
#[derive(Clone, Debug)]
pub(super) struct UpBlock {
    layers: Vec<Layer>,
    upsample: Option<Upsample>,
}

impl UpBlock {
    /// The block on the way up at level `index`, counted from full resolution as on the way down.
    pub(super) fn new(scope: &Scope, index: usize, config: &UNetConfig, time_width: usize) -> Result<Self> {
        let level = &config.levels[index];
        let channels = |i: usize| config.levels.get(i).map_or(level.channels, |level| level.channels);
        // The last skip of a level is what its first residual block got, with the channels of the level above.
        let (below, above) = (channels(index + 1), channels(index.saturating_sub(1)));
        let resnets = resnet_config(config, time_width, 1.0);
        let layer = |i: usize| {
            let own = if i == 0 { below } else { level.channels };
            let skip = if i == level.layers { above } else { level.channels };
            let attention = || transformer(scope, (i, level.up_transformers.at(i)), level, config);
            Ok(Layer {
                resnet: ResnetBlock::new(&scope.sub("resnets").sub(i), own + skip, level.channels, resnets)?,
                attention: level.up_attention.then(attention).transpose()?,
            })
        };
        let upsample = || Upsample::new(&scope.sub("upsamplers.0"), level.channels);
        Ok(Self {
            layers: (0..=level.layers).map(layer).collect::<Result<_>>()?,
            upsample: (index > 0).then(upsample).transpose()?,
        })
    }

    /// Takes its skip connections off the end of `skips`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        condition: Condition,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        let own = skips.split_off(skips.len().saturating_sub(self.layers.len()));
        let mut h = x.clone();
        for (layer, skip) in self.layers.iter().zip(own.iter().rev()) {
            h = layer.forward(&Tensor::cat(&[&h, skip], 1)?, condition)?;
        }
        match (&self.upsample, skips.last()) {
            (Some(upsample), Some(next)) => {
                let (_, _, height, width) = next.dims4()?;
                upsample.forward_to(&h, (height, width))
            }
            _ => Ok(h),
        }
    }
}
