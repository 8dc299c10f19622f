//! Pseudo linear multistep (PLMS), the form of PNDM that Stable Diffusion 1.x is published with.
//!
//! Source: Liu et al. 2022, arXiv:2202.09778: Eq. 9 for the step and Eq. 12 for the mean of the last four
//! predictions, `(55 e₁ − 59 e₂ + 37 e₃ − 9 e₄)/24`. Until four are there, lower orders; the first step is taken twice,
//! the second time with the mean of the predictions at both its ends.
//! Checked against: diffusers 0.42.1, `PNDMScheduler` with `skip_prk_steps`.
//! Departures: the warm-up by Runge-Kutta (`skip_prk_steps` false), which no latent model uses, is refused; and from an
//! image, the first remaining step is the one that is taken twice, where diffusers repeats whichever comes second in a
//! list that it cut off.

use candle_core::Tensor;

use super::{Sampler, SamplerKind, StepNoise, at_step, check_prediction, checked_timesteps};
use crate::config::SchedulerConfig;
use crate::error::Result;
use crate::linear::weighted_sum;
use crate::prediction::PredictionType;
use crate::spacing::TimestepSpacing;

/// Weights of the newest prediction and those before it, by how many there are.
const WEIGHTS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// A network call: where it looks, and from which ᾱ to which the latents go.
#[derive(Clone, Copy, Debug)]
struct Call {
    timestep: f64,
    alpha_bar: f64,
    previous: f64,
}

/// PLMS; deterministic. One network call more than steps.
#[derive(Clone, Debug)]
pub struct Pndm {
    timesteps: Vec<f64>,
    calls: Vec<Call>,
    /// Each step taken once, and the second call of the first, by which steps become calls.
    steps: Vec<(Call, Option<Call>)>,
    prediction_type: PredictionType,
    /// The newest predictions, newest first.
    predictions: Vec<Tensor>,
    /// The latents that the first step starts from.
    start: Option<Tensor>,
}

impl Pndm {
    /// PLMS with `steps` steps.
    ///
    /// # Errors
    /// As [`SamplerKind::build`].
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        if !config.flag("skip_prk_steps", true)? {
            return Err(
                config.refuse("skip_prk_steps", "true (the warm-up by Runge-Kutta is not implemented)")
            );
        }
        let schedule = super::schedule_to_sample(SamplerKind::Pndm, config, steps)?;
        let count = schedule.num_train_timesteps();
        let spacing = config.choice("timestep_spacing", TimestepSpacing::NAMES, TimestepSpacing::Leading)?;
        let timesteps = spacing.timesteps(count, steps, config.count("steps_offset", 0)?);
        let timesteps = checked_timesteps(SamplerKind::Pndm, timesteps, count, steps)?;
        let last = schedule.alpha_bar(0)?;
        let last = if config.flag("set_alpha_to_one", false)? { 1.0 } else { last };
        let width = count / steps;
        let step = |timestep: &f64| {
            let t = *timestep as usize;
            schedule.check_signal(t)?;
            let call = |from: usize| -> Result<Call> {
                let previous = from.checked_sub(width).map_or(Ok(last), |p| schedule.alpha_bar(p))?;
                Ok(Call { timestep: *timestep, alpha_bar: schedule.alpha_bar(from)?, previous })
            };
            // The second call of the step before looks here and takes that step again.
            Ok((call(t)?, call(t + width).ok()))
        };
        let steps = timesteps.iter().map(step).collect::<Result<Vec<_>>>()?;
        let prediction_type = schedule.prediction_type();
        let mut pndm = Self {
            timesteps: Vec::new(),
            calls: Vec::new(),
            steps,
            prediction_type,
            predictions: Vec::new(),
            start: None,
        };
        pndm.list_calls();
        Ok(pndm)
    }

    /// Puts the second call of the first step behind it.
    fn list_calls(&mut self) {
        let again = self.steps.get(1).and_then(|(_, again)| *again);
        let (first, rest) = self.steps.split_at(1.min(self.steps.len()));
        let once = |step: &(Call, Option<Call>)| step.0;
        self.calls = first.iter().map(once).chain(again).chain(rest.iter().map(once)).collect();
        self.timesteps = self.calls.iter().map(|call| call.timestep).collect();
    }

    /// Whether a call takes the first step again.
    fn is_second_call(&self, step_idx: usize) -> bool {
        step_idx == 1 && self.steps.len() > 1 && self.calls.len() > self.steps.len()
    }
}

impl Sampler for Pndm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn skip(&mut self, steps: usize) {
        self.steps.drain(..steps.min(self.steps.len()));
        self.list_calls();
    }

    fn noised(&self, latents: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let alpha_bar = at_step(&self.calls, 0)?.alpha_bar;
        weighted_sum(&[(alpha_bar.sqrt(), latents), ((1.0 - alpha_bar).sqrt(), noise)])
    }

    fn step(
        &mut self,
        model_pred: &Tensor,
        step_idx: usize,
        latents: &Tensor,
        _noise: &StepNoise,
    ) -> Result<Tensor> {
        check_prediction(model_pred, latents)?;
        let call = *at_step(&self.calls, step_idx)?;
        if step_idx == 0 {
            self.predictions.clear();
            self.start = Some(latents.clone());
        }
        if self.is_second_call(step_idx)
            && let (Some(start), Some(first)) = (self.start.take(), self.predictions.first())
        {
            let pred = weighted_sum(&[(0.5, model_pred), (0.5, first)])?;
            return transferred(self.prediction_type, call, &start, &pred);
        }
        self.predictions.insert(0, model_pred.clone());
        self.predictions.truncate(WEIGHTS.len());
        let weights = WEIGHTS[self.predictions.len() - 1];
        let terms: Vec<(f64, &Tensor)> = weights.iter().copied().zip(&self.predictions).collect();
        transferred(self.prediction_type, call, latents, &weighted_sum(&terms)?)
    }
}

/// Eq. 9, which is DDIM's step: to the level `previous` along the predicted noise.
fn transferred(kind: PredictionType, call: Call, latents: &Tensor, pred: &Tensor) -> Result<Tensor> {
    let (alpha, sigma) = (call.alpha_bar.sqrt(), (1.0 - call.alpha_bar).sqrt());
    let (clean, noise) = (kind.clean_weights(alpha, sigma), kind.noise_weights(alpha, sigma));
    let (of_clean, of_noise) = (call.previous.sqrt(), (1.0 - call.previous).sqrt());
    weighted_sum(&[
        (of_clean * clean.0 + of_noise * noise.0, latents),
        (of_clean * clean.1 + of_noise * noise.1, pred),
    ])
}
