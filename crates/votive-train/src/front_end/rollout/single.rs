//! Pictures that are compared with nothing: the gradient of a reward goes through their pixels into the network.
//!
//! Source: ReFL, Xu et al., "ImageReward", arXiv:2304.05977, Algorithm 1: denoise without a gradient to a random late step, predict the
//! clean picture from there with one, `loss = λ·φ(r)`, `φ(r) = max(0, 2 − r)` in the authors' code. Here the log-probability is
//! `min(r, enough)`; its negative, which `sft` minimises, is φ less a constant, and λ is the objective's weight.
//! Checked against: `ImageReward/ReFL.py` of THUDM/ImageReward, whose network is asked at the step's number in place of its time;
//! here it is asked at its time. Departure: the loss of the pictures that the network was pretrained on is left out, as in that code.

use super::chain::Chain;
use crate::error::Result;
use crate::front_end::Likelihood;
use candle_core::Tensor;

/// Latents before a step, without a gradient.
pub(super) fn draw(chain: &Chain, seeds: &[u64], step: usize) -> Result<Tensor> {
    chain.walk(chain.first_latents(seeds)?, seeds, 0..step)
}

/// The reward of the pictures that the network predicts from there.
pub(super) fn likelihood(
    chain: &Chain,
    latents: &Tensor,
    step: usize,
    enough: Option<f64>,
) -> Result<Likelihood> {
    let rewards = chain.tracked_scores(&chain.clean(latents, step)?)?;
    let logps = match enough {
        None => rewards.clone(),
        Some(enough) => rewards.minimum(enough)?,
    };
    Ok(Likelihood { rewards: Some(rewards), ..Likelihood::new(logps) })
}
