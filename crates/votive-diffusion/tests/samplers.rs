//! Laws of the samplers: what must hold whatever the network.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use votive_diffusion::sampler::{Ddim, DpmSolverPp};
use votive_diffusion::{
    BoxError, DiffusionError, Guidance, NoiseSchedule, Sampler, SamplerKind, SamplerOptions, SchedulerConfig,
    StepNoise, initial_latents, sample, sample_from_image,
};

/// Stable Diffusion's betas with further fields, as JSON.
fn config(fields: &str) -> SchedulerConfig {
    let betas =
        r#""beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": false"#;
    SchedulerConfig::parse(&format!("{{{betas}, {fields}}}"), "test").unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn difference(left: &Tensor, right: &Tensor) -> f64 {
    values(left).iter().zip(values(right)).map(|(left, right)| (left - right).abs()).fold(0.0, f64::max)
}

/// The exact noise prediction for latents that are normal with this mean and spread.
struct Gaussian {
    mean: f64,
    spread: f64,
    schedule: NoiseSchedule,
}

impl Gaussian {
    fn new(config: &SchedulerConfig) -> Self {
        Self { mean: 1.5, spread: 0.5, schedule: NoiseSchedule::new(config).unwrap() }
    }

    /// ᾱ at a timestep that may lie between two of training, where σ = √((1−ᾱ)/ᾱ) is interpolated.
    fn alpha_bar(&self, timestep: f64) -> f64 {
        let sigma = |t: f64| {
            let alpha_bar = self.schedule.alpha_bar((t as usize).min(999)).unwrap();
            ((1.0 - alpha_bar) / alpha_bar).sqrt()
        };
        let (low, high) = (sigma(timestep.floor()), sigma(timestep.floor() + 1.0));
        let sigma = low + timestep.fract() * (high - low);
        1.0 / (sigma * sigma + 1.0)
    }

    /// Standard deviations from the mean, which the probability flow keeps.
    fn score(&self, latents: &Tensor, timestep: f64) -> Tensor {
        let alpha_bar = self.alpha_bar(timestep);
        let spread = (alpha_bar * self.spread * self.spread + 1.0 - alpha_bar).sqrt();
        latents.affine(1.0 / spread, -alpha_bar.sqrt() * self.mean / spread).unwrap()
    }

    fn noise(&self, latents: &Tensor, timestep: f64) -> Result<Tensor, BoxError> {
        let alpha_bar = self.alpha_bar(timestep);
        let spread = (alpha_bar * self.spread * self.spread + 1.0 - alpha_bar).sqrt();
        Ok((self.score(latents, timestep) * ((1.0 - alpha_bar).sqrt() / spread))?)
    }

    fn sample(&self, sampler: &mut dyn Sampler, latents: &Tensor, noise: &StepNoise) -> Tensor {
        let network = |latents: &Tensor, timesteps: &[f64], _: &Tensor| self.noise(latents, timesteps[0]);
        let prompt_embeds = Tensor::zeros((latents.dim(0).unwrap(), 1, 1), DType::F64, &Device::Cpu).unwrap();
        let guidance = Guidance::unguided(&network, &prompt_embeds);
        sample(sampler, &guidance, latents, noise, |_, _| {}).unwrap()
    }
}

fn start() -> Tensor {
    initial_latents(&[3, 4], (4, 8, 8), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
}

/// Largest distance from the exact solution of the probability flow.
fn flow_error(kind: SamplerKind, steps: usize) -> f64 {
    let config = config(r#""timestep_spacing": "trailing", "set_alpha_to_one": true"#);
    let gaussian = Gaussian::new(&config);
    let mut sampler = kind.build(&config, steps).unwrap();
    let first = sampler.scale_input(&(start() * sampler.init_noise_sigma()).unwrap(), 0).unwrap();
    let exact =
        gaussian.score(&first, sampler.timesteps()[0]).affine(gaussian.spread, gaussian.mean).unwrap();
    difference(&gaussian.sample(sampler.as_mut(), &start(), &StepNoise::Given(vec![])), &exact)
}

#[test]
fn deterministic_samplers_converge_to_the_exact_flow() {
    let errors = |kind| [25, 50, 100, 200].map(|steps| flow_error(kind, steps));
    let halves = |errors: &[f64; 4], factor: f64| errors.windows(2).all(|pair| pair[0] > factor * pair[1]);
    let (ddim, euler, dpmpp, pndm) = (
        errors(SamplerKind::Ddim),
        errors(SamplerKind::Euler),
        errors(SamplerKind::Dpmpp),
        errors(SamplerKind::Pndm),
    );
    assert!(halves(&ddim, 1.75) && ddim[0] < 0.25, "{ddim:?}");
    assert!(halves(&euler, 1.75) && euler[0] < 0.25, "{euler:?}");
    // Its last step is of first order, which is what remains of the error.
    assert!(halves(&dpmpp, 2.0) && dpmpp[0] < 0.15, "{dpmpp:?}");
    assert!(halves(&pndm, 1.75) && pndm[0] < 0.15, "{pndm:?}");
}

/// From a noisy image, every sampler without noise follows the flow from there, also those with a memory.
#[test]
fn from_an_image_the_flow_is_followed_from_its_level() {
    let config = config(r#""timestep_spacing": "trailing", "set_alpha_to_one": true"#);
    let gaussian = Gaussian::new(&config);
    let image = start().affine(gaussian.spread, gaussian.mean).unwrap();
    let noise = initial_latents(&[8, 9], (4, 8, 8), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let error = |kind: SamplerKind, steps| {
        let options = SamplerOptions { strength: 0.4, ..SamplerOptions::default() };
        let mut sampler = kind.build_with(&config, steps, options).unwrap();
        let noisy = sampler.noised(&image, &noise).unwrap();
        let noisy = sampler.scale_input(&noisy, 0).unwrap();
        assert_eq!(sampler.timesteps()[0], 399.0, "{kind}");
        let exact = gaussian.score(&noisy, 399.0).affine(gaussian.spread, gaussian.mean).unwrap();
        let network = |latents: &Tensor, timesteps: &[f64], _: &Tensor| gaussian.noise(latents, timesteps[0]);
        let prompt_embeds = Tensor::zeros((2, 1, 1), DType::F64, &Device::Cpu).unwrap();
        let guidance = Guidance::unguided(&network, &prompt_embeds);
        let given = StepNoise::Given(vec![]);
        let found =
            sample_from_image(sampler.as_mut(), &guidance, (&image, &noise), &given, |_, _| {}).unwrap();
        difference(&found, &exact)
    };
    for kind in [SamplerKind::Ddim, SamplerKind::Euler, SamplerKind::Dpmpp, SamplerKind::Pndm] {
        let errors = [25, 50, 100].map(|steps| error(kind, steps));
        assert!(
            errors[0] < 0.3 && errors.windows(2).all(|pair| pair[0] > 1.6 * pair[1]),
            "{kind} {errors:?}"
        );
    }
}

#[test]
fn options_out_of_range_are_named() {
    let config = SchedulerConfig::stable_diffusion();
    let message = |kind: SamplerKind, eta, strength| {
        kind.build_with(&config, 10, SamplerOptions { eta, strength }).unwrap_err().to_string()
    };
    assert_eq!(message(SamplerKind::Ddim, 0.0, 0.0), "strength: 0, expected more than 0 and at most 1");
    assert_eq!(message(SamplerKind::Ddim, 0.0, 1.5), "strength: 1.5, expected more than 0 and at most 1");
    assert!(message(SamplerKind::Ddim, 0.0, f64::NAN).starts_with("strength: NaN"));
    assert!(message(SamplerKind::Pndm, 0.0, 0.05).starts_with("strength: 0.05 of 10 steps is not one step"));
    assert_eq!(message(SamplerKind::Ddim, 2.0, 1.0), "eta: 2 is not between 0 and 1");
    assert_eq!(message(SamplerKind::EulerA, 0.5, 1.0), "eta: 0.5 has no effect on euler_a; only ddim has it");
    let text = r#"{"_class_name": "PNDMScheduler", "skip_prk_steps": false}"#;
    let prk = SchedulerConfig::parse(text, "test").unwrap();
    assert!(SamplerKind::Pndm.build(&prk, 10).unwrap_err().to_string().contains("`skip_prk_steps` is false"));
}

#[test]
fn ancestral_sampling_reaches_the_distribution() {
    let config = config(r#""timestep_spacing": "trailing""#);
    let gaussian = Gaussian::new(&config);
    let seeds: Vec<u64> = (0..40).collect();
    let latents = initial_latents(&seeds, (4, 8, 8), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let mut sampler = SamplerKind::Ddpm.build(&config, 250).unwrap();
    let samples = values(&gaussian.sample(sampler.as_mut(), &latents, &StepNoise::Seeded(seeds)));
    let mean = samples.iter().sum::<f64>() / samples.len() as f64;
    let spread = (samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / samples.len() as f64).sqrt();
    assert!((mean - gaussian.mean).abs() < 0.02, "{mean}");
    assert!((spread - gaussian.spread).abs() < 0.02, "{spread}");
}

/// A network that mixes everything within an image, and nothing between images.
fn network(latents: &Tensor, timesteps: &[f64], prompt_embeds: &Tensor) -> Result<Tensor, BoxError> {
    let times =
        Tensor::new(timesteps, latents.device())?.to_dtype(latents.dtype())?.reshape(((), 1, 1, 1))?;
    let prompts = prompt_embeds.mean((1, 2))?.reshape(((), 1, 1, 1))?;
    let shifted = latents.sin()?.broadcast_add(&latents.mean_keepdim((1, 2, 3))?)?;
    Ok(shifted.broadcast_add(&(times * 1e-3)?)?.broadcast_mul(&prompts)?)
}

#[test]
fn an_image_is_the_same_alone_and_in_a_batch() {
    let config = SchedulerConfig::stable_diffusion();
    let prompt_embeds = Tensor::new(&[[[0.5f32]], [[0.8]], [[-0.3]]], &Device::Cpu).unwrap();
    let nothing = Tensor::new(&[[[0.1f32]]], &Device::Cpu).unwrap();
    let sample_rows = |kind: SamplerKind, rows: std::ops::Range<usize>| {
        let seeds: Vec<u64> = rows.clone().map(|row| 100 + row as u64).collect();
        let prompt_embeds = prompt_embeds.narrow(0, rows.start, rows.len()).unwrap();
        let guidance = Guidance::new(&network, &prompt_embeds, &nothing, 3.0).unwrap();
        let latents = initial_latents(&seeds, (2, 3, 3), &Device::Cpu).unwrap();
        let mut sampler = kind.build(&config, 7).unwrap();
        sample(sampler.as_mut(), &guidance, &latents, &StepNoise::Seeded(seeds), |_, _| {}).unwrap()
    };
    for kind in SamplerKind::ALL {
        let batch = sample_rows(*kind, 0..3);
        for row in 0..3 {
            let alone = sample_rows(*kind, row..row + 1);
            assert_eq!(values(&batch.narrow(0, row, 1).unwrap()), values(&alone), "{kind}");
        }
    }
}

/// In noise per signal, DDIM's step is Euler's: with the same timesteps and start both are one sampler.
#[test]
fn ddim_is_eulers_method() {
    let config = config(r#""timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": true"#);
    let run = |kind: SamplerKind| {
        let mut sampler = kind.build(&config, 20).unwrap();
        Gaussian::new(&config).sample(sampler.as_mut(), &start(), &StepNoise::Given(vec![]))
    };
    let difference = difference(&run(SamplerKind::Ddim), &run(SamplerKind::Euler));
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn ddim_is_the_first_order_dpm_solver() {
    let config = config(r#""timestep_spacing": "trailing", "set_alpha_to_one": true, "solver_order": 1"#);
    let run = |sampler: &mut dyn Sampler| {
        Gaussian::new(&config).sample(sampler, &start(), &StepNoise::Given(vec![]))
    };
    let ddim = run(&mut Ddim::new(&config, 20, 0.0).unwrap());
    let difference = difference(&ddim, &run(&mut DpmSolverPp::new(&config, 20).unwrap()));
    assert!(difference < 1e-6, "{difference}");
}

#[test]
fn ddim_with_eta_1_is_ddpm() {
    let config = config(r#""timestep_spacing": "trailing", "set_alpha_to_one": true"#);
    let noise = StepNoise::Seeded(vec![3, 4]);
    let run = |sampler: &mut dyn Sampler| Gaussian::new(&config).sample(sampler, &start(), &noise);
    let ddim = run(&mut Ddim::new(&config, 20, 1.0).unwrap());
    let difference = difference(&ddim, &run(SamplerKind::Ddpm.build(&config, 20).unwrap().as_mut()));
    // DDPM's variance is at least 1e-20, also at the last step.
    assert!(difference < 1e-8, "{difference}");
}

/// A solver that remembers its last step must not remember its last image.
#[test]
fn a_sampler_can_be_used_again() {
    for kind in SamplerKind::ALL {
        let config = SchedulerConfig::stable_diffusion();
        let mut sampler = kind.build(&config, 5).unwrap();
        let mut run =
            || Gaussian::new(&config).sample(sampler.as_mut(), &start(), &StepNoise::Seeded(vec![3, 4]));
        assert_eq!(values(&run()), values(&run()), "{kind}");
    }
}

#[test]
fn progress_counts_the_network_calls() {
    let mut seen = Vec::new();
    let prompt_embeds = Tensor::ones((1, 1, 1), DType::F32, &Device::Cpu).unwrap();
    let latents = initial_latents(&[1], (1, 2, 2), &Device::Cpu).unwrap();
    let mut sampler = SamplerKind::Euler.build(&SchedulerConfig::stable_diffusion(), 3).unwrap();
    let guidance = Guidance::unguided(&network, &prompt_embeds);
    sample(sampler.as_mut(), &guidance, &latents, &StepNoise::Seeded(vec![1]), |done, of| {
        seen.push((done, of))
    })
    .unwrap();
    assert_eq!(seen, [(1, 3), (2, 3), (3, 3)]);
}

#[test]
fn names_of_samplers() {
    for kind in SamplerKind::ALL {
        assert_eq!(kind.name().parse::<SamplerKind>().unwrap(), *kind);
    }
    let error = "dpm".parse::<SamplerKind>().unwrap_err();
    assert_eq!(error.to_string(), "unknown sampler `dpm`; samplers: ddim, ddpm, dpmpp, euler, euler_a, pndm");
}

#[track_caller]
fn check_refused(kind: SamplerKind, steps: usize, fields: &str, part: &str) {
    let error = kind.build(&config(fields), steps).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn variants_that_are_not_implemented_are_named() {
    check_refused(SamplerKind::Euler, 5, r#""use_karras_sigmas": true"#, "`use_karras_sigmas` is true");
    check_refused(SamplerKind::Euler, 5, r#""interpolation_type": "log_linear""#, "expected \"linear\"");
    check_refused(SamplerKind::Euler, 5, r#""timestep_type": "continuous""#, "`timestep_type`");
    check_refused(SamplerKind::Dpmpp, 5, r#""algorithm_type": "sde-dpmsolver++""#, "`algorithm_type`");
    check_refused(SamplerKind::Dpmpp, 5, r#""solver_order": 3"#, "`solver_order` is 3, expected 1 or 2");
    check_refused(SamplerKind::Dpmpp, 5, r#""use_lu_lambdas": true"#, "`use_lu_lambdas` is true");
    check_refused(SamplerKind::Ddpm, 5, r#""variance_type": "learned""#, "`variance_type` is \"learned\"");
    check_refused(SamplerKind::Ddim, 5, r#""thresholding": true"#, "`thresholding` is true");
    check_refused(SamplerKind::Ddim, 5, r#""timestep_spacing": "karras""#, "\"linspace\" or \"leading\"");
    check_refused(SamplerKind::Ddim, 5, r#""clip_sample_range": 0"#, "`clip_sample_range` is 0");
}

#[test]
fn step_counts_that_do_not_fit_are_explained() {
    check_refused(SamplerKind::Ddim, 0, r#""steps_offset": 0"#, "0 steps do not fit the ddim sampler");
    check_refused(SamplerKind::Euler, 1001, r#""steps_offset": 0"#, "use 1 to 1000");
    check_refused(SamplerKind::Ddpm, 1000, r#""steps_offset": 1"#, "`steps_offset` moves the first timestep");
    check_refused(SamplerKind::Dpmpp, 1000, r#""steps_offset": 0"#, "two steps fall together");
    check_refused(
        SamplerKind::Ddim,
        10,
        r#""rescale_betas_zero_snr": true, "timestep_spacing": "trailing""#,
        "timestep 999 has no signal left",
    );
    let error = Ddim::new(&config(r#""steps_offset": 1"#), 10, 1.5).unwrap_err();
    assert_eq!(error.to_string(), "eta: 1.5 is not between 0 and 1");
}

#[test]
fn misfits_between_latents_predictions_and_seeds_are_named() {
    let mut sampler = SamplerKind::Ddpm.build(&SchedulerConfig::stable_diffusion(), 5).unwrap();
    let latents = Tensor::zeros((2, 4, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let other = Tensor::zeros((1, 4, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let mut message = |pred: &Tensor, step_idx, noise: StepNoise| {
        sampler.step(pred, step_idx, &latents, &noise).unwrap_err().to_string()
    };
    assert!(message(&other, 0, StepNoise::Seeded(vec![1, 2])).starts_with("the network's prediction"));
    assert_eq!(message(&latents, 0, StepNoise::Seeded(vec![1])), "seeds, one per image: expected 2, found 1");
    assert!(message(&latents, 0, StepNoise::Given(vec![other.clone()])).starts_with("the given noise"));
    assert!(message(&latents, 5, StepNoise::Seeded(vec![1, 2])).contains("step 5 of a sampler with 5 steps"));

    let broken = |_: &Tensor, _: &[f64], _: &Tensor| Err(BoxError::from("out of paint"));
    let prompt_embeds = Tensor::zeros((2, 1, 1), DType::F32, &Device::Cpu).unwrap();
    let guidance = Guidance::unguided(&broken, &prompt_embeds);
    let error =
        sample(sampler.as_mut(), &guidance, &latents, &StepNoise::Seeded(vec![1, 2]), |_, _| {}).unwrap_err();
    assert!(matches!(error, DiffusionError::Network { timestep: 801.0, .. }), "{error}");
}
