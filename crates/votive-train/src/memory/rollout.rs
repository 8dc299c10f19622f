//! Buffers of a policy that draws pictures itself: chains that keep nothing, and the step of them that is trained.

use super::image::{BACKWARD, Counter, FORWARD};
use super::{Activations, FLOAT, Footprint, Part, folder_bytes, runs_reference};
use crate::front_end::{RolloutFrontEnd, RolloutPairs};
use crate::plan::Plan;
use votive_model::Params;
use votive_model::stable_diffusion::{AutoencoderKl, Component, VaeConfig};
use votive_objective::Needs;

/// Numbers a channel that the autoencoder's attention keeps for every pixel: norm, sequence, three projections, mix, way
/// out, image, sum.
const ATTENTION: u64 = 9;

impl Footprint for RolloutFrontEnd {
    fn activations(&self, plan: &Plan, _: &Params, rows: usize) -> Activations {
        let settings = self.settings();
        let config = self.pipeline().folder().unet_config();
        let vae = self.pipeline().folder().vae_config();
        let pixels = u64::from(settings.resolution);
        let side = pixels / vae.downscale().max(1) as u64;
        // Guidance asks of both prompts; two chains are two of each.
        let guided = if settings.cfg > 1.0 { 2 } else { 1 };
        let chains = if settings.pairs == RolloutPairs::Images { 2 } else { 1 };
        let (drawn, trained) = (guided * rows as u64, guided * chains * rows as u64);
        let unet = |batch| {
            let mut counter = Counter { config, batch, prompt: self.prompt_tokens() as u64, floats: 0 };
            counter.whole((side, side))
        };
        let scored = |rows: u64| decoder(vae, (side, side)) * rows + self.reward().footprint().kept * rows;
        let mut kept = vec![Part { name: "activations of the U-Net", bytes: FLOAT * unet(trained) }];
        if settings.pairs == RolloutPairs::None {
            kept.push(Part {
                name: "activations of autoencoder and reward",
                bytes: FLOAT * scored(rows as u64),
            });
        }
        let first = config.levels.first().map_or(0, |level| level.channels) as u64;
        let decoding = (rows * pixels as usize * pixels as usize)
            .min(AutoencoderKl::pixels_at_once((pixels * pixels) as usize)) as u64;
        let widest = vae.block_out_channels.first().copied().unwrap_or(0) as u64;
        // Drawing comes before anything is kept, but its pictures' memory is not given back to others.
        let drawing = (FORWARD * first * side * side * drawn).max(FORWARD * widest * decoding);
        // A candidate that is moved along its reward's gradient needs the graph of that.
        let moving = if settings.ascent > 0.0 { unet(drawn) + scored(rows as u64) } else { 0 };
        let reference = if runs_reference(plan) { FORWARD * first * side * side * trained } else { 0 };
        let backward = BACKWARD * first * side * side * trained;
        let has_divergence = plan.objective.needs().contains(Needs::KL);
        let all = trained / rows.max(1) as u64 * plan.train.batch_size as u64;
        let divergence = if has_divergence { FORWARD * first * side * side * all } else { 0 };
        Activations {
            kept,
            passing: FLOAT * drawing.max(reference).max(backward),
            divergence: FLOAT * divergence.max(moving),
        }
    }

    fn data_bytes(&self) -> u64 {
        let vae = folder_bytes(&self.pipeline().folder().root().join("vae"));
        FLOAT * self.numbers_in_memory() as u64 + vae + self.reward().footprint().weights
    }

    fn preparing(&self) -> u64 {
        let folder = self.pipeline().folder();
        let frozen = folder.class().components().iter().filter(|part| **part != Component::UNet);
        2 * frozen.map(|part| folder_bytes(&folder.root().join(part.folder()))).sum::<u64>()
    }
}

/// Numbers that the decoder of an autoencoder keeps of latents of a size.
fn decoder(config: &VaeConfig, latents: (u64, u64)) -> u64 {
    let channels: Vec<u64> =
        config.block_out_channels.iter().rev().map(|channels| *channels as u64).collect();
    let resnet = |ins: u64, outs: u64| 2 * ins + 6 * outs + if ins == outs { 0 } else { outs };
    let first = channels.first().copied().unwrap_or(0);
    let attention = if config.mid_block_add_attention { ATTENTION * first } else { 0 };
    let mut area = latents.0 * latents.1;
    let mut floats = area * (first + 2 * resnet(first, first) + attention);
    let mut ins = first;
    for (level, outs) in channels.iter().enumerate() {
        for layer in 0..=config.layers_per_block {
            floats += area * resnet(if layer == 0 { ins } else { *outs }, *outs);
        }
        ins = *outs;
        if level + 1 < channels.len() {
            area *= 4;
            // The doubled image and its convolution.
            floats += 2 * area * outs;
        }
    }
    // The last norm with its activation, and the picture with what is made of it.
    floats + area * (2 * ins + 4 * config.out_channels as u64)
}
