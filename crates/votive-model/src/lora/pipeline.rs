//! Adapters of image pipelines: files of diffusers' and kohya's, which may be for several networks at once.

use super::keys::{self, Adaptable, Part};
use super::peft::{self, Parts, configured_layers};
use super::{Lora, LoraConfig, LoraLayer, kohya, names};
use crate::error::{ModelError, Result};
use crate::files::{self, TensorFile};
use crate::params::Params;
use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Whose file names and keys an image adapter follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraFormat {
    /// PEFT's folder, `adapter_config.json` and `adapter_model.safetensors`, of one network.
    Peft,
    /// `pytorch_lora_weights.safetensors` with keys `unet.<module>.lora_A.weight`, as diffusers writes them.
    Diffusers,
    /// `lora.safetensors` with keys `lora_unet_<module>.lora_down.weight` and `.alpha`, as kohya's scripts write them and
    /// most programs with a window read them.
    Kohya,
}

impl LoraFormat {
    /// Every format that there is.
    pub const ALL: [Self; 3] = [Self::Diffusers, Self::Kohya, Self::Peft];

    /// Its name in recipes and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::Diffusers => "diffusers",
            Self::Kohya => "kohya",
        }
    }

    fn weights(self) -> &'static str {
        match self {
            Self::Peft => peft::WEIGHTS,
            Self::Diffusers => "pytorch_lora_weights.safetensors",
            Self::Kohya => "lora.safetensors",
        }
    }
}

/// Adapters of the networks of one pipeline.
#[derive(Clone, Debug, Default)]
pub struct PipelineLora {
    networks: BTreeMap<Adaptable, Lora>,
    format: Option<LoraFormat>,
}

impl PipelineLora {
    /// Reads a file, or a folder with one, of any format. A folder of PEFT's is taken to be the U-Net's.
    ///
    /// # Errors
    /// If files are missing, malformed or contradict each other, or the adapter uses what is not supported.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        Ok(match read(path, device)? {
            Contents::Peft(lora) => {
                Self { networks: BTreeMap::from([(Adaptable::UNet, *lora)]), format: Some(LoraFormat::Peft) }
            }
            Contents::Pipeline(adapters) => adapters,
        })
    }

    /// The adapter of one network, if there is one.
    #[must_use]
    pub fn get(&self, network: Adaptable) -> Option<&Lora> {
        self.networks.get(&network)
    }

    /// The networks that have an adapter.
    pub fn networks(&self) -> impl Iterator<Item = Adaptable> {
        self.networks.keys().copied()
    }

    /// The format that it was read from.
    #[must_use]
    pub fn format(&self) -> Option<LoraFormat> {
        self.format
    }

    /// A network under its adapter; as it is if the adapter is for others.
    ///
    /// # Errors
    /// If the adapter was made for another network.
    pub fn put_on(&self, network: Adaptable, params: Params) -> Result<Params> {
        match self.get(network) {
            None => Ok(params),
            Some(lora) => params.with_lora(lora.clone()).map_err(|error| match error {
                ModelError::Adapter(reason) => ModelError::Adapter(format!("{}: {reason}", network.folder())),
                other => other,
            }),
        }
    }

    /// Writes adapters, each on its network, into a folder, or, but for PEFT, into a file whose name ends in
    /// `.safetensors`; f32. `base` is the folder of the pipeline.
    ///
    /// # Errors
    /// If a file cannot be written, or the format cannot hold the adapters.
    pub fn save(
        target: &Path,
        format: LoraFormat,
        networks: &[(Adaptable, &Params)],
        base: &Path,
    ) -> Result<()> {
        let adapted = || networks.iter().filter_map(|(network, params)| Some((*network, params.lora()?)));
        if let Some((network, _)) = adapted().find(|(_, lora)| !lora.saved.is_empty()) {
            let problem =
                format!("{}: an image adapter's file has no place for whole modules", network.folder());
            return Err(ModelError::Adapter(problem));
        }
        let is_file = target.extension().is_some_and(|ending| ending == "safetensors");
        let file = if is_file { target.to_owned() } else { target.join(format.weights()) };
        match format {
            LoraFormat::Kohya => kohya::save(&file, networks, base),
            LoraFormat::Diffusers => save_diffusers(&file, adapted()),
            LoraFormat::Peft => match adapted().collect::<Vec<_>>().as_slice() {
                [(_, lora)] => lora.save(target, &base.to_string_lossy()),
                several => Err(ModelError::Adapter(format!(
                    "PEFT's folder holds the adapter of one network, and here are {}; write another format",
                    several.len()
                ))),
            },
        }
    }
}

/// What a path leads to.
pub(super) enum Contents {
    Peft(Box<Lora>),
    Pipeline(PipelineLora),
}

impl Contents {
    /// The adapter of one network, of a file that holds no other.
    pub(super) fn into_one(self, path: &Path) -> Result<Lora> {
        let mut networks = match self {
            Self::Peft(lora) => return Ok(*lora),
            Self::Pipeline(adapters) => adapters.networks,
        };
        let unet = networks.remove(&Adaptable::UNet);
        match (unet, networks.first_key_value()) {
            (Some(lora), None) => Ok(lora),
            (_, Some((network, other))) => Err(ModelError::Adapter(format!(
                "{}: has adapters of {} modules of `{}` too, and only the U-Net's can be used here; `votive sample \
                 --adapter` and `votive merge` use both",
                path.display(),
                other.layers.len(),
                network.folder()
            ))),
            (None, None) => Err(ModelError::Adapter(format!("{}: holds no adapter", path.display()))),
        }
    }
}

/// Reads an adapter, whatever its format is.
pub(super) fn read(path: &Path, device: &Device) -> Result<Contents> {
    let path = weights_file(path)?;
    let file = files::read(&path, device)?;
    let is_peft = path.file_name().is_some_and(|name| name == peft::WEIGHTS)
        || file.tensors.keys().any(|key| key.starts_with(peft::PREFIX));
    match is_peft {
        true => Lora::from_peft(&path, file).map(|lora| Contents::Peft(Box::new(lora))),
        false => of_file(&path, file).map(Contents::Pipeline),
    }
}

/// The file that is meant by a path: itself, or the one in a folder that has a known name, or the only one.
fn weights_file(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let known = [LoraFormat::Peft, LoraFormat::Diffusers, LoraFormat::Kohya].map(LoraFormat::weights);
    if let Some(name) = known.iter().find(|name| path.join(name).exists()) {
        return Ok(path.join(name));
    }
    let at = |source| ModelError::File { path: path.into(), source };
    let entries = std::fs::read_dir(path).map_err(at)?.collect::<std::io::Result<Vec<_>>>().map_err(at)?;
    let found = entries.iter().map(std::fs::DirEntry::path);
    let found: Vec<PathBuf> =
        found.filter(|path| path.extension().is_some_and(|ending| ending == "safetensors")).collect();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(ModelError::NotFound { folder: path.into(), expected: known.join(", ") }),
    }
}

/// The parts of one module, with what PEFT's files do not have.
#[derive(Default)]
struct Module {
    parts: Parts,
    dora_scale: Option<Tensor>,
    alpha: Option<f64>,
}

fn of_file(path: &Path, file: TensorFile) -> Result<PipelineLora> {
    let wrong = |problem: String| ModelError::Adapter(format!("{}: {problem}", path.display()));
    let format = match file.tensors.keys().any(|key| key.starts_with("lora_")) {
        true => LoraFormat::Kohya,
        false => LoraFormat::Diffusers,
    };
    let mut networks: BTreeMap<Adaptable, BTreeMap<String, Module>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for (key, tensor) in file.tensors {
        let Some(found) = keys::of_pipeline(&key) else {
            unknown.push(key);
            continue;
        };
        let module = networks.entry(found.network).or_default().entry(found.module).or_default();
        match found.part {
            Part::Alpha => module.alpha = Some(scalar(&tensor).map_err(|e| wrong(format!("`{key}`: {e}")))?),
            Part::DoraScale => module.dora_scale = Some(tensor),
            part => {
                if let Some(place) = Parts::place(part) {
                    *place(&mut module.parts) = Some(tensor);
                }
            }
        }
    }
    if let Some(first) = unknown.first() {
        return Err(wrong(format!(
            "unknown key `{first}`, one of {}; read are low-rank matrices (LoRA), α and DoRA's lengths, not LoHa, LoKr or \
             others",
            unknown.len()
        )));
    }
    if networks.is_empty() {
        return Err(wrong("holds no adapter".to_owned()));
    }
    let header = header(&file.metadata).map_err(wrong)?;
    let made_for = made_for(&file.metadata);
    let of_network = |(network, modules): (Adaptable, BTreeMap<String, Module>)| {
        let (config, layers) = of_network(network, modules, &header).map_err(wrong)?;
        Ok((network, Lora { config, layers, saved: BTreeMap::new(), made_for: made_for.clone() }))
    };
    let networks = networks.into_iter().map(of_network).collect::<Result<_>>()?;
    Ok(PipelineLora { networks, format: Some(format) })
}

fn scalar(tensor: &Tensor) -> std::result::Result<f64, String> {
    let values = tensor.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1::<f64>());
    match values.map_err(|e| e.to_string())?.as_slice() {
        [value] if value.is_finite() => Ok(*value),
        other => Err(format!("{} numbers, expected one", other.len())),
    }
}

/// `lora_adapter_metadata`, in which diffusers from 0.34 on keeps PEFT's configurations.
fn header(metadata: &BTreeMap<String, String>) -> std::result::Result<Map<String, Value>, String> {
    let Some(text) = metadata.get(HEADER) else { return Ok(Map::new()) };
    serde_json::from_str(text).map_err(|e| format!("`{HEADER}` is not a JSON object: {e}"))
}

const HEADER: &str = "lora_adapter_metadata";

/// What a file says of the model that its adapter is for.
fn made_for(metadata: &BTreeMap<String, String>) -> Option<String> {
    ["ss_base_model_version", "modelspec.architecture"].into_iter().find_map(|key| metadata.get(key)).cloned()
}

type Layers = BTreeMap<String, LoraLayer>;

/// The layers of a network. Scales come from α beside the matrices, else from the header, else they are 1.
fn of_network(
    network: Adaptable,
    modules: BTreeMap<String, Module>,
    header: &Map<String, Value>,
) -> std::result::Result<(LoraConfig, Layers), String> {
    let config = match modules.values().any(|module| module.alpha.is_some()) {
        true => None,
        false => of_header(network, header, modules.keys())?,
    };
    if let Some(config) = config {
        let layers = configured_layers(&config, modules.into_iter().map(|(k, v)| (k, v.parts)).collect())?;
        return Ok((config, layers));
    }
    let layers = modules.into_iter().map(own_layer).collect::<std::result::Result<Layers, _>>()?;
    Ok((LoraConfig::of_layers(&layers), layers))
}

/// A layer whose matrices say themselves what rank they have.
fn own_layer((name, module): (String, Module)) -> std::result::Result<(String, LoraLayer), String> {
    let (a, b) = module.parts.matrices(&name)?;
    let (Some(rank), Some(outs)) = (a.dims().first().copied(), b.dims().first().copied()) else {
        return Err(format!("`{name}`: its matrices are single numbers"));
    };
    if rank == 0 || b.dims().get(1) != Some(&rank) {
        return Err(format!("`{name}`: A {:?} and B {:?} have no rank in common", a.dims(), b.dims()));
    }
    if let Some(scale) = &module.dora_scale
        && (scale.dims().first() != Some(&outs) || scale.elem_count() != outs)
    {
        let found = scale.dims();
        return Err(format!("`{name}`: dora_scale {found:?}: only lengths of the {outs} rows are supported"));
    }
    let scale = module.alpha.map_or(1.0, |alpha| alpha / rank as f64);
    let magnitude = module.parts.magnitude.or(module.dora_scale);
    Ok((name, LoraLayer { a, b, magnitude, scale }))
}

/// The configuration of one network in the header; None if it says nothing of it.
fn of_header<'a>(
    network: Adaptable,
    header: &Map<String, Value>,
    modules: impl Iterator<Item = &'a String>,
) -> std::result::Result<Option<LoraConfig>, String> {
    let field = |name: &str| {
        let own = header.get(&format!("{}.{name}", network.folder()));
        own.or_else(|| header.get(name)).filter(|value| !value.is_null())
    };
    let Some(rank) = field("r") else { return Ok(None) };
    let wrong = |name: &str, expected: &str| format!("`{HEADER}`: `{name}` is not {expected}");
    let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let rank = number(rank).ok_or_else(|| wrong("r", "a whole number"))?;
    let alpha = match field("lora_alpha") {
        None => 8.0,
        Some(alpha) => alpha.as_f64().ok_or_else(|| wrong("lora_alpha", "a number"))?,
    };
    let flag =
        |name: &str| field(name).map_or(Some(false), Value::as_bool).ok_or_else(|| wrong(name, "a flag"));
    let targets = match field("target_modules") {
        None => super::Targets::Names(modules.cloned().collect()),
        Some(Value::String(rule)) => super::Targets::rule(rule),
        Some(Value::Array(list)) => {
            super::Targets::Names(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => return Err(wrong("target_modules", "names, or one rule")),
    };
    let config = LoraConfig {
        targets,
        rank_pattern: pattern(field("rank_pattern"), number)
            .ok_or_else(|| wrong("rank_pattern", "numbers"))?,
        alpha_pattern: pattern(field("alpha_pattern"), Value::as_f64)
            .ok_or_else(|| wrong("alpha_pattern", "numbers"))?,
        use_dora: flag("use_dora")?,
        use_rslora: flag("use_rslora")?,
        ..LoraConfig::new(rank, alpha, Vec::new())
    };
    Ok(Some(config))
}

fn pattern<T>(value: Option<&Value>, read: impl Fn(&Value) -> Option<T>) -> Option<BTreeMap<String, T>> {
    let Some(value) = value else { return Some(BTreeMap::new()) };
    value.as_object()?.iter().map(|(key, v)| Some((key.clone(), read(v)?))).collect()
}

/// Fields of PEFT's configuration that diffusers keeps in the header.
const HEADER_FIELDS: [&str; 7] =
    ["r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"];

fn save_diffusers<'a>(file: &Path, adapted: impl Iterator<Item = (Adaptable, &'a Lora)>) -> Result<()> {
    let (mut tensors, mut header) = (Vec::new(), Map::new());
    for (network, lora) in adapted {
        let folder = network.folder();
        let config = lora.peft_config("");
        header.extend(HEADER_FIELDS.map(|field| (format!("{folder}.{field}"), config[field].clone())));
        let path = |name: String| if network == Adaptable::UNet { name } else { names::rooted(&name) };
        tensors
            .extend(lora.named_tensors().map(|(name, tensor)| (format!("{folder}.{}", path(name)), tensor)));
    }
    let metadata = BTreeMap::from([(HEADER.to_owned(), Value::from(header).to_string())]);
    files::write(file, tensors, DType::F32, metadata)
}
