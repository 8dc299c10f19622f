//! Low-rank adapters on linear maps, in the formats of PEFT and diffusers.
//!
//! Source: Hu et al., "LoRA: low-rank adaptation of large language models", arXiv:2106.09685, Eq. 3:
//! `W·x + (α/r)·B·A·x`, A random, B zero at the start, so that a new adapter changes nothing.

use crate::error::{ModelError, Result};
use crate::files;
use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use votive_tensor::random::{Draws, Stream};

/// Shape and places of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Inner dimension r.
    pub rank: usize,
    /// α; the update is scaled by α/r.
    pub alpha: f64,
    /// Modules that get an adapter: a module whose name is, or ends in `.` and, one of these.
    pub targets: Vec<String>,
}

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

/// An adapter: for each module the matrices A `(r, in)` and B `(out, r)`.
#[derive(Clone, Debug)]
pub struct Lora {
    config: LoraConfig,
    layers: BTreeMap<String, (Tensor, Tensor)>,
}

impl Lora {
    /// Trainable matrices for every linear map that the targets name.
    pub(crate) fn fresh(
        config: LoraConfig,
        tensors: &BTreeMap<String, Tensor>,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        if config.rank == 0 {
            return Err(ModelError::Adapter("rank must be at least 1".to_owned()));
        }
        let mut layers = BTreeMap::new();
        for (index, (name, weight)) in tensors.iter().enumerate() {
            let Some(path) = name.strip_suffix(".weight") else { continue };
            let fits = |target: &String| path == target || path.ends_with(&format!(".{target}"));
            if weight.rank() != 2 || !config.targets.iter().any(fits) {
                continue;
            }
            let (outs, ins) = weight.dims2()?;
            // PEFT's default: kaiming uniform with a = √5, which is ±1/√in.
            let mut draws = Draws::new(seed, Stream::Init, 1, index as u64);
            let bound = (ins as f64).powf(-0.5);
            let a: Vec<f32> = (0..config.rank * ins).map(|_| draws.between(-bound, bound) as f32).collect();
            let a = Var::from_vec(a, (config.rank, ins), device)?.into_inner();
            let b = Var::zeros((outs, config.rank), DType::F32, device)?.into_inner();
            layers.insert(path.to_owned(), (a, b));
        }
        match config.targets.iter().find(|t| !layers.keys().any(|p| p == *t || p.ends_with(&format!(".{t}"))))
        {
            Some(target) => {
                Err(ModelError::Adapter(format!("target `{target}` names no linear map of this network")))
            }
            None if layers.is_empty() => Err(ModelError::Adapter("no targets given".to_owned())),
            None => Ok(Self { config, layers }),
        }
    }

    /// Rank, α and targets.
    #[must_use]
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The modules that have an adapter, ordered.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.layers.keys().map(String::as_str)
    }

    pub(crate) fn layer(&self, path: &str) -> Option<(Tensor, Tensor, f64)> {
        self.layers.get(path).map(|(a, b)| (a.clone(), b.clone(), self.scale()))
    }

    fn scale(&self) -> f64 {
        self.config.alpha / self.config.rank as f64
    }

    pub(crate) fn named_tensors(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        self.layers.iter().flat_map(|(path, (a, b))| {
            [(format!("{path}.lora_A.weight"), a.clone()), (format!("{path}.lora_B.weight"), b.clone())]
        })
    }

    pub(crate) fn deltas(&self) -> impl Iterator<Item = (&str, Result<Tensor>)> {
        self.layers.iter().map(|(path, (a, b))| {
            let delta = || Ok((b.detach().matmul(&a.detach())? * self.scale())?);
            (path.as_str(), delta())
        })
    }

    pub(crate) fn map(mut self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        for (a, b) in self.layers.values_mut() {
            (*a, *b) = (change(a)?, change(b)?);
        }
        Ok(self)
    }

    pub(crate) fn check(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        for (path, (a, b)) in &self.layers {
            let weight = tensors.get(&format!("{path}.weight"));
            let shape = weight.map(Tensor::dims);
            let expected = [b.dim(0)?, a.dim(1)?];
            if shape != Some(&expected[..]) || a.dim(0)? != b.dim(1)? {
                return Err(ModelError::Adapter(format!(
                    "`{path}`: A {:?} and B {:?} do not fit the weight {shape:?}",
                    a.dims(),
                    b.dims()
                )));
            }
        }
        Ok(())
    }

    /// The same values as trainable variables.
    ///
    /// # Errors
    /// Those of candle.
    pub fn into_trainable(self) -> Result<Self> {
        self.map(|tensor| Ok(Var::from_tensor(&tensor.copy()?)?.into_inner()))
    }

    /// Reads an adapter folder of either format.
    ///
    /// # Errors
    /// If files are missing or malformed, or the adapter uses what is not supported (DoRA, biases, saved modules).
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let formats = [LoraFormat::Peft, LoraFormat::Diffusers];
        let Some(format) = formats.into_iter().find(|format| folder.join(format.weights()).exists()) else {
            let expected = formats.map(LoraFormat::weights).join(", ");
            return Err(ModelError::NotFound { folder: folder.into(), expected });
        };
        let path = folder.join(format.weights());
        let file = files::read(&path, device)?;
        let mut layers: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
        for (key, tensor) in file.tensors {
            let Some((module, side)) = split_key(key.strip_prefix(format.prefix()).unwrap_or(&key)) else {
                return Err(ModelError::Adapter(format!("{}: unknown key `{key}`", path.display())));
            };
            layers.entry(module.to_owned()).or_default()[side] = Some(tensor);
        }
        let mut pairs = BTreeMap::new();
        for (module, [a, b]) in layers {
            let (Some(a), Some(b)) = (a, b) else {
                return Err(ModelError::Adapter(format!(
                    "{}: `{module}` lacks lora_A or lora_B",
                    path.display()
                )));
            };
            pairs.insert(module, (a, b));
        }
        let rank = pairs.values().next().map_or(1, |(a, _)| a.dims().first().copied().unwrap_or(1));
        let config = match format {
            LoraFormat::Peft => read_peft_config(folder)?,
            LoraFormat::Diffusers => diffusers_config(&file.metadata, rank, pairs.keys())?,
        };
        if let Some((module, (a, _))) =
            pairs.iter().find(|(_, (a, _))| a.dims().first() != Some(&config.rank))
        {
            let found = a.dims();
            let rank = config.rank;
            return Err(ModelError::Adapter(format!(
                "`{module}`: lora_A {found:?} does not have rank {rank}"
            )));
        }
        Ok(Self { config, layers: pairs })
    }

    /// Writes an adapter folder, f32.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: &Path, format: LoraFormat, base_model: &str) -> Result<()> {
        let tensors =
            self.named_tensors().map(|(name, tensor)| (format!("{}{name}", format.prefix()), tensor));
        let config = self.peft_config(base_model);
        let metadata = match format {
            LoraFormat::Peft => {
                files::write_json(&folder.join("adapter_config.json"), &config)?;
                BTreeMap::new()
            }
            LoraFormat::Diffusers => {
                // diffusers ≥ 0.34 reads α from here; without it, it assumes α = r.
                let keys = ["r", "lora_alpha", "target_modules"];
                let nested: serde_json::Map<String, Value> =
                    keys.iter().map(|key| (format!("unet.{key}"), config[*key].clone())).collect();
                BTreeMap::from([("lora_adapter_metadata".to_owned(), Value::from(nested).to_string())])
            }
        };
        files::write(&folder.join(format.weights()), tensors, DType::F32, metadata)
    }

    fn peft_config(&self, base_model: &str) -> Value {
        json!({
            "peft_type": "LORA",
            "task_type": Value::Null,
            "base_model_name_or_path": base_model,
            "r": self.config.rank,
            "lora_alpha": self.config.alpha,
            "lora_dropout": 0.0,
            "target_modules": self.config.targets,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
            "use_dora": false,
            "use_rslora": false,
        })
    }
}

/// Splits `<module>.lora_A.weight` and its older spellings into the module and 0 for A, 1 for B.
fn split_key(key: &str) -> Option<(&str, usize)> {
    let sides = [
        (".lora_A.weight", 0),
        (".lora_B.weight", 1),
        (".lora_A.default.weight", 0),
        (".lora_B.default.weight", 1),
        (".lora.down.weight", 0),
        (".lora.up.weight", 1),
    ];
    sides.into_iter().find_map(|(suffix, side)| Some((key.strip_suffix(suffix)?, side)))
}

fn read_peft_config(folder: &Path) -> Result<LoraConfig> {
    let file = crate::config::ConfigFile::read(&folder.join("adapter_config.json"))?;
    file.only("peft_type", &[json!("LORA")])?;
    file.only("bias", &[json!("none")])?;
    file.only("use_dora", &[json!(false)])?;
    file.only("use_rslora", &[json!(false)])?;
    file.only("modules_to_save", &[json!([])])?;
    file.only("rank_pattern", &[json!({})])?;
    file.only("alpha_pattern", &[json!({})])?;
    file.only("fan_in_fan_out", &[json!(false)])?;
    let targets = match file.get("target_modules") {
        Some(Value::String(one)) => vec![one.clone()],
        _ => file.strings("target_modules")?,
    };
    Ok(LoraConfig { rank: file.usize("r")?, alpha: file.maybe_f64("lora_alpha")?.unwrap_or(8.0), targets })
}

fn diffusers_config<'a>(
    metadata: &BTreeMap<String, String>,
    rank: usize,
    modules: impl Iterator<Item = &'a String>,
) -> Result<LoraConfig> {
    let saved: Value = match metadata.get("lora_adapter_metadata") {
        None => Value::Null,
        Some(text) => serde_json::from_str(text)
            .map_err(|e| ModelError::Adapter(format!("`lora_adapter_metadata` is not JSON: {e}")))?,
    };
    let field = |name: &str| saved.get(format!("unet.{name}")).or_else(|| saved.get(name)).cloned();
    let alpha = field("lora_alpha").and_then(|v| v.as_f64()).unwrap_or(rank as f64);
    let names = |list: Value| list.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect();
    let targets = field("target_modules").and_then(names).unwrap_or_else(|| modules.cloned().collect());
    Ok(LoraConfig { rank, alpha, targets })
}
