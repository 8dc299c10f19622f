//! Laws of inversion: where it ends, what it reduces to, and that DDIM leads back.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;

use candle_core::{DType, Device, Tensor};
use votive_diffusion::sampler::{Ddim, DdimInverse};
use votive_diffusion::{
    BoxError, Conditioning, DenoiseFn, InversionBy, InversionInputs, InversionPlan, Inverted, NoiseSchedule,
    Sampler, SchedulerConfig, StepNoise, initial_latents,
};

const MEAN: f64 = 1.5;
const SPREAD: f64 = 0.5;

fn config(prediction_type: &str, is_rescaled: bool) -> SchedulerConfig {
    let text = format!(
        r#"{{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": false,
            "set_alpha_to_one": true, "timestep_spacing": "trailing", "prediction_type": "{prediction_type}",
            "rescale_betas_zero_snr": {is_rescaled}}}"#
    );
    SchedulerConfig::parse(&text, "test").unwrap()
}

fn schedule(prediction_type: &str) -> NoiseSchedule {
    NoiseSchedule::new(&config(prediction_type, false)).unwrap()
}

/// The exact prediction of ε or v for latents that are normal with MEAN and SPREAD, each row at its own timestep.
fn gaussian(
    schedule: &NoiseSchedule,
    is_velocity: bool,
) -> impl Fn(&Tensor, &[f64], &Conditioning) -> Result<Tensor, BoxError> {
    move |latents, timesteps, _| {
        let row = |(row, timestep): (usize, &f64)| -> Result<Tensor, BoxError> {
            let alpha_bar = schedule.alpha_bar(*timestep as usize)?;
            let (alpha, sigma) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
            let variance = alpha_bar * SPREAD * SPREAD + sigma * sigma;
            let latents = latents.narrow(0, row, 1)?;
            let noise = latents.affine(sigma / variance, -sigma * alpha * MEAN / variance)?;
            if !is_velocity {
                return Ok(noise);
            }
            // v = (ε − σ z)/α.
            Ok((noise - (latents * sigma)?)?.affine(1.0 / alpha, 0.0)?)
        };
        let rows = timesteps.iter().enumerate().map(row).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::cat(&rows, 0)?)
    }
}

/// Latents of the Gaussian, `(3, 2, 4, 4)`.
fn clean() -> Tensor {
    let noise = initial_latents(&[3, 4, 5], (2, 4, 4), &Device::Cpu).unwrap();
    noise.to_dtype(DType::F64).unwrap().affine(SPREAD, MEAN).unwrap()
}

fn drawn() -> Tensor {
    initial_latents(&[6, 7, 8], (2, 4, 4), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
}

fn embeds() -> Tensor {
    Tensor::zeros((3, 1, 1), DType::F64, &Device::Cpu).unwrap()
}

fn plan(steps: usize, perturbation: f64, refinements: usize) -> InversionPlan {
    InversionPlan { by: InversionBy::Policy, steps, perturbation, refinements }
}

fn invert(
    plan: InversionPlan,
    schedule: &NoiseSchedule,
    network: &DenoiseFn,
    timesteps: &[usize],
    rows: std::ops::Range<usize>,
) -> Inverted {
    let pick = |all: Tensor| all.narrow(0, rows.start, rows.len()).unwrap();
    let (latents, noise) = (pick(clean()), pick(drawn()));
    let conditioning = Conditioning::new(pick(embeds())).unwrap();
    let numbers: Vec<u64> = rows.clone().map(|row| row as u64).collect();
    let inputs = InversionInputs {
        latents: &latents,
        noise: &noise,
        timesteps: &timesteps[rows],
        conditioning: &conditioning,
        seed: 11,
        step: 2,
        rows: &numbers,
    };
    plan.invert(schedule, network, &inputs).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn difference(left: &Tensor, right: &Tensor) -> f64 {
    values(left).iter().zip(values(right)).map(|(left, right)| (left - right).abs()).fold(0.0, f64::max)
}

const TIMESTEPS: [usize; 3] = [0, 437, 999];

#[test]
fn no_steps_or_a_network_that_predicts_the_drawn_noise_is_adding_noise() {
    let schedule = schedule("epsilon");
    let expected = schedule.add_noise(&clean(), &drawn(), &TIMESTEPS).unwrap();
    let given = |_: &Tensor, _: &[f64], _: &Conditioning| Ok(drawn());
    for plan in [plan(0, 0.1, 1), plan(1, 0.0, 0), plan(10, 0.0, 0), plan(10, 0.0, 2), plan(700, 0.0, 0)] {
        let inverted = invert(plan, &schedule, &given, &TIMESTEPS, 0..3);
        assert!(difference(&inverted.noisy, &expected) < 1e-12, "{plan:?}");
        assert!(difference(&inverted.noise, &drawn()) < 1e-11, "{plan:?}");
    }
}

#[test]
fn a_row_ends_at_its_own_timestep_and_the_noise_is_what_is_in_it() {
    for kind in ["epsilon", "v_prediction"] {
        let schedule = schedule(kind);
        let exact = gaussian(&schedule, kind == "v_prediction");
        let asked = RefCell::new(Vec::new());
        let network = |latents: &Tensor, timesteps: &[f64], embeds: &Conditioning| {
            asked.borrow_mut().push(timesteps.to_vec());
            exact(latents, timesteps, embeds)
        };
        let inverted = invert(plan(5, 0.1, 0), &schedule, &network, &TIMESTEPS, 0..3);
        // 438 levels in five parts, and a thousand.
        let of_row = |row: usize| asked.borrow().iter().map(|times| times[row]).collect::<Vec<f64>>();
        assert_eq!(of_row(0), [0.0; 5]);
        assert_eq!(of_row(1), [87.0, 174.0, 262.0, 349.0, 437.0]);
        assert_eq!(of_row(2), [199.0, 399.0, 599.0, 799.0, 999.0]);
        let again = schedule.add_noise(&clean(), &inverted.noise, &TIMESTEPS).unwrap();
        assert!(difference(&again, &inverted.noisy) < 1e-12);
    }
}

#[test]
fn a_row_is_the_same_alone_and_in_a_batch_and_its_perturbation_is_its_own() {
    let schedule = schedule("epsilon");
    let network = gaussian(&schedule, false);
    let whole = invert(plan(7, 0.1, 1), &schedule, &network, &[600; 3], 0..3);
    for row in 0..3 {
        let alone = invert(plan(7, 0.1, 1), &schedule, &network, &[600; 3], row..row + 1);
        assert_eq!(values(&alone.noise), values(&whole.noise.narrow(0, row, 1).unwrap()));
    }
    let plain = invert(plan(7, 0.0, 1), &schedule, &network, &[600; 3], 0..3);
    let moved = (&whole.noisy - &plain.noisy).unwrap();
    // Seven draws of a tenth of the step's standard deviation, each of which the steps after it carry on.
    let spread = (moved.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap()).sqrt();
    assert!((0.05..0.25).contains(&spread), "{spread}");
    let rows: Vec<Vec<f64>> = (0..3).map(|row| values(&moved.get(row).unwrap())).collect();
    assert!(rows[0] != rows[1] && rows[1] != rows[2]);
}

/// The same network, whether it says ε or v.
#[test]
fn velocity_inverts_as_noise_does() {
    let of = |kind: &str| {
        let schedule = schedule(kind);
        let network = gaussian(&schedule, kind == "v_prediction");
        invert(plan(10, 0.1, 1), &schedule, &network, &TIMESTEPS, 0..3).noise
    };
    assert!(difference(&of("epsilon"), &of("v_prediction")) < 1e-9);
}

/// From `noisy` at timestep `t` back with DDIM in steps of `1000/of`.
fn sampled_back(noisy: &Tensor, kind: &str, t: usize, of: usize) -> Tensor {
    let schedule = schedule(kind);
    let network = gaussian(&schedule, kind == "v_prediction");
    let mut ddim = Ddim::new(&config(kind, false), of, 0.0).unwrap();
    let first = ddim.timesteps().iter().position(|timestep| *timestep == t as f64).unwrap();
    ddim.skip(first);
    let mut latents = noisy.clone();
    for (step_idx, timestep) in ddim.timesteps().to_vec().into_iter().enumerate() {
        let pred = network(&latents, &[timestep; 3], &Conditioning::new(embeds()).unwrap()).unwrap();
        latents = ddim.step(&pred, step_idx, &latents, &StepNoise::Given(Vec::new())).unwrap();
    }
    latents
}

/// How far DDIM ends from the latents that were inverted.
fn way_back(kind: &str, t: usize, steps: usize, refinements: usize) -> f64 {
    let schedule = schedule(kind);
    let network = gaussian(&schedule, kind == "v_prediction");
    let inverted = invert(plan(steps, 0.0, refinements), &schedule, &network, &[t; 3], 0..3);
    difference(&sampled_back(&inverted.noisy, kind, t, 1000 * steps / (t + 1)), &clean())
}

#[test]
fn ddim_leads_back_to_the_latents() {
    for kind in ["epsilon", "v_prediction"] {
        for (t, steps) in [(999, 50), (499, 25), (99, 5)] {
            let error = way_back(kind, t, steps, 8);
            assert!(error < 1e-3, "{kind}, {t}: {error}");
        }
        // Without refinement the error of a step is of first order: twice the steps, half the error.
        let errors = [25, 50, 100, 200, 500].map(|steps| way_back(kind, 999, steps, 0));
        assert!(errors.windows(2).all(|pair| pair[0] > 1.7 * pair[1]), "{errors:?}");
        assert!(way_back(kind, 999, 50, 1) < 0.7 * errors[1], "{errors:?}");
    }
}

/// Where diffusers' grid ends at the timestep, as `trailing` does at the last one, both are one.
#[test]
fn on_the_stock_grid_it_is_ddim_backwards() {
    let schedule = schedule("epsilon");
    let network = gaussian(&schedule, false);
    let inverse = DdimInverse::new(&config("epsilon", false), 20).unwrap();
    let mut latents = clean();
    for (step_idx, timestep) in inverse.timesteps().iter().enumerate() {
        let pred = network(&latents, &[*timestep; 3], &Conditioning::new(embeds()).unwrap()).unwrap();
        latents = inverse.step(&pred, step_idx, &latents).unwrap();
    }
    let inverted = invert(plan(20, 0.0, 0), &schedule, &network, &[999; 3], 0..3);
    assert!(difference(&latents, &inverted.noisy) < 1e-9);
}

#[test]
fn a_schedule_without_terminal_signal_inverts_to_finite_noise() {
    for kind in ["epsilon", "v_prediction"] {
        let schedule = NoiseSchedule::new(&config(kind, true)).unwrap();
        let network = |latents: &Tensor, _: &[f64], _: &Conditioning| Ok(latents.affine(0.3, 0.1)?);
        let inverted = invert(plan(10, 0.1, 1), &schedule, &network, &[999, 998, 997], 0..3);
        assert!(values(&inverted.noise).iter().all(|value| value.is_finite()));
        let last = inverted.noisy.get(0).unwrap();
        assert_eq!(difference(&last, &inverted.noise.get(0).unwrap()), 0.0);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let schedule = schedule("epsilon");
    let (latents, noise) = (clean(), drawn());
    let conditioning = Conditioning::new(embeds()).unwrap();
    let message = |timesteps: &[usize], rows: &[u64], steps: usize| {
        let inputs = InversionInputs {
            latents: &latents,
            noise: &noise,
            timesteps,
            conditioning: &conditioning,
            seed: 0,
            step: 0,
            rows,
        };
        let broken = |_: &Tensor, _: &[f64], _: &Conditioning| Err(BoxError::from("out of paint"));
        plan(steps, 0.0, 0).invert(&schedule, &broken, &inputs).unwrap_err().to_string()
    };
    assert_eq!(message(&[1, 2], &[1, 2, 3], 5), "timesteps, one per row of the latents: expected 3, found 2");
    assert_eq!(message(&[1, 2, 3], &[1], 5), "row numbers, one per row of the latents: expected 3, found 1");
    assert_eq!(message(&[1, 2, 1000], &[1, 2, 3], 5), "timestep 1000 is outside the schedule's 0..1000");
    assert_eq!(message(&[9, 2, 3], &[1, 2, 3], 5), "the network failed at timestep 1: out of paint");
    assert!(message(&[1, 2, 3], &[1, 2, 3], 1001).starts_with("inversion_steps: 1001"));
}
