//! Runs that torch made, and how far ours may be from them.

use crate::fixture;
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;
use votive_model::{Lora, Params, files};

/// Largest distance of a weight from torch's. torch's own f32 and f64 runs are up to 4e-6 apart: Adam divides a
/// gradient by its own size, so that rounding moves what hardly has a gradient.
const WEIGHTS: f64 = 1e-5;

/// A run that torch made: `<folder>/<name>.json` and what lies around it.
pub(crate) struct TorchRun {
    folder: &'static str,
    name: &'static str,
    report: Value,
    pub(crate) batches: BTreeMap<String, Tensor>,
    pub(crate) outputs: BTreeMap<String, Tensor>,
}

impl TorchRun {
    pub(crate) fn read(folder: &'static str, name: &'static str) -> Self {
        let report = std::fs::read(fixture(&format!("{folder}/{name}.json"))).unwrap();
        let tensors =
            |file: &str| files::read(&fixture(&format!("{folder}/{file}")), &Device::Cpu).unwrap().tensors;
        Self {
            folder,
            name,
            report: serde_json::from_slice(&report).unwrap(),
            batches: tensors("batches.safetensors"),
            outputs: tensors(&format!("{name}.steps.safetensors")),
        }
    }

    /// The model's folder below the fixtures.
    pub(crate) fn model(&self) -> &str {
        self.report["model"].as_str().unwrap()
    }

    /// Steps that torch made.
    pub(crate) fn steps(&self) -> u64 {
        self.setting("steps").as_u64().unwrap()
    }

    /// Pairs per step.
    pub(crate) fn pairs(&self) -> usize {
        self.setting("pairs_per_step").as_u64().unwrap() as usize
    }

    fn setting(&self, name: &str) -> &Value {
        &self.report["settings"][name]
    }

    /// What torch reported of a step.
    pub(crate) fn metric(&self, step: u64, name: &str) -> f64 {
        self.report["steps"][step as usize][name].as_f64().unwrap()
    }

    /// The recipe of this run, without the model and the data.
    pub(crate) fn recipe(&self) -> String {
        let set = |name: &str| self.setting(name).to_string();
        let lora = &self.report["lora"];
        let adapter = match lora.is_null() {
            true => String::new(),
            false => format!(
                "[adapter.lora]\nrank = {}\nalpha = {}\ntargets = {}\n",
                lora["r"], lora["lora_alpha"], lora["target_modules"]
            ),
        };
        let reference = "[reference]\nkind = \"adapter_off\"\n";
        let mut objective = String::new();
        if self.report["objective"].is_null() {
            let reference = if lora.is_null() { "" } else { reference };
            objective = format!("{reference}[objective.dpo]\nbeta = {}\n", set("beta"));
        }
        if let Some(terms) = self.report["objective"].as_object() {
            let table = |(id, options): (&String, &Value)| {
                let options = options.as_object().unwrap().iter();
                let options = options.map(|(name, value)| format!("{name} = {value}\n")).collect::<String>();
                format!("[objective.{id}]\n{options}")
            };
            objective = terms.iter().map(table).collect();
        }
        format!(
            "{adapter}{objective}[optimizer]\nlr = {}\nbetas = {}\neps = {}\nweight_decay = {}\n\
             max_grad_norm = {}\n[train]\nsteps = {}\nbatch_size = {}\n",
            set("lr"),
            set("betas"),
            set("eps").replace("1e-08", "1e-8"),
            set("weight_decay"),
            set("max_grad_norm"),
            self.steps(),
            self.pairs(),
        )
    }

    /// `prepared` where torch started: with torch's adapter in the place of a freshly drawn one.
    pub(crate) fn start(&self, prepared: Params) -> Params {
        if prepared.lora().is_some() { self.adapted(&prepared, "start") } else { prepared }
    }

    fn adapted(&self, params: &Params, point: &str) -> Params {
        let folder = fixture(&format!("{}/{}/{point}", self.folder, self.name));
        let lora = Lora::load(&folder, &Device::Cpu).unwrap().into_trainable().unwrap();
        params.without_adapter().with_lora(lora).unwrap()
    }

    /// Compares the trained parameters with torch's after `done` steps, where torch saved them.
    #[track_caller]
    pub(crate) fn check_weights(&self, params: &Params, done: u64) {
        let expected: Vec<(String, Tensor)> = if params.lora().is_some() {
            self.adapted(params, &format!("step{done}")).trainable()
        } else {
            let file = fixture(&format!("{}/{}.step{done}.safetensors", self.folder, self.name));
            files::read(&file, &Device::Cpu).unwrap().tensors.into_iter().collect()
        };
        let found = params.trainable();
        let names =
            |named: &[(String, Tensor)]| named.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected));
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            let distance = largest_distance(found, expected);
            assert!(distance <= WEIGHTS, "{}, {done} steps, {name}: off by {distance:e}", self.name);
        }
    }
}

/// The largest distance between two tensors' values.
#[track_caller]
pub(crate) fn largest_distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let values =
        |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// Checks a number against torch's.
#[track_caller]
pub(crate) fn assert_near(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, torch has {expected}");
}
