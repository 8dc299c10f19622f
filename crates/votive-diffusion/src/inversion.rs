//! From clean latents to the noise that leads to them: DDIM run backwards to each sample's own timestep.
//!
//! Sources: InPO, "Inversion preference optimization", arXiv:2503.18454; the inverse of DDIM's step, Song et al. 2021,
//! arXiv:2010.02502, section 4.3; refinement, Garibi et al. 2024, "ReNoise", arXiv:2403.14602, as SmPO uses it.
//! Where the network's noise is ε̂, a step from the level s to the noisier t is
//! `z_t = (√ᾱ_t/√ᾱ_s) z_s + (√(1−ᾱ_t) − √ᾱ_t √(1−ᾱ_s)/√ᾱ_s) ε̂`.
//! Checked against: diffusers 0.42.1, `DDIMInverseScheduler`, on the grid that both have.
//! Departures from InPO's published code: the grid ends at the sample's own timestep and not up to a step before it; a
//! timestep of 0 is a step like any other; the perturbation's variance is never looked up outside the schedule; and a
//! prediction of velocity is read at the timestep that the network was told, so that a network gives the same whether
//! it predicts noise or velocity (diffusers reads it at the level that the latents come from).

use candle_core::{Device, Tensor};
use votive_tensor::random::{Draws, Stream};

use crate::error::{DiffusionError, Result};
use crate::guidance::DenoiseFn;
use crate::linear::{same_dims, weighted_rows};
use crate::noise::InversionPlan;
use crate::schedule::NoiseSchedule;

/// What is inverted. B rows, each on its own.
pub struct InversionInputs<'a> {
    /// Clean latents `(B,C,H,W)`.
    pub latents: &'a Tensor,
    /// Noise `(B,C,H,W)` that was drawn for them, which a plan of 0 steps keeps.
    pub noise: &'a Tensor,
    /// Where each row is to end.
    pub timesteps: &'a [usize],
    /// The prompts' embeddings `(B,S,D)`.
    pub prompt_embeds: &'a Tensor,
    /// Seed of the perturbation.
    pub seed: u64,
    /// The training step, which keys the perturbation.
    pub step: u64,
    /// A number for each row, which keys its perturbation: the two rows of a pair need two.
    pub rows: &'a [u64],
}

/// Latents at their timesteps, with the noise that is in them.
#[derive(Clone, Debug)]
pub struct Inverted {
    /// `z_t (B,C,H,W)`, where the inversion ended.
    pub noisy: Tensor,
    /// `ε* = (z_t − √ᾱ_t z₀)/√(1−ᾱ_t)`: with it, adding noise to the clean latents gives `noisy`.
    pub noise: Tensor,
}

/// One step of one row.
#[derive(Clone, Copy, Debug)]
struct GridStep {
    /// What the network is told: where the step ends.
    timestep: usize,
    /// Weights of the latents and of the noise in the latents after the step.
    weights: (f64, f64),
    /// √ᾱ and √(1−ᾱ) where the step ends.
    end: (f64, f64),
    /// Standard deviation under η = 1 of the DDIM step that would come back here from the grid's next level.
    spread: f64,
}

impl InversionPlan {
    /// Runs DDIM backwards from each row's clean latents to its timestep, in the same number of steps for all rows.
    ///
    /// The grid of a row divides 0..=t evenly, so that its last level is t. With more steps than there are timesteps
    /// some steps are empty. Nothing has a gradient.
    ///
    /// # Errors
    /// As [`InversionPlan::check`]; [`DiffusionError::Shape`], [`DiffusionError::Timestep`]; [`DiffusionError::Network`].
    pub fn invert(
        self,
        schedule: &NoiseSchedule,
        network: &DenoiseFn,
        inputs: &InversionInputs,
    ) -> Result<Inverted> {
        self.check(schedule)?;
        inputs.check()?;
        let (clean, timesteps) = (inputs.latents.detach(), inputs.timesteps);
        if self.steps == 0 {
            let noise = inputs.noise.detach();
            return Ok(Inverted { noisy: schedule.add_noise(&clean, &noise, timesteps)?, noise });
        }
        let grids = timesteps.iter().map(|t| self.grid(schedule, *t)).collect::<Result<Vec<_>>>()?;
        let draw = |row: &u64| Draws::new(inputs.seed, Stream::Inversion, inputs.step, *row);
        let mut draws: Vec<Draws> = inputs.rows.iter().map(draw).collect();
        let predict = |latents: &Tensor, grid: &[GridStep]| {
            predicted_noise(schedule, network, inputs.prompt_embeds, latents, grid)
        };
        let mut latents = clean.clone();
        for index in 0..self.steps {
            let grid: Vec<GridStep> = grids.iter().filter_map(|row| row.get(index)).copied().collect();
            latents = self.step(&latents, &grid, &predict)?;
            latents = self.perturbed(&latents, &grid, &mut draws)?;
        }
        let implied = |t: &usize| {
            let (alpha, sigma) = level(schedule, Some(*t))?;
            Ok((sigma.recip(), -alpha / sigma))
        };
        let weights = timesteps.iter().map(implied).collect::<Result<Vec<_>>>()?;
        Ok(Inverted { noise: weighted_rows(&weights, &latents, &clean)?, noisy: latents })
    }

    /// The steps of a row that ends at `timestep`.
    fn grid(self, schedule: &NoiseSchedule, timestep: usize) -> Result<Vec<GridStep>> {
        let width = (timestep + 1) as f64 / self.steps as f64;
        let last = schedule.num_train_timesteps() - 1;
        // Level i; level 0 is that of the clean latents, one before timestep 0.
        let at = |i: usize| ((i as f64 * width).round_ties_even() as usize).checked_sub(1);
        let step = |i: usize| {
            let timestep = at(i + 1).unwrap_or(0);
            let ((alpha_from, sigma_from), end) = (level(schedule, at(i))?, level(schedule, at(i + 1))?);
            let (_, sigma_next) = level(schedule, at(i + 2).map(|t| t.min(last)))?;
            let kept = end.0 / alpha_from;
            Ok(GridStep {
                timestep,
                weights: (kept, end.1 - kept * sigma_from),
                end,
                spread: spread(end, sigma_next),
            })
        };
        (0..self.steps).map(step).collect()
    }

    /// One step, taken again as often as the plan says with the mean of the last two estimates of the noise.
    fn step(
        self,
        latents: &Tensor,
        grid: &[GridStep],
        predict: &impl Fn(&Tensor, &[GridStep]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let weights: Vec<(f64, f64)> = grid.iter().map(|step| step.weights).collect();
        let mut before = predict(latents, grid)?;
        let mut next = weighted_rows(&weights, latents, &before)?;
        for _ in 0..self.refinements {
            let again = predict(&next, grid)?;
            next = weighted_rows(&weights, latents, &((&before + &again)? * 0.5)?)?;
            before = again;
        }
        Ok(next)
    }

    fn perturbed(self, latents: &Tensor, grid: &[GridStep], draws: &mut [Draws]) -> Result<Tensor> {
        if self.perturbation == 0.0 {
            return Ok(latents.clone());
        }
        let per_row = latents.dims().iter().skip(1).product();
        let values: Vec<f32> = draws.iter_mut().flat_map(|draws| draws.normals(per_row)).collect();
        let noise = Tensor::from_vec(values, latents.shape(), &Device::Cpu)?;
        let noise = noise.to_dtype(latents.dtype())?.to_device(latents.device())?;
        let weights: Vec<(f64, f64)> =
            grid.iter().map(|step| (1.0, self.perturbation * step.spread)).collect();
        weighted_rows(&weights, latents, &noise)
    }
}

impl InversionInputs<'_> {
    fn check(&self) -> Result<()> {
        same_dims("latents and their noise", self.latents, self.noise)?;
        let rows = self.latents.dims().first().copied().unwrap_or(0);
        for (what, found) in [
            ("timesteps, one per row of the latents", self.timesteps.len()),
            ("row numbers, one per row of the latents", self.rows.len()),
        ] {
            if found != rows {
                return Err(DiffusionError::shape(what, rows, found));
            }
        }
        Ok(())
    }
}

/// √ᾱ and √(1−ᾱ) at a timestep, or of clean latents.
fn level(schedule: &NoiseSchedule, timestep: Option<usize>) -> Result<(f64, f64)> {
    let alpha_bar = timestep.map_or(Ok(1.0), |t| schedule.alpha_bar(t))?;
    Ok((alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()))
}

/// `√((1−ᾱ_p)/(1−ᾱ_t) (1 − ᾱ_t/ᾱ_p))` of a DDIM step from the noise level √(1−ᾱ_t) = `sigma` to the level `end`.
fn spread(end: (f64, f64), sigma: f64) -> f64 {
    let (kept, noisier) = (end.0 * end.0, sigma * sigma);
    if noisier == 0.0 || kept == 0.0 {
        return 0.0;
    }
    (end.1 * end.1 / noisier * (1.0 - (1.0 - noisier) / kept)).max(0.0).sqrt()
}

/// The noise that the network sees in latents which it is told to be at the ends of the steps.
fn predicted_noise(
    schedule: &NoiseSchedule,
    network: &DenoiseFn,
    prompt_embeds: &Tensor,
    latents: &Tensor,
    grid: &[GridStep],
) -> Result<Tensor> {
    let times: Vec<f64> = grid.iter().map(|step| step.timestep as f64).collect();
    let timestep = times.first().copied().unwrap_or(0.0);
    let pred = network(latents, &times, prompt_embeds)
        .map_err(|source| DiffusionError::Network { timestep, source })?;
    same_dims("the network's prediction, shaped like the latents", latents, &pred)?;
    let kind = schedule.prediction_type();
    let weights: Vec<(f64, f64)> =
        grid.iter().map(|step| kind.noise_weights(step.end.0, step.end.1)).collect();
    weighted_rows(&weights, latents, &pred.detach())
}
