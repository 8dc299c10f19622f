//! DPM-Solver++, multistep, first and second order (2M).
//!
//! Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2. With `λ = ln(α/σ)`, `h = λ' − λ` and ẑ₀ the predicted
//! latents, `z' = (σ'/σ) z − α'(e^{−h} − 1) (ẑ₀ + ½ D)`, where `D = (ẑ₀ − ẑ₀ of the step before) h/h_before`.
//! Checked against: diffusers 0.42.1, `DPMSolverMultistepScheduler`.

use candle_core::Tensor;

use super::euler::final_sigma;
use super::{Sampler, SamplerKind, StepNoise, at_step, check_prediction, checked_timesteps, drop_first};
use crate::config::SchedulerConfig;
use crate::error::Result;
use crate::linear::weighted_sum;
use crate::prediction::PredictionType;
use crate::schedule::NoiseSchedule;
use crate::spacing::{TimestepSpacing, leading, linspace, trailing};

/// With this many steps or more, `lower_order_final` has no effect.
const MANY_STEPS: usize = 15;

/// How the second-order term is discretised.
#[derive(Clone, Copy, Debug)]
enum SolverType {
    Midpoint,
    Heun,
}

/// The last three belong to other solvers' configurations, for which diffusers falls back to the midpoint.
const SOLVER_TYPES: &[(&str, SolverType)] = &[
    ("midpoint", SolverType::Midpoint),
    ("heun", SolverType::Heun),
    ("logrho", SolverType::Midpoint),
    ("bh1", SolverType::Midpoint),
    ("bh2", SolverType::Midpoint),
];

/// A noise level in the two forms that the solver mixes.
#[derive(Clone, Copy, Debug)]
struct Level {
    alpha: f64,
    sigma: f64,
}

impl Level {
    /// From noise per signal, `σ/α`.
    fn from_ratio(ratio: f64) -> Self {
        let alpha = (ratio * ratio + 1.0).sqrt().recip();
        Self { alpha, sigma: ratio * alpha }
    }

    /// Half the logarithm of the signal-to-noise ratio; infinite without noise.
    fn lambda(self) -> f64 {
        self.alpha.ln() - self.sigma.ln()
    }
}

/// DPM-Solver++ 2M; deterministic.
#[derive(Clone, Debug)]
pub struct DpmSolverPp {
    timesteps: Vec<f64>,
    /// The level of each timestep, then the final one.
    levels: Vec<Level>,
    prediction_type: PredictionType,
    solver_type: SolverType,
    second_order: bool,
    first_order_at_end: bool,
    /// The step before and the latents that it predicted.
    before: Option<(usize, Tensor)>,
}

impl DpmSolverPp {
    /// DPM-Solver++ with `steps` network calls.
    ///
    /// # Errors
    /// As [`SamplerKind::build`].
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let kind = SamplerKind::Dpmpp;
        config.must_be_off(&[
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_lu_lambdas",
        ])?;
        config.choice("algorithm_type", &[("dpmsolver++", ()), ("deis", ())], ())?;
        let schedule = super::schedule_to_sample(kind, config, steps)?;
        let count = schedule.num_train_timesteps();
        let timesteps = checked_timesteps(kind, timesteps(config, &schedule, steps)?, count, steps)?;
        let table = schedule.sigmas();
        let last = final_sigma(config, &schedule)?;
        let ratios = timesteps.iter().filter_map(|t| table.get(*t as usize)).copied().map(f64::from);
        let levels = ratios.chain([last]).map(Level::from_ratio).collect();
        let few_steps = config.flag("lower_order_final", true)? && timesteps.len() < MANY_STEPS;
        let order = config.count("solver_order", 2)?;
        if !(1..=2).contains(&order) {
            return Err(config.refuse("solver_order", "1 or 2"));
        }
        Ok(Self {
            levels,
            prediction_type: schedule.prediction_type(),
            solver_type: config.choice("solver_type", SOLVER_TYPES, SolverType::Midpoint)?,
            second_order: order == 2,
            // Without noise at the end, λ is infinite there and only the first-order step has a limit.
            first_order_at_end: few_steps || config.flag("euler_at_final", false)? || last == 0.0,
            before: None,
            timesteps,
        })
    }

    /// What step `step_idx - 1` predicted, if this step is to use it.
    fn earlier_clean(&self, step_idx: usize) -> Option<&Tensor> {
        let at_end = step_idx + 1 == self.timesteps.len();
        if !self.second_order || (at_end && self.first_order_at_end) {
            return None;
        }
        self.before.as_ref().filter(|(before, _)| before + 1 == step_idx).map(|(_, clean)| clean)
    }
}

impl Sampler for DpmSolverPp {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn skip(&mut self, steps: usize) {
        drop_first(&mut self.timesteps, steps);
        drop_first(&mut self.levels, steps);
    }

    fn noised(&self, latents: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let first = at_step(&self.levels, 0)?;
        weighted_sum(&[(first.alpha, latents), (first.sigma, noise)])
    }

    fn step(
        &mut self,
        model_pred: &Tensor,
        step_idx: usize,
        latents: &Tensor,
        _noise: &StepNoise,
    ) -> Result<Tensor> {
        check_prediction(model_pred, latents)?;
        let (here, next) = (*at_step(&self.levels, step_idx)?, *at_step(&self.levels, step_idx + 1)?);
        let (of_latents, of_pred) = self.prediction_type.clean_weights(here.alpha, here.sigma);
        let clean = weighted_sum(&[(of_latents, latents), (of_pred, model_pred)])?;

        let h = next.lambda() - here.lambda();
        let kept = next.sigma / here.sigma;
        let decay = -next.alpha * (-h).exp_m1();
        let next_latents = match self.earlier_clean(step_idx) {
            None => weighted_sum(&[(kept, latents), (decay, &clean)])?,
            Some(earlier) => {
                let h_before = here.lambda() - at_step(&self.levels, step_idx - 1)?.lambda();
                let slope = match self.solver_type {
                    SolverType::Midpoint => 0.5 * decay,
                    SolverType::Heun => next.alpha * ((-h).exp_m1() / h + 1.0),
                } * h
                    / h_before;
                weighted_sum(&[(kept, latents), (decay + slope, &clean), (-slope, earlier)])?
            }
        };
        self.before = Some((step_idx, clean));
        Ok(next_latents)
    }
}

/// One timestep more than steps, of which the last is left out: the solver's last step ends without noise.
fn timesteps(config: &SchedulerConfig, schedule: &NoiseSchedule, steps: usize) -> Result<Vec<f64>> {
    let count = schedule.num_train_timesteps();
    let least = config.number("lambda_min_clipped", f64::NEG_INFINITY)?;
    let last = schedule.sigmas().iter().filter(|ratio| -f64::from(**ratio).ln() >= least).count();
    if last == 0 {
        return Err(config.refuse("lambda_min_clipped", "a value that leaves some timesteps"));
    }
    let spacing = config.choice("timestep_spacing", TimestepSpacing::NAMES, TimestepSpacing::Linspace)?;
    let mut timesteps: Vec<f64> = match spacing {
        TimestepSpacing::Trailing => return Ok(trailing(last as f64, count as f64 / steps as f64)),
        TimestepSpacing::Linspace => {
            linspace((last - 1) as f64, steps + 1).into_iter().map(f64::round_ties_even).collect()
        }
        TimestepSpacing::Leading => leading(last / (steps + 1), steps + 1, config.count("steps_offset", 0)?),
    };
    timesteps.pop();
    Ok(timesteps)
}
