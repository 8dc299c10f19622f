//! The forward process of a diffusion model: how much signal is left at each timestep.
//!
//! Source: Ho et al. 2020, arXiv:2006.11239, Eq. 4, `z_t = √ᾱ_t z₀ + √(1−ᾱ_t) ε`; velocity: Salimans & Ho 2022,
//! arXiv:2202.00512; zero terminal SNR: Lin et al. 2023, arXiv:2305.08891, algorithm 1; min-SNR weights: Hang et al.
//! 2023, arXiv:2303.09556. Checked against: diffusers 0.42.1, whose f32 ᾱ the table holds.

use candle_core::Tensor;

use crate::config::SchedulerConfig;
use crate::error::{DiffusionError, Result};
use crate::linear::weighted_rows;
use crate::prediction::PredictionType;

/// More timesteps than any model has; a larger number in a file is a mistake, not a reason to fill the memory.
const MOST_TIMESTEPS: usize = 1_000_000;

/// What stands for ᾱ = 0 where σ = √((1−ᾱ)/ᾱ) must stay finite: the smallest f16, as in diffusers.
const LEAST_ALPHA_BAR: f32 = 1.0 / 16_777_216.0;

#[derive(Clone, Copy, Debug)]
enum BetaSchedule {
    Linear,
    ScaledLinear,
    SquaredCosine,
}

const BETA_SCHEDULES: &[(&str, BetaSchedule)] = &[
    ("linear", BetaSchedule::Linear),
    ("scaled_linear", BetaSchedule::ScaledLinear),
    ("squaredcos_cap_v2", BetaSchedule::SquaredCosine),
];

/// The signal level ᾱ of every training timestep, and what the model predicts.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    alphas_cumprod: Vec<f32>,
    prediction_type: PredictionType,
}

impl NoiseSchedule {
    /// The schedule that `config` describes.
    ///
    /// # Errors
    /// [`DiffusionError::Field`] for a value that is out of range or not supported.
    pub fn new(config: &SchedulerConfig) -> Result<Self> {
        config.must_be_off(&["use_flow_sigmas", "use_dynamic_shifting"])?;
        let prediction_type =
            config.choice("prediction_type", PredictionType::NAMES, PredictionType::Epsilon)?;
        let mut betas = betas(config)?;
        if config.flag("rescale_betas_zero_snr", false)? {
            if betas.len() < 2 {
                return Err(config.refuse("num_train_timesteps", "at least 2 with `rescale_betas_zero_snr`"));
            }
            betas = rescaled_to_zero_snr(&betas);
        }
        Ok(Self { alphas_cumprod: cumulative_product(betas.iter().map(|beta| 1.0 - beta)), prediction_type })
    }

    /// ᾱ_t in f32, one per training timestep.
    #[must_use]
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// The number of training timesteps; valid timesteps are below it.
    #[must_use]
    pub fn num_train_timesteps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// What the model's output means.
    #[must_use]
    pub fn prediction_type(&self) -> PredictionType {
        self.prediction_type
    }

    /// ᾱ_t, the part of the variance at `timestep` that is signal.
    ///
    /// # Errors
    /// [`DiffusionError::Timestep`] outside the schedule.
    pub fn alpha_bar(&self, timestep: usize) -> Result<f64> {
        let alpha_bar = self.alphas_cumprod.get(timestep).copied().map(f64::from);
        alpha_bar.ok_or(DiffusionError::Timestep { found: timestep, count: self.num_train_timesteps() })
    }

    /// Signal-to-noise ratio `ᾱ/(1−ᾱ)`.
    ///
    /// # Errors
    /// [`DiffusionError::Timestep`] outside the schedule.
    pub fn snr(&self, timestep: usize) -> Result<f64> {
        let alpha_bar = self.alpha_bar(timestep)?;
        Ok(alpha_bar / (1.0 - alpha_bar))
    }

    /// The weight of the squared error in what the model predicts that gives the squared error in z₀ the weight SNR,
    /// but at least `least` and at most `most`.
    ///
    /// `least = 0` is min-SNR-γ (Hang et al., arXiv:2303.09556) with γ = `most`, 5 in the paper; `least = 1` the
    /// truncated SNR of Salimans & Ho (arXiv:2202.00512, section 4), under which a picture's composition, which is
    /// decided where SNR is small, counts for more.
    /// Infinite for ε where SNR = 0, if `least` is not 0.
    ///
    /// # Errors
    /// [`DiffusionError::Timestep`] outside the schedule.
    pub fn bounded_snr_weight(&self, timestep: usize, (least, most): (f64, f64)) -> Result<f64> {
        let snr = self.snr(timestep)?;
        let bounded = snr.max(least).min(most);
        Ok(match self.prediction_type {
            // The limit where SNR = 0, so that a schedule with zero terminal SNR does not divide by zero.
            PredictionType::Epsilon if bounded == snr => 1.0,
            PredictionType::Epsilon => bounded / snr,
            PredictionType::VPrediction => bounded / (snr + 1.0),
            PredictionType::Sample => bounded,
        })
    }

    /// Noisy latents `√ᾱ_t latents + √(1−ᾱ_t) noise`, each row at its own timestep.
    ///
    /// # Shapes
    /// `latents`, `noise` `(B,C,H,W)`, `timesteps` of length B → `(B,C,H,W)`
    /// # Errors
    /// [`DiffusionError::Shape`], [`DiffusionError::Timestep`].
    pub fn add_noise(&self, latents: &Tensor, noise: &Tensor, timesteps: &[usize]) -> Result<Tensor> {
        weighted_rows(&self.rows(timesteps, |alpha, sigma| (alpha, sigma))?, latents, noise)
    }

    /// What the model should have predicted: the noise, the velocity or the latents.
    ///
    /// # Shapes
    /// `latents`, `noise` `(B,C,H,W)`, `timesteps` of length B → `(B,C,H,W)`
    /// # Errors
    /// [`DiffusionError::Shape`], [`DiffusionError::Timestep`].
    pub fn target(&self, latents: &Tensor, noise: &Tensor, timesteps: &[usize]) -> Result<Tensor> {
        let kind = self.prediction_type;
        weighted_rows(
            &self.rows(timesteps, |alpha, sigma| kind.target_weights(alpha, sigma))?,
            latents,
            noise,
        )
    }

    /// The clean latents that a prediction implies.
    ///
    /// # Shapes
    /// `model_pred`, `noisy_latents` `(B,C,H,W)`, `timesteps` of length B → `(B,C,H,W)`
    /// # Gradient
    /// Flows to both tensors.
    /// # Errors
    /// [`DiffusionError::Shape`], [`DiffusionError::Timestep`]; [`DiffusionError::NoSignal`] for ε where ᾱ = 0.
    pub fn clean_latents(
        &self,
        model_pred: &Tensor,
        noisy_latents: &Tensor,
        timesteps: &[usize],
    ) -> Result<Tensor> {
        let kind = self.prediction_type;
        for timestep in timesteps {
            self.check_signal(*timestep)?;
        }
        weighted_rows(
            &self.rows(timesteps, |alpha, sigma| kind.clean_weights(alpha, sigma))?,
            noisy_latents,
            model_pred,
        )
    }

    /// The noise that a prediction implies.
    ///
    /// # Shapes
    /// `model_pred`, `noisy_latents` `(B,C,H,W)`, `timesteps` of length B → `(B,C,H,W)`
    /// # Gradient
    /// Flows to both tensors.
    /// # Errors
    /// [`DiffusionError::Shape`], [`DiffusionError::Timestep`].
    pub fn predicted_noise(
        &self,
        model_pred: &Tensor,
        noisy_latents: &Tensor,
        timesteps: &[usize],
    ) -> Result<Tensor> {
        let kind = self.prediction_type;
        weighted_rows(
            &self.rows(timesteps, |alpha, sigma| kind.noise_weights(alpha, sigma))?,
            noisy_latents,
            model_pred,
        )
    }

    /// Refuses to divide by √ᾱ = 0.
    pub(crate) fn check_signal(&self, timestep: usize) -> Result<()> {
        let lost = self.prediction_type == PredictionType::Epsilon && self.alpha_bar(timestep)? == 0.0;
        if lost { Err(DiffusionError::NoSignal { timestep }) } else { Ok(()) }
    }

    /// `σ_t = √((1−ᾱ_t)/ᾱ_t)` in f32 for the samplers that count in noise per signal; finite also under zero
    /// terminal SNR.
    pub(crate) fn sigmas(&self) -> Vec<f32> {
        let sigma = |alpha_bar: &f32| {
            let alpha_bar = if *alpha_bar == 0.0 { LEAST_ALPHA_BAR } else { *alpha_bar };
            ((1.0 - alpha_bar) / alpha_bar).sqrt()
        };
        self.alphas_cumprod.iter().map(sigma).collect()
    }

    /// Two weights for each row, from `α = √ᾱ_t` and `σ = √(1−ᾱ_t)`.
    fn rows(&self, timesteps: &[usize], weights: impl Fn(f64, f64) -> (f64, f64)) -> Result<Vec<(f64, f64)>> {
        let row = |timestep: &usize| {
            let alpha_bar = self.alpha_bar(*timestep)?;
            Ok(weights(alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()))
        };
        timesteps.iter().map(row).collect()
    }
}

/// β of every timestep, in f32 as diffusers computes it.
fn betas(config: &SchedulerConfig) -> Result<Vec<f32>> {
    let count = config.count("num_train_timesteps", 1000)?;
    if count == 0 || count > MOST_TIMESTEPS {
        return Err(config.refuse("num_train_timesteps", format!("1 to {MOST_TIMESTEPS}")));
    }
    if let Some(trained) = config.numbers("trained_betas")? {
        let valid = trained.len() == count && trained.iter().all(|beta| *beta > 0.0 && *beta < 1.0);
        let betas = valid.then(|| trained.iter().map(|beta| *beta as f32).collect());
        return betas
            .ok_or_else(|| config.refuse("trained_betas", format!("{count} numbers between 0 and 1")));
    }
    let schedule = config.choice("beta_schedule", BETA_SCHEDULES, BetaSchedule::Linear)?;
    let start = config.number("beta_start", 0.0001)?;
    let end = config.number("beta_end", 0.02)?;
    for (field, beta) in [("beta_start", start), ("beta_end", end)] {
        if !(beta > 0.0 && beta < 1.0) {
            return Err(config.refuse(field, "a number between 0 and 1"));
        }
    }
    Ok(match schedule {
        BetaSchedule::Linear => ramp(start as f32, end as f32, count),
        BetaSchedule::ScaledLinear => {
            ramp(start.sqrt() as f32, end.sqrt() as f32, count).into_iter().map(|root| root * root).collect()
        }
        BetaSchedule::SquaredCosine => squared_cosine(count),
    })
}

/// `count` evenly spaced values, counted from the nearer end as torch does.
fn ramp(start: f32, end: f32, count: usize) -> Vec<f32> {
    let width = (end - start) / (count.max(2) - 1) as f32;
    let value = |i: usize| {
        if i < count.div_ceil(2) { start + width * i as f32 } else { end - width * (count - 1 - i) as f32 }
    };
    (0..count).map(value).collect()
}

/// `β = 1 − f(t+1)/f(t)` with `f(t) = cos²((t+0.008)/1.008 · π/2)`, at most 0.999 (Nichol & Dhariwal 2021, Eq. 17).
fn squared_cosine(count: usize) -> Vec<f32> {
    let alpha_bar = |i: usize| {
        let t = i as f64 / count as f64;
        ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
    };
    (0..count).map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999) as f32).collect()
}

/// Shifts and scales √ᾱ so that the last is 0 and the first stays.
fn rescaled_to_zero_snr(betas: &[f32]) -> Vec<f32> {
    let mut roots: Vec<f32> =
        cumulative_product(betas.iter().map(|beta| 1.0 - beta)).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return Vec::new() };
    let scale = first / (first - last);
    roots.iter_mut().for_each(|root| *root = (*root - last) * scale);
    let mut previous = 1.0;
    let beta = |root: &f32| {
        let alpha_bar = root * root;
        let beta = 1.0 - alpha_bar / previous;
        previous = alpha_bar;
        beta
    };
    roots.iter().map(beta).collect()
}

/// Running products, accumulated in f64 and each rounded to f32, as torch's CPU `cumprod` does.
fn cumulative_product(factors: impl Iterator<Item = f32>) -> Vec<f32> {
    let running = factors.scan(1.0f64, |product, factor| {
        *product *= f64::from(factor);
        Some(*product as f32)
    });
    running.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn schedule(json: &str) -> NoiseSchedule {
        NoiseSchedule::new(&SchedulerConfig::parse(json, "test").unwrap()).unwrap()
    }

    fn stable_diffusion(prediction_type: &str) -> NoiseSchedule {
        schedule(&format!(
            r#"{{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                "prediction_type": "{prediction_type}"}}"#
        ))
    }

    #[track_caller]
    fn check(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance * expected.abs(), "{found} against {expected}");
    }

    /// t, ᾱ, SNR, σ, min-SNR weight (γ = 5) for ε and for v; computed in f64, while diffusers' table is f32.
    const STABLE_DIFFUSION: &[(usize, f64, f64, f64, f64, f64)] = &[
        (0, 0.99915, 1175.4706, 0.02916716, 0.00425362, 0.00425),
        (100, 0.894223478, 8.45389371, 0.3439312, 0.591443, 0.528883),
        (249, 0.675432414, 2.08102239, 0.6932049, 1.0, 0.675432),
        (499, 0.27766965, 0.384408118, 1.612886, 1.0, 0.27767),
        (500, 0.276332684, 0.381850441, 1.618279, 1.0, 0.276333),
        (749, 0.0566234916, 0.0600221556, 4.081729, 1.0, 0.0566235),
        (999, 0.00466009851, 0.00468191671, 14.61464, 1.0, 0.0046601),
    ];

    #[test]
    fn values_of_stable_diffusion() {
        let (epsilon, velocity) = (stable_diffusion("epsilon"), stable_diffusion("v_prediction"));
        let sigmas = epsilon.sigmas();
        for &(t, alpha_bar, snr, sigma, of_epsilon, of_velocity) in STABLE_DIFFUSION {
            check(epsilon.alpha_bar(t).unwrap(), alpha_bar, 1e-6);
            // 1 − ᾱ_0 is 0.00085 with the rounding of a number near 1 in f32.
            let near = if t == 0 { 1e-4 } else { 1e-5 };
            check(epsilon.snr(t).unwrap(), snr, near);
            check(f64::from(sigmas[t]), sigma, near);
            check(epsilon.bounded_snr_weight(t, (0.0, 5.0)).unwrap(), of_epsilon, near);
            check(velocity.bounded_snr_weight(t, (0.0, 5.0)).unwrap(), of_velocity, near);
            // The same weight of the error in z₀, whatever is predicted: ε's error is √SNR times it, v's √(SNR+1).
            let of_latents = snr.clamp(1.0, 5.0);
            check(epsilon.bounded_snr_weight(t, (1.0, 5.0)).unwrap() * snr, of_latents, near);
            check(velocity.bounded_snr_weight(t, (1.0, 5.0)).unwrap() * (snr + 1.0), of_latents, near);
        }
        let first_below_5 = (0..1000).find(|t| epsilon.snr(*t).unwrap() < 5.0);
        assert_eq!(first_below_5, Some(147));
    }

    #[test]
    fn values_of_other_beta_schedules() {
        let linear = schedule("{}");
        check(linear.alpha_bar(500).unwrap(), 0.0777966584, 1e-6);
        check(linear.alpha_bar(999).unwrap(), 4.03583e-5, 1e-5);
        // By the telescoping product, ᾱ_t = f(t+1)/f(0) as long as no β is capped.
        let cosine = schedule(r#"{"beta_schedule": "squaredcos_cap_v2"}"#);
        let f = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        check(cosine.alpha_bar(499).unwrap(), f(0.5) / f(0.0), 1e-6);
        let trained = schedule(r#"{"trained_betas": [0.5, 0.75], "num_train_timesteps": 2}"#);
        assert_eq!(trained.alphas_cumprod(), [0.5, 0.125]);
    }

    #[test]
    fn zero_terminal_snr() {
        let config = r#"{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "rescale_betas_zero_snr": true, "prediction_type": "epsilon"}"#;
        let rescaled = schedule(config);
        check(rescaled.alpha_bar(0).unwrap(), 0.99915, 1e-6);
        check(rescaled.alpha_bar(500).unwrap(), 0.241018783, 1e-5);
        assert_eq!(rescaled.alpha_bar(999).unwrap(), 0.0);
        assert_eq!(rescaled.bounded_snr_weight(999, (0.0, 5.0)).unwrap(), 1.0);
        assert_eq!(rescaled.sigmas()[999], 4096.0 * (1.0 - LEAST_ALPHA_BAR).sqrt());
        let one = Tensor::ones((1, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
        let error = rescaled.clean_latents(&one, &one, &[999]).unwrap_err();
        assert!(matches!(error, DiffusionError::NoSignal { timestep: 999 }), "{error}");
    }

    #[test]
    fn each_row_has_its_own_timestep_and_conversions_invert_it() {
        let timesteps = [3, 500, 998];
        let latents = Tensor::new(&[1.0f64, -2.0, 0.5], &Device::Cpu).unwrap().reshape((3, 1, 1, 1)).unwrap();
        let noise = Tensor::new(&[0.25f64, 1.0, -1.5], &Device::Cpu).unwrap().reshape((3, 1, 1, 1)).unwrap();
        for kind in ["epsilon", "v_prediction", "sample"] {
            let schedule = stable_diffusion(kind);
            let noisy = schedule.add_noise(&latents, &noise, &timesteps).unwrap();
            for (i, t) in timesteps.into_iter().enumerate() {
                let row = |x: &Tensor| x.narrow(0, i, 1).unwrap();
                let alone = schedule.add_noise(&row(&latents), &row(&noise), &[t]).unwrap();
                assert_eq!(difference(&row(&noisy), &alone), 0.0);
            }
            let target = schedule.target(&latents, &noise, &timesteps).unwrap();
            assert!(
                difference(&schedule.clean_latents(&target, &noisy, &timesteps).unwrap(), &latents) < 1e-12
            );
            assert!(
                difference(&schedule.predicted_noise(&target, &noisy, &timesteps).unwrap(), &noise) < 1e-12
            );
        }
    }

    fn difference(left: &Tensor, right: &Tensor) -> f64 {
        (left - right).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn shapes_and_timesteps_that_do_not_fit_are_named() {
        let schedule = stable_diffusion("epsilon");
        let zeros = |rows| Tensor::zeros((rows, 4, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let message = |result: Result<Tensor>| result.unwrap_err().to_string();
        assert_eq!(
            message(schedule.add_noise(&zeros(2), &zeros(1), &[1, 2])),
            "latents and their counterpart: expected [2, 4, 2, 2], found [1, 4, 2, 2]"
        );
        assert_eq!(
            message(schedule.add_noise(&zeros(2), &zeros(2), &[1])),
            "timesteps, one per row of the latents: expected [2, 4, 2, 2], found 1"
        );
        assert_eq!(
            message(schedule.target(&zeros(1), &zeros(1), &[1000])),
            "timestep 1000 is outside the schedule's 0..1000"
        );
    }

    #[test]
    fn values_out_of_range_are_named() {
        let refused = |json: &str, part: &str| {
            let error = NoiseSchedule::new(&SchedulerConfig::parse(json, "test").unwrap()).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        };
        refused(r#"{"num_train_timesteps": 0}"#, "`num_train_timesteps` is 0, expected 1 to");
        refused(r#"{"num_train_timesteps": 100000000000}"#, "`num_train_timesteps` is 100000000000");
        refused(r#"{"beta_end": 1.5}"#, "`beta_end` is 1.5, expected a number between 0 and 1");
        refused(r#"{"beta_schedule": "sigmoid"}"#, "`beta_schedule` is \"sigmoid\", expected \"linear\" or");
        refused(r#"{"prediction_type": "flow_prediction"}"#, "`prediction_type` is \"flow_prediction\"");
        refused(r#"{"trained_betas": [0.1]}"#, "expected 1000 numbers between 0 and 1");
        refused(r#"{"use_flow_sigmas": true}"#, "`use_flow_sigmas` is true, expected false");
    }
}
