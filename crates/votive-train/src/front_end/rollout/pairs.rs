//! Pairs of denoising steps: what the policy draws more than once, and which of it is better.
//!
//! Sources: D3PO, Yang et al., arXiv:2311.13231 (two pictures of a prompt, compared at the end); SPO, Liang et al.,
//! arXiv:2406.04314, and TailorPO, Ren et al., arXiv:2502.01667 (candidates from one `x_t`, compared by what each leads to; its
//! TailorPO-G moves the better one along the reward's gradient).
//! Departures: D3PO and SPO collect many steps of a chain before they train on them; here each optimizer step has chains of its own,
//! up to one denoising step, drawn for the whole batch. So what a step sees is a function of the policy, the seed and the step, and
//! nothing is to be kept for a resume. How far TailorPO-G moves a candidate could not be confirmed, and a reward's gradient has no
//! scale of its own; here the way is given in units of the step's noise, which is a guess.

use super::chain::{Chain, time};
use super::{RolloutPairs, RolloutSettings};
use crate::error::Result;
use candle_core::{Tensor, Var};

/// One denoising step of every pair.
pub(super) struct DrawnPairs {
    /// `x_t`: of each pair, or of chosen and then rejected where these are of two chains.
    pub(super) latents: Tensor,
    /// What followed, `(2B, C, h, w)`, chosen first.
    pub(super) next: Tensor,
    pub(super) chosen_scores: Vec<f64>,
    pub(super) rejected_scores: Vec<f64>,
    /// Whether the scores are far enough apart.
    pub(super) kept: Vec<bool>,
}

/// Latents before and after a step, and the score of where that led.
struct Candidate {
    latents: Tensor,
    next: Tensor,
    scores: Vec<f64>,
}

/// Draws candidates of a step and compares them; `seeds` are those of each row's chains, one or two a row.
pub(super) fn draw(
    chain: &Chain,
    settings: &RolloutSettings,
    seeds: &[Vec<u64>],
    step: usize,
) -> Result<DrawnPairs> {
    let mut candidates = Vec::new();
    let mut noise = 0.0;
    for seeds in seeds {
        match settings.pairs {
            RolloutPairs::Steps => {
                let (own, std) = step_candidates(chain, settings, seeds, step)?;
                candidates.extend(own);
                noise = std;
            }
            RolloutPairs::Images | RolloutPairs::None => {
                candidates.push(whole_chain(chain, settings, seeds, step)?)
            }
        }
    }
    let mut pairs = best_and_worst(settings, &candidates)?;
    if settings.ascent > 0.0 {
        pairs.next = pushed(chain, &pairs, step, settings.ascent * noise)?;
    }
    Ok(pairs)
}

/// Draws from one `x_t`, each scored by the clean latents that the network then predicts; and the step's standard
/// deviation.
fn step_candidates(
    chain: &Chain,
    settings: &RolloutSettings,
    seeds: &[u64],
    step: usize,
) -> Result<(Vec<Candidate>, f64)> {
    let latents = chain.walk(chain.first_latents(seeds)?, seeds, 0..step)?;
    let sampler = &chain.front.sampler;
    let prediction = chain.guidance.predict(&latents, time(sampler, step))?;
    let distribution = sampler.distribution(&prediction, step, &latents)?;
    let scored = |next: Tensor| {
        let clean = chain.clean(&next, step + 1)?;
        Ok(Candidate { latents: latents.clone(), scores: chain.scores(&clean)?, next })
    };
    let drawn = distribution.draw(seeds, settings.candidates)?;
    Ok((drawn.into_iter().map(scored).collect::<Result<_>>()?, distribution.std))
}

/// One step of a whole chain, scored by the picture at its end.
fn whole_chain(chain: &Chain, settings: &RolloutSettings, seeds: &[u64], step: usize) -> Result<Candidate> {
    let latents = chain.walk(chain.first_latents(seeds)?, seeds, 0..step)?;
    let next = chain.walk(latents.clone(), seeds, step..step + 1)?;
    let end = chain.walk(next.clone(), seeds, step + 1..settings.steps)?;
    Ok(Candidate { latents, next, scores: chain.scores(&end)? })
}

/// The best and the worst candidate of every row.
fn best_and_worst(settings: &RolloutSettings, candidates: &[Candidate]) -> Result<DrawnPairs> {
    let rows = candidates.first().map_or(0, |candidate| candidate.scores.len());
    let (mut chosen, mut rejected, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows {
        // The first of equals, so that the choice depends on nothing but the scores.
        let (mut best, mut worst) = (0, 0);
        for (i, candidate) in candidates.iter().enumerate() {
            if candidate.scores[row] > candidates[best].scores[row] {
                best = i;
            }
            if candidate.scores[row] < candidates[worst].scores[row] {
                worst = i;
            }
        }
        let gap = candidates[best].scores[row] - candidates[worst].scores[row];
        kept.push(gap > settings.min_gap);
        chosen.push(best);
        // Against itself a completion has no gradient, and the rows stay what the loss is divided by.
        rejected.push(if gap > settings.min_gap { worst } else { best });
    }
    let pick = |part: fn(&Candidate) -> &Tensor| -> Result<Tensor> {
        let side = |side: &[usize]| -> Result<Vec<Tensor>> {
            side.iter().enumerate().map(|(row, i)| Ok(part(&candidates[*i]).get(row)?)).collect()
        };
        Ok(Tensor::stack(&[side(&chosen)?, side(&rejected)?].concat(), 0)?)
    };
    let scores = |side: &[usize]| {
        side.iter().enumerate().map(|(row, i)| candidates[*i].scores[row]).collect::<Vec<f64>>()
    };
    let latents = match (settings.pairs, candidates.first()) {
        (RolloutPairs::Steps, Some(first)) => first.latents.clone(),
        _ => pick(|candidate| &candidate.latents)?,
    };
    let next = pick(|candidate| &candidate.next)?;
    let (chosen_scores, rejected_scores) = (scores(&chosen), scores(&rejected));
    Ok(DrawnPairs { latents, next, chosen_scores, rejected_scores, kept })
}

/// What followed the step, with the better side of every kept pair moved along the gradient of its score: as far as a
/// draw of the deviation `way` is on average.
fn pushed(chain: &Chain, pairs: &DrawnPairs, step: usize, way: f64) -> Result<Tensor> {
    let rows = pairs.kept.len();
    let chosen = Var::from_tensor(&pairs.next.narrow(0, 0, rows)?.contiguous()?)?;
    let scores = chain.tracked_scores(&chain.clean(&chosen, step + 1)?)?;
    let gradients = scores.sum_all()?.backward()?;
    let rejected = pairs.next.narrow(0, rows, rows)?;
    let Some(gradient) = gradients.get(&chosen) else { return Ok(pairs.next.clone()) };
    let gradient = gradient.detach();
    let mean_squares = gradient.sqr()?.flatten_from(1)?.mean(1)?.to_vec1::<f32>()?;
    // A pair that is not kept is of a candidate with itself, and stays that.
    let scale = |(square, kept): (f32, &bool)| {
        if *kept && square > 0.0 { (way / f64::from(square).sqrt()) as f32 } else { 0.0 }
    };
    let scales: Vec<f32> = mean_squares.into_iter().zip(&pairs.kept).map(scale).collect();
    let scales = Tensor::from_vec(scales, (rows, 1, 1, 1), gradient.device())?;
    let moved = (chosen.detach() + gradient.broadcast_mul(&scales)?)?;
    Ok(Tensor::cat(&[&moved, &rejected], 0)?)
}
