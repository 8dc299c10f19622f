//! Files as kohya's training scripts write them, with what those and Stability AI's model specification say in the header.
//!
//! Source: kohya-ss/sd-scripts, `networks/lora.py` and `library/sai_model_spec.py`; the specification is
//! Stability-AI/ModelSpec 1.0.0.

use super::keys::{Adaptable, KOHYA};
use super::names::ModuleNames;
use super::{Lora, LoraLayer};
use crate::config::ConfigFile;
use crate::error::Result;
use crate::files;
use crate::params::Params;
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes the adapters of a pipeline's networks into one file, f32.
pub(super) fn save(file: &Path, networks: &[(Adaptable, &Params)], base: &Path) -> Result<()> {
    let base = Base::read(base)?;
    let mut tensors = BTreeMap::new();
    let mut metadata = base.metadata();
    for (network, params) in networks {
        let Some(lora) = params.lora() else { continue };
        let names = params.tensor_names();
        let names = ModuleNames::new(names.iter().map(String::as_str));
        let start = base.start(*network);
        for (path, layer) in &lora.layers {
            let module = format!("{start}{}", names.of_kohya(path));
            tensors.extend(of_layer(layer)?.map(|(part, tensor)| (format!("{module}.{part}"), tensor)));
        }
        // The figures of the file are those of its first network.
        for (key, value) in figures(lora)? {
            metadata.entry(key).or_insert(value);
        }
    }
    metadata.insert("modelspec.hash_sha256".to_owned(), files::data_sha256(&tensors, DType::F32)?);
    files::write(file, tensors, DType::F32, metadata)
}

/// The tensors of a module. kohya scales by α/r, whatever the adapter itself scaled by.
fn of_layer(layer: &LoraLayer) -> Result<impl Iterator<Item = (&'static str, Tensor)> + use<>> {
    let alpha = Tensor::new((layer.scale * layer.rank() as f64) as f32, &Device::Cpu)?;
    let mut tensors =
        vec![("lora_down.weight", layer.a.clone()), ("lora_up.weight", layer.b.clone()), ("alpha", alpha)];
    if let Some(magnitude) = &layer.magnitude {
        let mut rows = vec![1; layer.b.rank()];
        rows[0] = magnitude.elem_count();
        tensors.push(("dora_scale", magnitude.reshape(rows)?));
    }
    Ok(tensors.into_iter())
}

/// What training scripts and those who read their files call an adapter's rank and α.
fn figures(lora: &Lora) -> Result<Vec<(String, String)>> {
    let layers = || lora.layers.values();
    let is_kernel = |layer: &&LoraLayer| layer.a.dims().iter().skip(2).any(|n| *n > 1);
    let of = |layer: Option<&LoraLayer>| {
        layer.map(|layer| (layer.rank().to_string(), (layer.scale * layer.rank() as f64).to_string()))
    };
    let (kernel, other) = (of(layers().find(is_kernel)), of(layers().find(|layer| !is_kernel(layer))));
    let mut figures = vec![("ss_network_module".to_owned(), "networks.lora".to_owned())];
    if let Some((rank, alpha)) = other.or_else(|| kernel.clone()) {
        figures.push(("ss_network_dim".to_owned(), rank));
        figures.push(("ss_network_alpha".to_owned(), alpha));
    }
    if let Some((rank, alpha)) = kernel {
        let args = json!({"conv_dim": rank, "conv_alpha": alpha});
        figures.push(("ss_network_args".to_owned(), args.to_string()));
    }
    Ok(figures)
}

/// What a file says of the model that its adapter is for.
struct Base {
    title: String,
    kind: Kind,
    predicts_velocity: bool,
    /// Width and height in pixels.
    resolution: Option<(usize, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    One,
    Two,
    Xl,
}

impl Base {
    /// Looks into the configurations of a pipeline.
    fn read(folder: &Path) -> Result<Self> {
        let config = |part: &str| ConfigFile::read(&folder.join(part));
        let (unet, vae) = (config("unet/config.json")?, config("vae/config.json")?);
        let scheduler = config("scheduler/scheduler_config.json")?;
        let halvings = vae.get("block_out_channels").and_then(Value::as_array).map_or(4, Vec::len).max(1) - 1;
        let pixels = |(height, width): (usize, usize)| (width << halvings, height << halvings);
        Ok(Self {
            title: folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned(),
            kind: kind(&unet)?,
            predicts_velocity: scheduler.maybe_str("prediction_type")?.as_deref() == Some("v_prediction"),
            resolution: unet.per_level("sample_size", 2)?.map(|side| pixels((side[0], side[1]))),
        })
    }

    /// What the keys of a network start with.
    fn start(&self, network: Adaptable) -> &'static str {
        match (self.kind, network) {
            (Kind::Xl, Adaptable::TextEncoder) => "lora_te1_",
            _ => KOHYA.iter().find(|(_, known)| *known == network).map_or("lora_unet_", |(start, _)| start),
        }
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let prediction = if self.predicts_velocity { "v" } else { "epsilon" };
        let (version, architecture) = match (self.kind, self.predicts_velocity) {
            (Kind::One, false) => ("sd_v1", "stable-diffusion-v1"),
            (Kind::One, true) => ("sd_v1_v", "stable-diffusion-v1"),
            (Kind::Two, false) => ("sd_v2", "stable-diffusion-v2-512"),
            (Kind::Two, true) => ("sd_v2_v", "stable-diffusion-v2-768-v"),
            (Kind::Xl, _) => ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
        };
        let implementation = match self.kind {
            Kind::Xl => "https://github.com/Stability-AI/generative-models",
            Kind::One | Kind::Two => "diffusers",
        };
        let python = |flag: bool| if flag { "True" } else { "False" };
        let mut metadata = vec![
            ("ss_base_model_version", version.to_owned()),
            ("ss_sd_model_name", self.title.clone()),
            ("ss_v2", python(self.kind == Kind::Two).to_owned()),
            ("modelspec.sai_model_spec", "1.0.0".to_owned()),
            ("modelspec.architecture", format!("{architecture}/lora")),
            ("modelspec.implementation", implementation.to_owned()),
            ("modelspec.title", format!("adapter of {}", self.title)),
            ("modelspec.prediction_type", prediction.to_owned()),
        ];
        if let Some((width, height)) = self.resolution {
            metadata.push(("modelspec.resolution", format!("{width}x{height}")));
        }
        metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// Which Stable Diffusion a U-Net is of: SDXL's is told of sizes, 2's projects into its attention with matrices.
fn kind(unet: &ConfigFile) -> Result<Kind> {
    if unet.maybe_str("addition_embed_type")?.as_deref() == Some("text_time") {
        return Ok(Kind::Xl);
    }
    Ok(if unet.bool_or("use_linear_projection", false)? { Kind::Two } else { Kind::One })
}
