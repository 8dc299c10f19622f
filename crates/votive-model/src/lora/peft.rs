//! PEFT's adapter folders, whose `adapter_config.json` is read field by field.

use super::config::{ALL_LINEAR, Chooser, LoraConfig, Targets};
use super::keys::{self, Part};
use super::{Lora, LoraLayer, pipeline};
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::files::{self, TensorFile};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Files of an adapter's folder.
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";
/// What keys start with: PEFT's names of its wrappers around the model.
pub(super) const PREFIX: &str = "base_model.model.";

impl Lora {
    /// Reads an adapter of one network: PEFT's folder, or a file of diffusers' or kohya's that is for the U-Net alone.
    ///
    /// # Errors
    /// If files are missing, malformed or contradict each other, the adapter uses what is not supported, or the file is
    /// for other networks too.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        pipeline::read(path, device)?.into_one(path)
    }

    /// The adapter of a folder whose weights were read.
    pub(super) fn from_peft(path: &Path, file: TensorFile) -> Result<Self> {
        let wrong = |problem: String| ModelError::Adapter(format!("{}: {problem}", path.display()));
        let mut modules: BTreeMap<String, Parts> = BTreeMap::new();
        let mut saved = BTreeMap::new();
        for (key, tensor) in file.tensors {
            let key = key.strip_prefix(PREFIX).unwrap_or(&key);
            match keys::split(key).and_then(|(module, part)| Some((module, Parts::place(part)?))) {
                Some((module, place)) => {
                    *place(modules.entry(module.to_owned()).or_default()) = Some(tensor);
                }
                None => {
                    saved.insert(key.to_owned(), tensor);
                }
            }
        }
        let (config, made_for) = read_peft_config(path.parent().unwrap_or(Path::new("")))?;
        if let Some(key) = saved.keys().find(|_| config.modules_to_save.is_empty()) {
            return Err(wrong(format!("unknown key `{key}`, and no modules_to_save")));
        }
        let layers = configured_layers(&config, modules).map_err(wrong)?;
        Ok(Self { config, layers, saved, made_for })
    }

    /// Writes PEFT's adapter folder, f32.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: &Path, base_model: &str) -> Result<()> {
        let tensors = self.named_tensors().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor));
        files::write_json(&folder.join(CONFIG), &self.peft_config(base_model))?;
        files::write(&folder.join(WEIGHTS), tensors, DType::F32, BTreeMap::new())
    }

    pub(super) fn peft_config(&self, base_model: &str) -> Value {
        let config = &self.config;
        json!({
            "peft_type": "LORA",
            "task_type": self.saved("score.weight").map(|_| "SEQ_CLS"),
            "base_model_name_or_path": base_model,
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": 0.0,
            "target_modules": targets_to_json(&config.targets),
            "exclude_modules": config.exclude.as_ref().map(targets_to_json),
            "layers_to_transform": config.layers,
            "layers_pattern": Value::Null,
            "rank_pattern": config.rank_pattern,
            "alpha_pattern": config.alpha_pattern,
            "modules_to_save": Some(&config.modules_to_save).filter(|modules| !modules.is_empty()),
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
            "use_dora": config.use_dora,
            "use_rslora": config.use_rslora,
        })
    }
}

fn targets_to_json(targets: &Targets) -> Value {
    match targets {
        Targets::Names(names) => json!(names),
        Targets::AllLinear => json!(ALL_LINEAR),
        Targets::Pattern(pattern) => json!(pattern),
    }
}

/// The parts of one module in a file.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) a: Option<Tensor>,
    pub(super) b: Option<Tensor>,
    pub(super) magnitude: Option<Tensor>,
}

/// Where a part goes.
type Place = fn(&mut Parts) -> &mut Option<Tensor>;

impl Parts {
    /// The place of a part that PEFT knows.
    pub(super) fn place(part: Part) -> Option<Place> {
        match part {
            Part::A => Some(|parts| &mut parts.a),
            Part::B => Some(|parts| &mut parts.b),
            Part::Magnitude => Some(|parts| &mut parts.magnitude),
            Part::DoraScale | Part::Alpha => None,
        }
    }

    /// A and B, which belong together.
    pub(super) fn matrices(&self, module: &str) -> std::result::Result<(Tensor, Tensor), String> {
        let (Some(a), Some(b)) = (&self.a, &self.b) else {
            return Err(format!("`{module}` lacks lora_A or lora_B"));
        };
        Ok((a.clone(), b.clone()))
    }
}

/// Joins the parts of each module, with the scale that the configuration gives it.
pub(super) fn configured_layers(
    config: &LoraConfig,
    modules: BTreeMap<String, Parts>,
) -> std::result::Result<BTreeMap<String, LoraLayer>, String> {
    let chooser = Chooser::new(config).map_err(|error| error.to_string())?;
    let join = |(module, parts): (String, Parts)| {
        let (a, b) = parts.matrices(&module)?;
        let (rank, scale) = chooser.shape(&module).map_err(|error| error.to_string())?;
        let is_ranked = |side: &Tensor, at: usize| side.dims().get(at) == Some(&rank);
        if !matches!(a.rank(), 2 | 4) || b.rank() != a.rank() || !is_ranked(&a, 0) || !is_ranked(&b, 1) {
            let (a, b) = (a.dims(), b.dims());
            return Err(format!("`{module}`: lora_A {a:?} and lora_B {b:?} do not have rank {rank}"));
        }
        if parts.magnitude.is_some() != config.use_dora {
            return Err(format!(
                "`{module}`: a lora_magnitude_vector belongs to use_dora and to nothing else"
            ));
        }
        Ok((module, LoraLayer { a, b, magnitude: parts.magnitude, scale }))
    };
    modules.into_iter().map(join).collect()
}

/// Fields of `adapter_config.json` that this reader uses, and those that change nothing in an adapter that is read.
const KNOWN: &[&str] = &[
    "peft_type",
    "r",
    "lora_alpha",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "bias",
    "init_lora_weights",
    "use_dora",
    "use_rslora",
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
];

/// The configuration, and the model that the adapter was made for.
fn read_peft_config(folder: &Path) -> Result<(LoraConfig, Option<String>)> {
    let file = ConfigFile::read(&folder.join(CONFIG))?;
    file.only("peft_type", &[json!("LORA")])?;
    file.only("bias", &[json!("none")])?;
    // Other starts (PiSSA, OLoRA, LoftQ, …) change the weights below the adapter.
    let starts = [json!(true), json!(false), json!("gaussian"), json!("orthogonal"), json!("eva")];
    file.only("init_lora_weights", &starts)?;
    file.only("layers_pattern", &[json!([]), json!("layers"), json!(["layers"])])?;
    refuse_other_fields(&file)?;
    let targets = read_targets(&file, "target_modules")?;
    let config = LoraConfig {
        rank: file.maybe_usize("r")?.unwrap_or(8),
        alpha: file.maybe_f64("lora_alpha")?.unwrap_or(8.0),
        targets: targets.ok_or_else(|| file.unsupported("target_modules", "names, or one rule"))?,
        exclude: read_targets(&file, "exclude_modules")?.filter(|t| *t != Targets::Names(Vec::new())),
        layers: read_layers(&file)?,
        rank_pattern: read_pattern(&file, "rank_pattern", |v| {
            v.as_u64().and_then(|n| usize::try_from(n).ok())
        })?,
        alpha_pattern: read_pattern(&file, "alpha_pattern", Value::as_f64)?,
        modules_to_save: match file.get("modules_to_save") {
            None => Vec::new(),
            Some(_) => file.strings("modules_to_save")?,
        },
        use_rslora: file.bool_or("use_rslora", false)?,
        use_dora: file.bool_or("use_dora", false)?,
    };
    Ok((config, file.maybe_str("base_model_name_or_path")?))
}

/// Refuses any field that this reader does not know and that asks for something.
fn refuse_other_fields(file: &ConfigFile) -> Result<()> {
    let idle = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let fields = file.value().as_object().into_iter().flatten();
    match fields.into_iter().find(|(name, value)| !KNOWN.contains(&name.as_str()) && !idle(value)) {
        Some((name, _)) => Err(file.unsupported(name, "leave it out")),
        None => Ok(()),
    }
}

fn read_targets(file: &ConfigFile, field: &str) -> Result<Option<Targets>> {
    match file.get(field) {
        None => Ok(None),
        Some(Value::String(word)) => Ok(Some(Targets::rule(word))),
        Some(_) => Ok(Some(Targets::Names(file.strings(field)?))),
    }
}

fn read_layers(file: &ConfigFile) -> Result<Option<Vec<usize>>> {
    const FIELD: &str = "layers_to_transform";
    let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let layers = match file.get(FIELD) {
        None => return Ok(None),
        Some(Value::Array(list)) => list.iter().map(number).collect::<Option<Vec<_>>>(),
        Some(value) => number(value).map(|layer| vec![layer]),
    };
    let layers = layers.ok_or_else(|| file.unsupported(FIELD, "a layer or a list of layers"))?;
    Ok(Some(layers).filter(|layers| !layers.is_empty()))
}

fn read_pattern<T>(
    file: &ConfigFile,
    field: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>> {
    let Some(value) = file.get(field) else { return Ok(BTreeMap::new()) };
    let pairs = value.as_object().map(|map| map.iter().map(|(key, v)| Some((key.clone(), read(v)?))));
    let read: Option<BTreeMap<String, T>> = pairs.and_then(Iterator::collect);
    read.ok_or_else(|| file.unsupported(field, "an object from patterns to numbers"))
}
