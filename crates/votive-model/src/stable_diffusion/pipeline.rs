//! The folder of a Stable Diffusion model, as diffusers' `StableDiffusionPipeline` and `StableDiffusionXLPipeline` read
//! and write it.

use super::component::Component;
use super::model_index::{ModelIndex, PipelineClass};
use super::text_encoders::TextEncoders;
use super::unet_config::UNetConfig;
use super::vae::AutoencoderKl;
use super::vae_config::VaeConfig;
use crate::clip::{ClipTextConfig, ClipTextModel, ClipTextModelWithProjection};
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::files;
use crate::lora::{Adaptable, PipelineLora};
use crate::params::Params;
use candle_core::{DType, Device};
use std::path::{Path, PathBuf};
use votive_diffusion::{ImageSizes, SchedulerConfig};

/// A Stable Diffusion 1, 2 or XL folder whose configurations have been read and fit together.
#[derive(Clone, Debug)]
pub struct StableDiffusionFolder {
    root: PathBuf,
    index: ModelIndex,
    unet: UNetConfig,
    vae: VaeConfig,
    text_encoder: ClipTextConfig,
    text_encoder_2: Option<ClipTextConfig>,
    unet_file: ConfigFile,
    scheduler: SchedulerConfig,
    forces_zeros: bool,
}

impl StableDiffusionFolder {
    /// Reads `model_index.json` and the configurations; the weights stay on disk.
    ///
    /// # Errors
    /// If a file is missing or malformed, a part is of a class or shape that is not supported, or the parts don't fit
    /// together.
    pub fn open(root: &Path) -> Result<Self> {
        let index = ModelIndex::read(root)?;
        let config =
            |component: Component| ConfigFile::read(&root.join(component.folder()).join("config.json"));
        let unet_file = config(Component::UNet)?;
        let text_encoder_2 = match index.class() {
            PipelineClass::StableDiffusion => None,
            PipelineClass::StableDiffusionXl => {
                Some(ClipTextConfig::with_projection(&config(Component::TextEncoder2)?)?)
            }
        };
        let folder = Self {
            root: root.into(),
            forces_zeros: index.forces_zeros()?,
            scheduler: scheduler(root, index.class())?,
            index,
            unet: UNetConfig::from_file(&unet_file)?,
            vae: VaeConfig::from_file(&config(Component::Vae)?)?,
            text_encoder: ClipTextConfig::from_file(&config(Component::TextEncoder)?)?,
            text_encoder_2,
            unet_file,
        };
        folder.check()?;
        Ok(folder)
    }

    /// Checks that what one part gives is what the next one takes.
    fn check(&self) -> Result<()> {
        self.check_addition()?;
        let (unet, latent) = (&self.unet, self.vae.latent_channels);
        let (width, whose) = match &self.text_encoder_2 {
            None => (self.text_encoder.hidden_size, "the text encoder's width"),
            Some(second) => {
                let both = self.text_encoder.hidden_size.saturating_add(second.hidden_size);
                (both, "the width of both text encoders together")
            }
        };
        let pairs = [
            ("cross_attention_dim", unet.cross_attention_dim, width, whose),
            ("in_channels", unet.in_channels, latent, "the autoencoder's latent channels"),
            ("out_channels", unet.out_channels, latent, "the autoencoder's latent channels"),
        ];
        match pairs.into_iter().find(|(_, found, expected, _)| found != expected) {
            Some((field, found, expected, whose)) => {
                Err(self.unet_mismatch(field, format!("{expected}, {whose}"), &found.to_string()))
            }
            None => Ok(()),
        }
    }

    /// Checks that the U-Net is told beside the prompt what the pipeline tells it.
    fn check_addition(&self) -> Result<()> {
        const INPUT: &str = "projection_class_embeddings_input_dim";
        match (&self.text_encoder_2, self.unet.addition) {
            (None, None) => Ok(()),
            (None, Some(_)) => {
                let expected = format!("nothing in a {}", PipelineClass::StableDiffusion.name());
                Err(self.unet_mismatch("addition_embed_type", expected, "text_time"))
            }
            (Some(_), None) => {
                let expected = format!("text_time in a {}", PipelineClass::StableDiffusionXl.name());
                Err(self.unet_mismatch("addition_embed_type", expected, "nothing"))
            }
            (Some(second), Some(addition)) => {
                let with = |sizes: usize| addition.time_embed_dim * sizes + second.projection_dim;
                if with(ImageSizes::COUNT) == addition.input_dim {
                    return Ok(());
                }
                let is_refiner = with(ImageSizes::COUNT - 1) == addition.input_dim;
                let refiner =
                    if is_refiner { "; this is SDXL's refiner, which is not supported" } else { "" };
                let expected = format!(
                    "{}, six sizes of {} and the pooled prompt of {}{refiner}",
                    with(ImageSizes::COUNT),
                    addition.time_embed_dim,
                    second.projection_dim
                );
                Err(self.unet_mismatch(INPUT, expected, &addition.input_dim.to_string()))
            }
        }
    }

    fn unet_mismatch(&self, field: &str, expected: String, found: &str) -> ModelError {
        let path = self.unet_file.path().into();
        ModelError::Field { path, field: field.to_owned(), expected, found: found.to_owned() }
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

    /// Which pipeline it is.
    #[must_use]
    pub fn class(&self) -> PipelineClass {
        self.index.class()
    }

    /// Parts and settings of the folder that nothing here reads, such as a safety checker.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        self.index.unused()
    }

    /// Whether zeros stand for a negative prompt that is not given (`force_zeros_for_empty_prompt`), and not the empty
    /// prompt.
    #[must_use]
    pub fn forces_zeros_for_no_prompt(&self) -> bool {
        self.forces_zeros
    }

    /// The noise that the U-Net was trained on, as its pipeline samples from it.
    #[must_use]
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// The tokenizers' folders, in the order of the text encoders.
    #[must_use]
    pub fn tokenizers(&self) -> Vec<PathBuf> {
        self.class().tokenizers().iter().map(|name| self.root.join(name)).collect()
    }

    /// Copies the first tokenizer's files.
    ///
    /// # Errors
    /// If one cannot be read or written.
    pub fn copy_tokenizer(&self, target: &Path) -> Result<()> {
        copy_files(&self.root.join("tokenizer"), target)
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

    /// The configurations of the text encoders: of one, or of SDXL's two.
    #[must_use]
    pub fn text_encoder_configs(&self) -> Vec<&ClipTextConfig> {
        std::iter::once(&self.text_encoder).chain(&self.text_encoder_2).collect()
    }

    /// Reads the text encoders, without gradients and under their adapters.
    ///
    /// # Errors
    /// If weights are missing, malformed or do not fit their configuration, or an adapter was made for another network.
    pub fn read_text_encoders(&self, adapters: &PipelineLora, device: &Device) -> Result<TextEncoders> {
        let first = self.adapted(Adaptable::TextEncoder, adapters, device)?;
        let first = first.build(|scope| ClipTextModel::new(scope, &self.text_encoder))?;
        let second = |config| {
            let params = self.adapted(Adaptable::TextEncoder2, adapters, device)?;
            params.build(|scope| ClipTextModelWithProjection::new(scope, config))
        };
        Ok(TextEncoders::new(first, self.text_encoder_2.as_ref().map(second).transpose()?))
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
        let networks = self.class().components().iter().filter(|part| **part != Component::UNet);
        let tokenizers = self.class().tokenizers().iter().copied();
        for part in networks.map(|part| part.folder()).chain(tokenizers).chain(["scheduler"]) {
            copy_files(&self.root.join(part), &target.join(part))?;
        }
        Component::UNet.save(target, self.unet_file.value(), unet, float)?;
        self.index.save(target)
    }
}

/// The scheduler as the pipeline sets it up: that of Stable Diffusion corrects old files, SDXL's takes them as they are.
fn scheduler(root: &Path, class: PipelineClass) -> Result<SchedulerConfig> {
    Ok(match class {
        PipelineClass::StableDiffusion => SchedulerConfig::from_model_folder(root)?,
        PipelineClass::StableDiffusionXl => {
            SchedulerConfig::read(&root.join("scheduler").join("scheduler_config.json"))?
        }
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
