//! Buffers of Stable Diffusion's U-Net, and of the autoencoder that makes its latents.

use super::{Activations, FLOAT, Footprint, Part, folder_bytes, runs_reference};
use crate::front_end::{DenoisingFrontEnd, ENCODE_BATCH};
use crate::plan::Plan;
use votive_model::Params;
use votive_model::stable_diffusion::{AutoencoderKl, Component, UNetConfig};
use votive_objective::Needs;

/// Numbers a channel that a transformer block keeps for every pixel: three norms, seven projections of attention to the
/// image and to the prompt, two mixes, three sums, the feed-forward's 8, its halves once more, its product and way out.
const BLOCK: u64 = 33;
/// The same for the transformer around its blocks: norm, sequence, way in, way out, image, sum.
const AROUND: u64 = 6;
/// Channels of a pixel, in widths of a block, whose gradients live at a time in a backward.
pub(super) const BACKWARD: u64 = 16;
/// Channels of a pixel, in widths of the first level, that live at a time in a forward that keeps nothing.
pub(super) const FORWARD: u64 = 12;

/// Adds up what the U-Net keeps.
pub(super) struct Counter<'a> {
    pub(super) config: &'a UNetConfig,
    /// Images at once.
    pub(super) batch: u64,
    /// Tokens of a prompt.
    pub(super) prompt: u64,
    pub(super) floats: u64,
}

impl Counter<'_> {
    fn add(&mut self, floats_a_pixel: u64, (height, width): (u64, u64)) {
        self.floats += self.batch * height * width * floats_a_pixel;
    }

    /// Two norms with their activations, two convolutions, the sum, and the way around where widths differ.
    fn resnet(&mut self, ins: u64, outs: u64, size: (u64, u64)) {
        let around = if ins == outs { 0 } else { outs };
        self.add(2 * ins + 5 * outs + around, size);
    }

    fn transformer(&mut self, (channels, blocks): (usize, usize), size: (u64, u64)) {
        let (width, blocks) = (channels as u64, blocks as u64);
        self.add((AROUND + BLOCK * blocks) * width, size);
        // Keys and values of the prompt.
        self.floats += self.batch * self.prompt * 2 * width * blocks;
    }

    fn down(&mut self, index: usize, size: (u64, u64)) {
        let level = &self.config.levels[index];
        let above = if index == 0 { level.channels } else { self.config.levels[index - 1].channels };
        for layer in 0..level.layers {
            let ins = if layer == 0 { above } else { level.channels };
            self.resnet(ins as u64, level.channels as u64, size);
            if level.down_attention {
                self.transformer((level.channels, level.down_transformers.at(layer)), size);
            }
        }
    }

    fn up(&mut self, index: usize, size: (u64, u64)) {
        let levels = &self.config.levels;
        let level = &levels[index];
        let channels = |i: usize| levels.get(i).map_or(level.channels, |level| level.channels);
        let (below, above) = (channels(index + 1), channels(index.saturating_sub(1)));
        for layer in 0..=level.layers {
            let own = if layer == 0 { below } else { level.channels };
            let skip = if layer == level.layers { above } else { level.channels };
            let both = (own + skip) as u64;
            self.add(both, size);
            self.resnet(both, level.channels as u64, size);
            if level.up_attention {
                self.transformer((level.channels, level.up_transformers.at(layer)), size);
            }
        }
        if index > 0 {
            // The doubled image and its convolution.
            self.add(2 * level.channels as u64, (2 * size.0, 2 * size.1));
        }
    }

    /// The whole network on latents of a size; the last level's middle has two residual blocks and a transformer.
    pub(super) fn whole(&mut self, latents: (u64, u64)) -> u64 {
        let n = self.config.levels.len();
        let size = |index: usize| (latents.0.div_ceil(1 << index), latents.1.div_ceil(1 << index));
        for index in 0..n {
            self.down(index, size(index));
            if index + 1 < n {
                self.add(self.config.levels[index].channels as u64, size(index + 1));
            }
        }
        if let Some(last) = self.config.levels.last() {
            (0..2).for_each(|_| self.resnet(last.channels as u64, last.channels as u64, size(n - 1)));
            self.transformer((last.channels, last.down_transformers.at(0)), size(n - 1));
        }
        (0..n).rev().for_each(|index| self.up(index, size(index)));
        let first = self.config.levels.first().map_or(0, |level| level.channels) as u64;
        // The way in, the last norm with its activation, and the prediction.
        self.add(3 * first + self.config.out_channels as u64, latents);
        self.floats
    }
}

impl Footprint for DenoisingFrontEnd {
    fn activations(&self, plan: &Plan, params: &Params, rows: usize) -> Activations {
        let (config, side) = (self.pipeline().folder().unet_config(), latent_side(self));
        let (batch, latents) = (2 * rows as u64, (side, side));
        let mut counter = Counter { config, batch, prompt: self.prompt_tokens() as u64, floats: 0 };
        let kept = counter.whole(latents);
        let pixels = latents.0 * latents.1;
        let first = config.levels.first().map_or(0, |level| level.channels) as u64;
        let reference = if runs_reference(plan) { FORWARD * first * pixels * batch } else { 0 };
        let encoding = if self.encodes_on_the_way() { encoder(self) } else { 0 };
        let passing = reference.max(BACKWARD * first * pixels * batch).max(encoding);
        let has_divergence = plan.objective.needs().contains(Needs::KL);
        let all = 2 * plan.train.batch_size as u64 * FORWARD * first * pixels;
        let trained: usize = params.trainable().iter().map(|(_, tensor)| tensor.elem_count()).sum();
        // Parts that go back at the same time have gradients of their own until they are summed.
        let of_parts = if self.is_side_by_side() { 2 * trained as u64 } else { 0 };
        Activations {
            kept: vec![
                Part { name: "activations of the U-Net", bytes: FLOAT * kept },
                Part { name: "gradients of both sides", bytes: FLOAT * of_parts },
            ],
            passing: FLOAT * passing,
            divergence: if has_divergence { FLOAT * all } else { 0 },
        }
    }

    fn data_bytes(&self) -> u64 {
        let vae = if self.encodes_on_the_way() {
            folder_bytes(&self.pipeline().folder().root().join("vae"))
        } else {
            0
        };
        FLOAT * self.numbers_in_memory() as u64 + vae
    }

    fn preparing(&self) -> u64 {
        let frozen =
            self.pipeline().folder().class().components().iter().filter(|part| **part != Component::UNet);
        let files = frozen.map(|part| folder_bytes(&self.pipeline().folder().root().join(part.folder())));
        FLOAT * encoder(self) + 2 * files.sum::<u64>()
    }
}

/// Numbers that live at a time while images go through the autoencoder.
fn encoder(front: &DenoisingFrontEnd) -> u64 {
    let vae = front.pipeline().folder().vae_config();
    let image = front.resolution() * front.resolution();
    let pixels = (ENCODE_BATCH * image).min(AutoencoderKl::pixels_at_once(image)) as u64;
    FORWARD * vae.block_out_channels.first().copied().unwrap_or(0) as u64 * pixels
}

/// Side of the latents.
fn latent_side(front: &DenoisingFrontEnd) -> u64 {
    (front.resolution() / front.pipeline().folder().vae_config().downscale().max(1)) as u64
}
