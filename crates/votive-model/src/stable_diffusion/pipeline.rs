//! The folder of a Stable Diffusion model, as diffusers' `StableDiffusionPipeline` reads and writes it.

use super::clip::ClipTextModel;
use super::clip_config::ClipTextConfig;
use super::unet_config::UNetConfig;
use super::vae::AutoencoderKl;
use super::vae_config::VaeConfig;
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::files;
use crate::params::Params;
use candle_core::{DType, Device};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A network that lies in a sub-folder with its configuration and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// `unet/`
    UNet,
    /// `vae/`
    Vae,
    /// `text_encoder/`
    TextEncoder,
}

impl Component {
    const ALL: [Self; 3] = [Self::UNet, Self::Vae, Self::TextEncoder];

    /// Name of the sub-folder.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::UNet => "unet",
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
        }
    }

    /// Library and class in `model_index.json`.
    fn class(self) -> [&'static str; 2] {
        match self {
            Self::UNet => ["diffusers", "UNet2DConditionModel"],
            Self::Vae => ["diffusers", "AutoencoderKL"],
            Self::TextEncoder => ["transformers", "CLIPTextModel"],
        }
    }

    /// Name of the weight file without its extension.
    fn stem(self) -> &'static str {
        match self {
            Self::UNet | Self::Vae => "diffusion_pytorch_model",
            Self::TextEncoder => "model",
        }
    }

    /// Writes `config.json` and the weights of this network into its place below `root`.
    ///
    /// `float` is the type that weights are stored in: F32, F16 or BF16.
    ///
    /// # Errors
    /// If a file cannot be written, or the parameters carry an adapter, which has files of its own.
    pub fn save(self, root: &Path, config: &Value, params: &Params, float: DType) -> Result<()> {
        if params.lora().is_some() {
            return Err(ModelError::Adapter(
                "merge it or save it by itself; a model folder holds whole weights".to_owned(),
            ));
        }
        let folder = root.join(self.folder());
        let tensors = params.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone()));
        files::write(&folder.join(format!("{}.safetensors", self.stem())), tensors, float, BTreeMap::new())?;
        files::write_json(&folder.join("config.json"), config)
    }
}

/// A Stable Diffusion 1 or 2 folder whose configurations have been read and fit together.
#[derive(Clone, Debug)]
pub struct StableDiffusionFolder {
    root: PathBuf,
    index: ConfigFile,
    unet: UNetConfig,
    vae: VaeConfig,
    text_encoder: ClipTextConfig,
    unet_file: ConfigFile,
    scheduler: ConfigFile,
}

impl StableDiffusionFolder {
    /// Reads `model_index.json` and the configurations; the weights stay on disk.
    ///
    /// # Errors
    /// If a file is missing or malformed, a part is of a class or shape that is not supported, or the parts don't fit
    /// together.
    pub fn open(root: &Path) -> Result<Self> {
        let index = ConfigFile::read(&root.join("model_index.json"))?;
        index.only("_class_name", &[json!("StableDiffusionPipeline")])?;
        for component in Component::ALL {
            index.only(component.folder(), &[json!(component.class())])?;
        }
        let config =
            |component: Component| ConfigFile::read(&root.join(component.folder()).join("config.json"));
        let unet_file = config(Component::UNet)?;
        let folder = Self {
            root: root.into(),
            index,
            unet: UNetConfig::from_file(&unet_file)?,
            vae: VaeConfig::from_file(&config(Component::Vae)?)?,
            text_encoder: ClipTextConfig::from_file(&config(Component::TextEncoder)?)?,
            unet_file,
            scheduler: ConfigFile::read(&root.join("scheduler/scheduler_config.json"))?,
        };
        folder.check()?;
        Ok(folder)
    }

    /// Checks that what one part gives is what the next one takes.
    fn check(&self) -> Result<()> {
        let (unet, latent) = (&self.unet, self.vae.latent_channels);
        let pairs = [
            (
                "cross_attention_dim",
                unet.cross_attention_dim,
                self.text_encoder.hidden_size,
                "the text encoder's width",
            ),
            ("in_channels", unet.in_channels, latent, "the autoencoder's latent channels"),
            ("out_channels", unet.out_channels, latent, "the autoencoder's latent channels"),
        ];
        match pairs.into_iter().find(|(_, found, expected, _)| found != expected) {
            Some((field, found, expected, whose)) => Err(ModelError::Field {
                path: self.unet_file.path().into(),
                field: field.to_owned(),
                expected: format!("{expected}, {whose}"),
                found: found.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The U-Net's configuration.
    #[must_use]
    pub fn unet_config(&self) -> &UNetConfig {
        &self.unet
    }

    /// The autoencoder's configuration.
    #[must_use]
    pub fn vae_config(&self) -> &VaeConfig {
        &self.vae
    }

    /// The text encoder's configuration.
    #[must_use]
    pub fn text_encoder_config(&self) -> &ClipTextConfig {
        &self.text_encoder
    }

    /// `scheduler/scheduler_config.json`, which says what noise the U-Net was trained on.
    #[must_use]
    pub fn scheduler(&self) -> &ConfigFile {
        &self.scheduler
    }

    /// The tokenizer's folder.
    #[must_use]
    pub fn tokenizer(&self) -> PathBuf {
        self.root.join("tokenizer")
    }

    /// Copies the tokenizer's files.
    ///
    /// # Errors
    /// If one cannot be read or written.
    pub fn copy_tokenizer(&self, target: &Path) -> Result<()> {
        copy_files(&self.tokenizer(), target)
    }

    /// Reads the parameters of one network.
    ///
    /// # Errors
    /// If its weight file is missing or malformed.
    pub fn params(&self, component: Component, device: &Device) -> Result<Params> {
        let folder = self.root.join(component.folder());
        let mut tensors = files::read_folder(&folder, component.stem(), device)?;
        // A table 0, 1, 2, … that older versions of transformers saved; it is no parameter.
        tensors.retain(|name, _| !name.ends_with("embeddings.position_ids"));
        Ok(Params::new(&folder.display().to_string(), tensors, device))
    }

    /// Reads the text encoder, without gradients.
    ///
    /// # Errors
    /// If its weights are missing, malformed or do not fit its configuration.
    pub fn read_text_encoder(&self, device: &Device) -> Result<ClipTextModel> {
        let params = self.params(Component::TextEncoder, device)?;
        params.build(|scope| ClipTextModel::new(scope, &self.text_encoder))
    }

    /// Reads the autoencoder, without gradients.
    ///
    /// # Errors
    /// If its weights are missing, malformed or do not fit its configuration.
    pub fn read_vae(&self, device: &Device) -> Result<AutoencoderKl> {
        let params = self.params(Component::Vae, device)?;
        params.build(|scope| AutoencoderKl::new(scope, &self.vae))
    }

    /// Writes the folder of the same pipeline with another U-Net of the same shape. The other parts are copied.
    ///
    /// `float` is the type that the U-Net's weights are stored in: F32, F16 or BF16.
    ///
    /// # Errors
    /// If a file cannot be read or written, the target is this folder itself, or the parameters carry an adapter.
    pub fn save_with_unet(&self, target: &Path, unet: &Params, float: DType) -> Result<()> {
        std::fs::create_dir_all(target).map_err(|source| ModelError::File { path: target.into(), source })?;
        if is_same(&self.root, target)? {
            let source =
                std::io::Error::other("a trained model cannot replace the one that it was trained from");
            return Err(ModelError::File { path: target.into(), source });
        }
        for part in ["vae", "text_encoder", "tokenizer", "scheduler"] {
            copy_files(&self.root.join(part), &target.join(part))?;
        }
        Component::UNet.save(target, self.unet_file.value(), unet, float)?;
        let entry = |part: &str| self.index.get(part).cloned();
        let tokenizer = entry("tokenizer").unwrap_or_else(|| json!(["transformers", "CLIPTokenizer"]));
        let scheduler = entry("scheduler").unwrap_or_else(|| json!(["diffusers", "DDIMScheduler"]));
        files::write_json(&target.join("model_index.json"), &index(&tokenizer, &scheduler))
    }
}

/// Writes `model_index.json` for a folder of this crate's three networks, a CLIP tokenizer and a scheduler of the given
/// diffusers class, for example `DDIMScheduler`.
///
/// # Errors
/// If the file cannot be written.
pub fn save_index(root: &Path, scheduler_class: &str) -> Result<()> {
    let index = index(&json!(["transformers", "CLIPTokenizer"]), &json!(["diffusers", scheduler_class]));
    files::write_json(&root.join("model_index.json"), &index)
}

fn index(tokenizer: &Value, scheduler: &Value) -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": super::DIFFUSERS_VERSION,
        "feature_extractor": [null, null],
        "image_encoder": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": scheduler,
        "text_encoder": Component::TextEncoder.class(),
        "tokenizer": tokenizer,
        "unet": Component::UNet.class(),
        "vae": Component::Vae.class(),
    })
}

fn is_same(a: &Path, b: &Path) -> Result<bool> {
    let real = |path: &Path| {
        std::fs::canonicalize(path).map_err(|source| ModelError::File { path: path.into(), source })
    };
    Ok(real(a)? == real(b)?)
}

/// Copies the files that lie directly in a folder.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| ModelError::File { path, source }
    };
    std::fs::create_dir_all(to).map_err(at(to))?;
    for entry in std::fs::read_dir(from).map_err(at(from))? {
        let path = entry.map_err(at(from))?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            std::fs::copy(&path, to.join(name)).map_err(at(&path))?;
        }
    }
    Ok(())
}
