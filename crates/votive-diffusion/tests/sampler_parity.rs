//! Euler ancestral, PNDM, DDIM backwards, images to start from, η, zero terminal SNR and the log-density of a step
//! against diffusers (see `made_by.json` beside the fixtures).

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use serde_json::{Value, json};
use votive_diffusion::sampler::{Ddim, DdimInverse};
use votive_diffusion::{NoiseSchedule, SamplerKind, SamplerOptions, SchedulerConfig, StepNoise};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/samplers");

/// Relative to the largest number that either state of a step holds: both programs round in f32.
const TOLERANCE: f64 = 1e-5;

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

    /// The scheduler_config.json of a case.
    fn config(&self, case: &Value) -> SchedulerConfig {
        let mut fields = self.cases["betas"].clone();
        let of_case = [
            "timestep_spacing",
            "prediction_type",
            "steps_offset",
            "set_alpha_to_one",
            "rescale_betas_zero_snr",
        ];
        for field in of_case {
            fields[field] = case[field].clone();
        }
        fields["clip_sample"] = json!(false);
        SchedulerConfig::parse(&fields.to_string(), "fixture").unwrap()
    }

    fn cases(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.cases["cases"].as_array().unwrap().iter().map(|case| (case["name"].as_str().unwrap(), case))
    }

    fn row(&self, name: &str, row: usize) -> Tensor {
        self.tensors[name].get(row).unwrap().unsqueeze(0).unwrap()
    }

    /// Compares the states that follow on the first one with `next`.
    fn check_trajectory(
        &self,
        name: &str,
        start: Tensor,
        timesteps: &[f64],
        mut next: impl FnMut(usize, f64, &Tensor) -> Tensor,
    ) {
        assert_eq!(timesteps, values(&self.tensors[&format!("{name}.timesteps")]), "{name}");
        let trajectory = &self.tensors[&format!("{name}.trajectory")];
        let mut latents = start;
        for step_idx in 0..=timesteps.len() {
            let expected = values(&trajectory.get(step_idx).unwrap());
            let found = values(&latents);
            let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let before = trajectory.get(step_idx.saturating_sub(1)).unwrap();
            let error = error / largest(&expected).max(largest(&values(&before)));
            assert!(error < TOLERANCE, "{name}, state {step_idx}: {error:e}");
            if let Some(timestep) = timesteps.get(step_idx) {
                latents = next(step_idx, *timestep, &latents);
            }
        }
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, value| value.abs().max(most))
}

/// The network of the fixtures, `tanh(0.3 z + t/1000)`.
fn network(latents: &Tensor, timestep: f64) -> Tensor {
    latents.affine(0.3, timestep / 1000.0).unwrap().tanh().unwrap()
}

#[test]
fn trajectories_are_those_of_diffusers() {
    let fixtures = Fixtures::load();
    let noise = StepNoise::Given(fixtures.tensors["noise"].chunk(25, 0).unwrap());
    let image = fixtures.tensors["start"].unsqueeze(0).unwrap();
    let mut checked = 0;
    for (name, case) in fixtures.cases().filter(|(_, case)| case["sampler"] != "ddim_inverse") {
        let kind: SamplerKind = case["sampler"].as_str().unwrap().parse().unwrap();
        let (eta, strength) = (case["eta"].as_f64().unwrap(), case["strength"].as_f64().unwrap());
        let steps = case["steps"].as_u64().unwrap() as usize;
        let options = SamplerOptions { eta, strength };
        let mut sampler = kind.build_with(&fixtures.config(case), steps, options).unwrap();
        let start = if case["image"] == true {
            sampler.noised(&image, &fixtures.row("noise", 24)).unwrap()
        } else {
            (&image * sampler.init_noise_sigma()).unwrap()
        };
        let timesteps = sampler.timesteps().to_vec();
        fixtures.check_trajectory(name, start, &timesteps, |step_idx, timestep, latents| {
            let model_pred = network(&sampler.scale_input(latents, step_idx).unwrap(), timestep);
            sampler.step(&model_pred, step_idx, latents, &noise).unwrap()
        });
        checked += 1;
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn backwards_as_in_diffusers() {
    let fixtures = Fixtures::load();
    let cases: Vec<_> = fixtures.cases().filter(|(_, case)| case["sampler"] == "ddim_inverse").collect();
    assert_eq!(cases.len(), 16);
    for (name, case) in cases {
        let inverse =
            DdimInverse::new(&fixtures.config(case), case["steps"].as_u64().unwrap() as usize).unwrap();
        let start = fixtures.tensors["start"].unsqueeze(0).unwrap();
        fixtures.check_trajectory(name, start, inverse.timesteps(), |step_idx, timestep, latents| {
            inverse.step(&network(latents, timestep), step_idx, latents).unwrap()
        });
    }
}

#[test]
fn zero_terminal_snr_rescales_as_in_diffusers() {
    let fixtures = Fixtures::load();
    let expected = values(&fixtures.tensors["zero_snr.alphas_cumprod"]);
    let schedule = NoiseSchedule::new(&SchedulerConfig::stable_diffusion().with_zero_terminal_snr()).unwrap();
    for (t, expected) in expected.iter().enumerate() {
        let found = schedule.alpha_bar(t).unwrap();
        // √ᾱ is a difference in f32, of which less and less is left.
        assert!((found - expected).abs() <= 1e-5 * expected.max(1e-4), "{t}: {found} against {expected}");
    }
    assert!((schedule.alpha_bar(500).unwrap() - 0.241018783).abs() < 1e-6);
    assert_eq!(schedule.alpha_bar(999).unwrap(), 0.0);
}

#[test]
fn the_log_density_of_a_step_is_ddpos() {
    let fixtures = Fixtures::load();
    for kind in ["epsilon", "v_prediction"] {
        let mut fields = fixtures.cases["betas"].clone();
        fields["prediction_type"] = json!(kind);
        for (field, value) in
            [("clip_sample", json!(false)), ("set_alpha_to_one", json!(false)), ("steps_offset", json!(1))]
        {
            fields[field] = value;
        }
        let config = SchedulerConfig::parse(&fields.to_string(), "fixture").unwrap();
        for eta in ["0.5", "1.0"] {
            let tensor = |name: &str| fixtures.tensors[&format!("log_density.{kind}.{eta}.{name}")].clone();
            let ddim = Ddim::new(&config, 20, eta.parse().unwrap()).unwrap();
            let prediction = Var::from_tensor(&tensor("prediction")).unwrap();
            let step = ddim.distribution(&prediction, 9, &tensor("latents")).unwrap();
            let found = step.log_density(&tensor("after")).unwrap();
            let gradient = found.sum_all().unwrap().backward().unwrap();
            let gradient = gradient.get(&prediction).unwrap();
            for (found, expected) in [(&found, tensor("value")), (gradient, tensor("gradient"))] {
                let (found, expected) = (values(found), values(&expected));
                let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                // The levels come from a table in f32.
                assert!(error < 1e-5 * largest(&expected).max(1.0), "{kind} {eta}: {error:e}");
            }
        }
    }
}
