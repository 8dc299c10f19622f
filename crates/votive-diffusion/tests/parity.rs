//! Whole trajectories of every sampler against those of diffusers (see `made_by.json` beside the fixtures).

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use votive_diffusion::sampler::Ddim;
use votive_diffusion::{NoiseSchedule, Sampler, SamplerKind, SchedulerConfig, StepNoise};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/schedulers");

/// Relative to the largest number that either state of a step holds: both programs round in f32.
const TOLERANCE: f64 = 1e-5;

/// For the cosine schedule, where ᾱ_999 is 2.4e-9: in f32, diffusers loses digits of √(1−ᾱ_p−s²) (DDIM with η = 1)
/// and of x + (σ'−σ)d with σ = 20291 (Euler). Against the same formulas in f64 it is as far off.
const COSINE_TOLERANCE: f64 = 3e-4;

struct Fixtures {
    cases: Value,
    tensors: HashMap<String, Tensor>,
}

impl Fixtures {
    fn load() -> Self {
        let cases = std::fs::read_to_string(format!("{FIXTURES}/cases.json")).unwrap();
        let tensors =
            candle_core::safetensors::load(format!("{FIXTURES}/values.safetensors"), &Device::Cpu).unwrap();
        Self { cases: serde_json::from_str(&cases).unwrap(), tensors }
    }

    fn values(&self, name: &str) -> Vec<f64> {
        values(&self.tensors[name])
    }

    /// The scheduler_config.json of a case.
    fn config(&self, case: &Value) -> SchedulerConfig {
        let mut fields = self.cases["betas"][case["beta_schedule"].as_str().unwrap()].clone();
        for field in ["beta_schedule", "timestep_spacing", "prediction_type", "set_alpha_to_one"] {
            fields[field] = case[field].clone();
        }
        fields["steps_offset"] = self.cases["steps_offset"].clone();
        fields["clip_sample"] = json!(false);
        SchedulerConfig::parse(&fields.to_string(), "fixture").unwrap()
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, value| value.abs().max(most))
}

fn sampler(case: &Value, config: &SchedulerConfig) -> Box<dyn Sampler> {
    let steps = case["steps"].as_u64().unwrap() as usize;
    match case["sampler"].as_str().unwrap().parse().unwrap() {
        SamplerKind::Ddim => Box::new(Ddim::new(config, steps, case["eta"].as_f64().unwrap()).unwrap()),
        kind => kind.build(config, steps).unwrap(),
    }
}

/// The network of the fixtures, `tanh(0.3 z + t/1000)`.
fn network(latents: &Tensor, timestep: f64) -> Tensor {
    latents.affine(0.3, timestep / 1000.0).unwrap().tanh().unwrap()
}

#[test]
fn trajectories_are_those_of_diffusers() {
    let fixtures = Fixtures::load();
    let noise = StepNoise::Given(fixtures.tensors["noise"].chunk(25, 0).unwrap());
    for case in fixtures.cases["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let cosine = case["beta_schedule"] == "squaredcos_cap_v2";
        let tolerance = if cosine { COSINE_TOLERANCE } else { TOLERANCE };
        let mut sampler = sampler(case, &fixtures.config(case));
        assert_eq!(sampler.timesteps(), fixtures.values(&format!("{name}.timesteps")), "{name}");
        let init_noise_sigma = fixtures.values(&format!("{name}.init_noise_sigma"))[0];
        assert!((sampler.init_noise_sigma() / init_noise_sigma - 1.0).abs() < 1e-6, "{name}");

        let trajectory = &fixtures.tensors[&format!("{name}.trajectory")];
        let start = fixtures.tensors["start"].unsqueeze(0).unwrap();
        let mut latents = (start * sampler.init_noise_sigma()).unwrap();
        for (step_idx, timestep) in sampler.timesteps().to_vec().into_iter().enumerate() {
            let before = largest(&values(&latents));
            let model_pred = network(&sampler.scale_input(&latents, step_idx).unwrap(), timestep);
            latents = sampler.step(&model_pred, step_idx, &latents, &noise).unwrap();
            let expected = values(&trajectory.get(step_idx + 1).unwrap());
            let error =
                values(&latents).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let error = error / largest(&expected).max(before);
            assert!(error < tolerance, "{name}, step {step_idx}: {error:e}");
        }
    }
}

#[test]
fn noising_is_that_of_diffusers() {
    let fixtures = Fixtures::load();
    for (beta_schedule, betas) in fixtures.cases["betas"].as_object().unwrap() {
        let mut fields = betas.clone();
        fields["beta_schedule"] = json!(beta_schedule);
        let tensor = |name: &str| fixtures.tensors[&format!("{beta_schedule}.{name}")].clone();
        let check = |what: &str, found: Vec<f64>, expected: Tensor, tolerance: f64| {
            for (i, (found, expected)) in found.iter().zip(values(&expected)).enumerate() {
                let error = (found - expected).abs() / expected.abs().max(1e-9);
                assert!(error < tolerance, "{beta_schedule} {what} {i}: {found} against {expected}");
            }
        };
        for (kind, target) in [("epsilon", None), ("v_prediction", Some("get_velocity"))] {
            fields["prediction_type"] = json!(kind);
            let schedule =
                NoiseSchedule::new(&SchedulerConfig::parse(&fields.to_string(), "fixture").unwrap()).unwrap();
            let alphas = schedule.alphas_cumprod().iter().copied().map(f64::from).collect();
            check("ᾱ", alphas, tensor("alphas_cumprod"), 1e-6);
            let timesteps: Vec<usize> =
                values(&tensor("noising_timesteps")).into_iter().map(|t| t as usize).collect();
            let latents = fixtures.tensors["start"].unsqueeze(0).unwrap().repeat((4, 1)).unwrap();
            let noise = fixtures.tensors["noise"].narrow(0, 0, 4).unwrap();
            let noisy = schedule.add_noise(&latents, &noise, &timesteps).unwrap();
            check("noisy latents", values(&noisy), tensor("add_noise"), TOLERANCE);
            let expected = target.map_or_else(|| noise.clone(), tensor);
            let found = schedule.target(&latents, &noise, &timesteps).unwrap();
            check("target", values(&found), expected, TOLERANCE);
        }
    }
}
