//! Adapter folders: PEFT's, whose `adapter_config.json` is read field by field, and diffusers'.

use super::config::{ALL_LINEAR, Chooser, LoraConfig, Targets};
use super::{Lora, LoraLayer};
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::files;
use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Whose file names and keys a folder follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraFormat {
    /// `adapter_config.json` and `adapter_model.safetensors` with keys `base_model.model.<module>.lora_A.weight`.
    Peft,
    /// `pytorch_lora_weights.safetensors` with keys `unet.<module>.lora_A.weight`, as diffusers writes a UNet's.
    Diffusers,
}

impl LoraFormat {
    fn prefix(self) -> &'static str {
        match self {
            Self::Peft => "base_model.model.",
            Self::Diffusers => "unet.",
        }
    }

    fn weights(self) -> &'static str {
        match self {
            Self::Peft => "adapter_model.safetensors",
            Self::Diffusers => "pytorch_lora_weights.safetensors",
        }
    }
}

/// The parts of one module in a file.
#[derive(Default)]
struct Parts {
    a: Option<Tensor>,
    b: Option<Tensor>,
    magnitude: Option<Tensor>,
}

impl Lora {
    /// Reads an adapter folder of either format.
    ///
    /// # Errors
    /// If files are missing, malformed or contradict each other, or the adapter uses what is not supported.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let formats = [LoraFormat::Peft, LoraFormat::Diffusers];
        let Some(format) = formats.into_iter().find(|format| folder.join(format.weights()).exists()) else {
            let expected = formats.map(LoraFormat::weights).join(", ");
            return Err(ModelError::NotFound { folder: folder.into(), expected });
        };
        let path = folder.join(format.weights());
        let wrong = |problem: String| ModelError::Adapter(format!("{}: {problem}", path.display()));
        let file = files::read(&path, device)?;
        let mut modules: BTreeMap<String, Parts> = BTreeMap::new();
        let mut saved = BTreeMap::new();
        for (key, tensor) in file.tensors {
            let key = key.strip_prefix(format.prefix()).unwrap_or(&key);
            if let Some((module, part)) = split_key(key) {
                *modules.entry(module.to_owned()).or_default().of(part) = Some(tensor);
            } else {
                saved.insert(key.to_owned(), tensor);
            }
        }
        let (config, made_for) = match format {
            LoraFormat::Peft => read_peft_config(folder)?,
            LoraFormat::Diffusers => (diffusers_config(&file.metadata, &modules)?, None),
        };
        if let Some(key) = saved.keys().find(|_| config.modules_to_save.is_empty()) {
            return Err(wrong(format!("unknown key `{key}`, and no modules_to_save")));
        }
        let layers = layers(&config, modules).map_err(wrong)?;
        Ok(Self { config, layers, saved, made_for })
    }

    /// Writes an adapter folder, f32.
    ///
    /// # Errors
    /// If a file cannot be written, or the format cannot hold the adapter.
    pub fn save(&self, folder: &Path, format: LoraFormat, base_model: &str) -> Result<()> {
        let tensors =
            self.named_tensors().map(|(name, tensor)| (format!("{}{name}", format.prefix()), tensor));
        if format == LoraFormat::Diffusers && (self.config.use_dora || !self.saved.is_empty()) {
            let problem = "diffusers' files hold neither DoRA nor modules_to_save".to_owned();
            return Err(ModelError::Adapter(problem));
        }
        let config = self.peft_config(base_model);
        let metadata = match format {
            LoraFormat::Peft => {
                files::write_json(&folder.join("adapter_config.json"), &config)?;
                BTreeMap::new()
            }
            LoraFormat::Diffusers => {
                // diffusers ≥ 0.34 reads these from here; without them, it assumes α = r.
                let keys =
                    ["r", "lora_alpha", "target_modules", "use_rslora", "rank_pattern", "alpha_pattern"];
                let nested: Map<String, Value> =
                    keys.iter().map(|key| (format!("unet.{key}"), config[*key].clone())).collect();
                BTreeMap::from([("lora_adapter_metadata".to_owned(), Value::from(nested).to_string())])
            }
        };
        files::write(&folder.join(format.weights()), tensors, DType::F32, metadata)
    }

    fn peft_config(&self, base_model: &str) -> Value {
        let config = &self.config;
        json!({
            "peft_type": "LORA",
            "task_type": Value::Null,
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

impl Parts {
    fn of(&mut self, part: Part) -> &mut Option<Tensor> {
        match part {
            Part::A => &mut self.a,
            Part::B => &mut self.b,
            Part::Magnitude => &mut self.magnitude,
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    A,
    B,
    Magnitude,
}

/// Splits `<module>.lora_A.weight`, its older spellings and its companions.
fn split_key(key: &str) -> Option<(&str, Part)> {
    let parts = [
        (".lora_A.weight", Part::A),
        (".lora_B.weight", Part::B),
        (".lora_A.default.weight", Part::A),
        (".lora_B.default.weight", Part::B),
        (".lora.down.weight", Part::A),
        (".lora.up.weight", Part::B),
        (".lora_magnitude_vector", Part::Magnitude),
        (".lora_magnitude_vector.weight", Part::Magnitude),
        (".lora_magnitude_vector.default.weight", Part::Magnitude),
    ];
    parts.into_iter().find_map(|(suffix, part)| Some((key.strip_suffix(suffix)?, part)))
}

/// Joins the parts of each module, with the scale that the configuration gives it.
fn layers(
    config: &LoraConfig,
    modules: BTreeMap<String, Parts>,
) -> std::result::Result<BTreeMap<String, LoraLayer>, String> {
    let chooser = Chooser::new(config).map_err(|error| error.to_string())?;
    let join = |(module, parts): (String, Parts)| {
        let (Some(a), Some(b)) = (parts.a, parts.b) else {
            return Err(format!("`{module}` lacks lora_A or lora_B"));
        };
        let (rank, scale) = chooser.shape(&module).map_err(|error| error.to_string())?;
        if a.rank() != 2 || b.rank() != 2 || a.dims()[0] != rank {
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
    let file = ConfigFile::read(&folder.join("adapter_config.json"))?;
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

fn diffusers_config(
    metadata: &BTreeMap<String, String>,
    modules: &BTreeMap<String, Parts>,
) -> Result<LoraConfig> {
    let saved: Value = match metadata.get("lora_adapter_metadata") {
        None => Value::Null,
        Some(text) => serde_json::from_str(text)
            .map_err(|e| ModelError::Adapter(format!("`lora_adapter_metadata` is not JSON: {e}")))?,
    };
    let field = |name: &str| saved.get(format!("unet.{name}")).or_else(|| saved.get(name)).cloned();
    let first = modules.values().find_map(|parts| parts.a.as_ref());
    let rank = first.and_then(|a| a.dims().first().copied()).unwrap_or(1);
    let names = |list: Value| list.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect();
    let targets =
        field("target_modules").and_then(names).unwrap_or_else(|| modules.keys().cloned().collect());
    let flag = |name: &str| field(name).and_then(|value| value.as_bool()).unwrap_or(false);
    let patterns = |name: &str| field(name).and_then(|value| value.as_object().cloned()).unwrap_or_default();
    let rank_of = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
    Ok(LoraConfig {
        rank_pattern: patterns("rank_pattern")
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), rank_of(v)?)))
            .collect(),
        alpha_pattern: patterns("alpha_pattern")
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), v.as_f64()?)))
            .collect(),
        use_dora: flag("use_dora"),
        use_rslora: flag("use_rslora"),
        ..LoraConfig::new(
            field("r").as_ref().and_then(rank_of).unwrap_or(rank),
            field("lora_alpha").and_then(|v| v.as_f64()).unwrap_or(rank as f64),
            targets,
        )
    })
}
