//! Models as sums see them: what must be the same, which networks are added, and how a folder of the result is written.

use crate::cli::{Failure, Outcome};
use candle_core::{DType, Device};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use votive_data::{ClipTokenizer, TextTokenizer};
use votive_diffusion::NoiseSchedule;
use votive_model::config::ConfigFile;
use votive_model::stable_diffusion::{Component, StableDiffusionFolder};
use votive_model::{
    Adaptable, CausalLmConfig, Lora, Params, PipelineLora, files, hub_folder, load_causal_lm,
};
use votive_train::Modality;

/// Which network of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Network {
    Language,
    Of(Adaptable),
}

/// The networks of a model.
pub(super) type Networks = BTreeMap<Network, Params>;

/// The folder of a model, whose configurations were read.
pub(super) enum Model {
    Text(PathBuf, CausalLmConfig, Box<TextTokenizer>),
    Image(Box<StableDiffusionFolder>, Vec<ClipTokenizer>),
}

impl Model {
    pub(super) fn open(folder: &Path) -> Outcome<Self> {
        Ok(match Modality::of(folder)? {
            Modality::Text => {
                let tokenizer = Box::new(TextTokenizer::load(folder)?);
                Self::Text(folder.to_owned(), CausalLmConfig::read_folder(folder)?, tokenizer)
            }
            Modality::Image => {
                let folder = Box::new(StableDiffusionFolder::open(folder)?);
                let load = |tokenizer: &PathBuf| ClipTokenizer::load(tokenizer);
                let tokenizers = folder.tokenizers().iter().map(load).collect::<Result<_, _>>()?;
                Self::Image(folder, tokenizers)
            }
        })
    }

    pub(super) fn folder(&self) -> &Path {
        match self {
            Self::Text(folder, ..) => folder,
            Self::Image(folder, _) => folder.root(),
        }
    }

    /// Reads the networks that are added up.
    pub(super) fn networks(&self, device: &Device) -> Outcome<Networks> {
        match self {
            Self::Text(folder, ..) => {
                let (config, params) = load_causal_lm(folder, device)?;
                // Tensors that the architecture does not have would be passed on unseen.
                params.build(|scope| config.build(scope))?;
                Ok(BTreeMap::from([(Network::Language, params)]))
            }
            Self::Image(folder, _) => {
                let none = PipelineLora::default();
                let read = |network| Ok((Network::Of(network), folder.adapted(network, &none, device)?));
                folder.adaptable().map(read).collect()
            }
        }
    }

    /// Reads an adapter by network, and checks that all of it is for this model.
    pub(super) fn adapter(&self, path: &Path, device: &Device) -> Outcome<BTreeMap<Network, Lora>> {
        match self {
            Self::Text(..) => Ok(BTreeMap::from([(Network::Language, Lora::load(path, device)?)])),
            Self::Image(folder, _) => {
                let adapters = PipelineLora::load(path, device)?;
                folder.check_networks_of(&adapters)?;
                let of = |network| Some((Network::Of(network), adapters.get(network)?.clone()));
                Ok(adapters.networks().filter_map(of).collect())
            }
        }
    }

    /// Refuses a model that is not of the same kind, shape and vocabulary.
    pub(super) fn check_same(&self, other: &Self, device: &Device) -> Outcome {
        let wrong = |what: &str| {
            let (own, other) = (self.folder().display(), other.folder().display());
            Err(Failure::data(format!("{other}: {what} than {own}")))
        };
        match (self, other) {
            (Self::Text(_, own, own_tokenizer), Self::Text(_, config, tokenizer)) => {
                if !own.is_same_network(config) {
                    return wrong("another architecture or other sizes in its config.json");
                }
                match own_tokenizer.difference(tokenizer) {
                    Some(difference) => wrong(&format!("{difference}, so it is another model")),
                    None => Ok(()),
                }
            }
            (Self::Image(own, own_tokenizers), Self::Image(folder, tokenizers)) => {
                if own.unet_config() != folder.unet_config() {
                    return wrong("another U-Net in its config.json");
                }
                if own.text_encoder_configs() != folder.text_encoder_configs() {
                    return wrong("another text encoder in its config.json");
                }
                let predicts = |folder: &StableDiffusionFolder| {
                    NoiseSchedule::new(folder.scheduler()).map(|schedule| schedule.prediction_type())
                };
                if predicts(own)? != predicts(folder)? {
                    return wrong("another prediction_type in its scheduler_config.json");
                }
                let mut both = own_tokenizers.iter().zip(tokenizers);
                if !both.all(|(own, other)| own.is_same_vocabulary(other)) {
                    return wrong("another tokenizer");
                }
                let vae = |folder: &StableDiffusionFolder| folder.params(Component::Vae, device);
                let (own, other) = (vae(own)?, vae(folder)?);
                match own.check_same_tensors(&other).is_ok() && own.largest_difference(&other)? == 0.0 {
                    true => Ok(()),
                    false => wrong("another autoencoder, so that its latents mean something else,"),
                }
            }
            _ => wrong("another kind of model"),
        }
    }

    /// The type that the model's weights are stored in.
    pub(super) fn stored_dtype(&self) -> Outcome<DType> {
        Ok(match self {
            Self::Text(folder, ..) => hub_folder::stored_dtype(folder)?,
            Self::Image(folder, _) => {
                files::stored_float(&folder.root().join(Component::UNet.folder()), "diffusion_pytorch_model")?
            }
        })
    }

    /// Writes a folder of this model with other weights. A text encoder that is what it was is copied.
    pub(super) fn write(
        &self,
        out: &Path,
        networks: &Networks,
        changed: impl Fn(Network) -> bool,
        (float, shard_bytes): (DType, u64),
    ) -> Outcome {
        match self {
            Self::Text(folder, config, _) => {
                hub_folder::copy_companions(folder, out, float)?;
                for params in networks.values() {
                    hub_folder::write_weights(out, (config, params), float, shard_bytes)?;
                }
                Ok(())
            }
            Self::Image(folder, _) => {
                if let Some(unet) = networks.get(&Network::Of(Adaptable::UNet)) {
                    folder.save_with_unet(out, unet, float)?;
                }
                for network in folder.adaptable().filter(|network| *network != Adaptable::UNet) {
                    let name = Network::Of(network);
                    let written = networks.get(&name).filter(|_| changed(name));
                    if let (Some(params), Some(component)) = (written, folder.component(network)) {
                        replace(component, folder, out, (params, float))?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Writes a network in the place of the one that was copied.
fn replace(
    component: Component,
    base: &StableDiffusionFolder,
    out: &Path,
    (params, float): (&Params, DType),
) -> Outcome {
    let folder = out.join(component.folder());
    for entry in fs::read_dir(&folder).map_err(|error| Failure::file(&folder, error))? {
        let path = entry.map_err(|error| Failure::file(&folder, error))?.path();
        // The old weights, whole, in shards or in half precision.
        if path.to_string_lossy().contains(".safetensors") {
            fs::remove_file(&path).map_err(|error| Failure::file(&path, error))?;
        }
    }
    let config = ConfigFile::read(&base.root().join(component.folder()).join("config.json"))?;
    Ok(component.save(out, config.value(), params, float)?)
}
