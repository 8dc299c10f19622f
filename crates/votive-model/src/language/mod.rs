//! Language models: which architectures there are, and what they are built of.
//!
//! An architecture is a file or folder here that reads its `config.json` and builds a [`Decoder`] of its own layers out
//! of small blocks, and a row of [`ARCHITECTURES`].

mod attention;
mod block;
mod cache;
mod decoder;
mod gemma;
pub mod llama;
mod llava;
mod longrope;
mod mlp;
mod olmo2;
mod phi3;
mod positions;
mod qwen3_vl;
mod reward_model;
mod rope;
mod sizes;
mod smollm3;
mod vision;

pub use cache::KvCache;
pub use decoder::Decoder;
pub use reward_model::{RewardModel, RewardModelConfig, SCORE};
pub use reward_model::{load_reward_model, new_reward_model, save_reward_model};
pub use sizes::Sizes;

use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::files;
use crate::image_processor::ImageProcessor;
use crate::image_tokens::ImageTokens;
use crate::nn::TABLES;
use crate::params::{Params, Scope};
use candle_core::{DType, Device, Tensor};
use decoder::Roots;
use llama::{Family, LlamaConfig};
use reward_model::SCORE_WEIGHT;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use votive_tensor::{Storage, StoredMatrix};

/// One row of the registry.
pub struct Architecture {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Name of transformers' class, in `architectures`.
    pub class: &'static str,
    /// The same of reward models, sequence classification with one label, if transformers has it.
    pub reward_class: Option<&'static str>,
    /// `pad_token_id` that its configuration class assumes where there is none.
    pad_token_id: Option<u32>,
    /// It sees images.
    sees_images: bool,
    /// Code in a model's folder that may be passed over, because it is what that class is.
    own_code: Option<&'static str>,
    read: fn(&ConfigFile) -> Result<Arc<dyn Network>>,
}

/// Every supported language model.
pub const ARCHITECTURES: &[Architecture] = &[
    llama::architecture(Family::Llama),
    llama::architecture(Family::Mistral),
    llama::architecture(Family::Qwen2),
    llama::architecture(Family::Qwen3),
    llava::ARCHITECTURE,
    qwen3_vl::ARCHITECTURE,
    gemma::gemma1::ARCHITECTURE,
    gemma::gemma2::ARCHITECTURE,
    gemma::gemma3::ARCHITECTURE,
    olmo2::ARCHITECTURE,
    phi3::ARCHITECTURE,
    smollm3::ARCHITECTURE,
];

impl Architecture {
    /// Reads the configuration of the language model inside another one.
    fn read_text(config: &ConfigFile) -> Result<Arc<dyn Network>> {
        let row = Self::of(config)?;
        if row.sees_images {
            return Err(config.unsupported("model_type", "a language model that sees no images itself"));
        }
        (row.read)(config)
    }

    /// The row of a language model's configuration.
    fn of(config: &ConfigFile) -> Result<&'static Self> {
        let row = Self::of_type(config)?;
        let is_of = |class| config.get("architectures") == Some(&json!([class]));
        if row.reward_class.is_some_and(is_of) {
            let what = format!("a reward model, which gives scores and no words; supported: {}", row.class);
            return Err(config.unsupported("architectures", &what));
        }
        config.only("architectures", &[json!([row.class])])?;
        row.without_own_code(config, "AutoModelForCausalLM")
    }

    /// The row of a configuration's `model_type`.
    fn of_type(config: &ConfigFile) -> Result<&'static Self> {
        let model_type = config.maybe_str("model_type")?.unwrap_or_default();
        ARCHITECTURES.iter().find(|row| row.model_type == model_type).ok_or_else(|| {
            let known: Vec<_> = ARCHITECTURES.iter().map(|row| row.model_type).collect();
            config.unsupported("model_type", &format!("supported: {}", known.join(", ")))
        })
    }

    /// The row, unless the folder brings code of its own for what transformers calls `auto_class`.
    fn without_own_code(&'static self, config: &ConfigFile, auto_class: &str) -> Result<&'static Self> {
        let code = config.object("auto_map").and_then(|map| map.get(auto_class).cloned());
        match code {
            Some(code) if self.own_code.is_none_or(|own| code != own) => {
                Err(config.unsupported("auto_map", "models that bring their own code are not run"))
            }
            _ => Ok(self),
        }
    }
}

/// A configuration that was read: how large the network is, and how it is built.
trait Network: Debug + Send + Sync {
    fn sizes(&self) -> &Sizes;
    fn decoder(&self, roots: &Roots) -> Result<Decoder>;

    /// How images are read among tokens, if they are.
    fn image_tokens(&self) -> Option<ImageTokens> {
        None
    }

    /// The image processor in a folder of this model, if it sees images.
    fn image_processor(&self, _: &Path) -> Result<Option<Arc<dyn ImageProcessor>>> {
        Ok(None)
    }

    /// Numbers that a forward makes of images with so many vectors in all, all of which a backward wants: those of each layer of
    /// the image encoder, its layers, and the others.
    fn image_activations(&self, _: usize) -> (usize, usize, usize) {
        (0, 0, 0)
    }

    /// What names of tensors begin with in files, and as paths of modules, where the two differ.
    fn spellings(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

/// The `config.json` of a language model of any supported architecture.
#[derive(Clone, Debug)]
pub struct CausalLmConfig {
    /// As it was read; training changes nothing in it, so it is written back as it is.
    json: Value,
    network: Arc<dyn Network>,
}

/// Fields that name the type that weights are stored in: transformers 5's, and that of transformers 4.
const DTYPE_FIELDS: [&str; 2] = ["dtype", "torch_dtype"];

/// A configuration of weights that are stored in this type, which its parts name too if they name one.
pub(crate) fn with_dtype(config: &Value, dtype: &str) -> Value {
    let mut config = config.clone();
    let [new, old] = DTYPE_FIELDS;
    let field = if config.get(new).is_some() { new } else { old };
    config[field] = json!(dtype);
    for part in ["text_config", "vision_config"] {
        for field in DTYPE_FIELDS {
            if let Some(known) = config.get_mut(part).and_then(|part| part.get_mut(field)) {
                *known = json!(dtype);
            }
        }
    }
    config
}

/// A configuration with nothing said of the type that weights are stored in.
fn without_dtype(config: &Value) -> Value {
    let mut config = with_dtype(config, "");
    DTYPE_FIELDS.iter().for_each(|field| config[*field] = Value::Null);
    config
}

impl CausalLmConfig {
    /// Reads a `config.json`; absent fields are what transformers' configuration class makes them.
    ///
    /// # Errors
    /// If the architecture or a field's value is not supported, or a field is missing, has the wrong type, or
    /// contradicts another.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let network = (Architecture::of(file)?.read)(file)?;
        Ok(Self { json: file.value().clone(), network })
    }

    /// Reads a hub folder's `config.json`.
    ///
    /// # Errors
    /// Those of [`CausalLmConfig::read`].
    pub fn read_folder(folder: &Path) -> Result<Self> {
        Self::read(&ConfigFile::read(&folder.join("config.json"))?)
    }

    /// The network at the root of a checkpoint.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub fn build(&self, scope: &Scope) -> Result<Decoder> {
        self.network.decoder(&Roots::of(scope))
    }

    /// How images are read among tokens, if they are.
    #[must_use]
    pub fn image_tokens(&self) -> Option<ImageTokens> {
        self.network.image_tokens()
    }

    /// The image processor in a folder of this model, if it sees images.
    ///
    /// # Errors
    /// If a file is missing or malformed, or makes other images than the model reads.
    pub fn image_processor(&self, folder: &Path) -> Result<Option<Arc<dyn ImageProcessor>>> {
        self.network.image_processor(folder)
    }

    /// Numbers that a forward makes of images with so many vectors in all, all of which a backward wants: those of each layer of
    /// the image encoder, its layers, and the others; 0 where there are no images.
    #[must_use]
    pub fn image_activations(&self, vectors: usize) -> (usize, usize, usize) {
        self.network.image_activations(vectors)
    }

    /// The path of a tensor that a file calls `name`.
    fn path_of(&self, name: &str) -> String {
        let spelled = |(file, path): &(&str, &str)| Some(format!("{path}{}", name.strip_prefix(file)?));
        self.network.spellings().iter().find_map(spelled).unwrap_or_else(|| name.to_owned())
    }

    /// What a file calls the tensor of this path.
    pub(crate) fn name_in_files(&self, path: &str) -> String {
        let spelled = |(file, start): &(&str, &str)| Some(format!("{file}{}", path.strip_prefix(start)?));
        self.network.spellings().iter().find_map(spelled).unwrap_or_else(|| path.to_owned())
    }

    /// How large the network is.
    #[must_use]
    pub fn sizes(&self) -> &Sizes {
        self.network.sizes()
    }

    /// Whether two configurations are of the same network, whatever else their files say.
    #[must_use]
    pub fn is_same_network(&self, other: &Self) -> bool {
        format!("{:?}", self.network) == format!("{:?}", other.network)
    }

    /// Rows of the embedding, V; at least the size of the tokenizer's vocabulary.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.network.sizes().vocab_size
    }

    /// Longest row in tokens.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.network.sizes().max_position_embeddings
    }

    /// The `config.json` of these weights, stored in a type with torch's name `dtype`, e.g. `float16`.
    #[must_use]
    pub fn to_json(&self, dtype: &str) -> Value {
        with_dtype(&self.json, dtype)
    }

    /// Whether a tensor carries nothing, though some checkpoints hold it: a head that is the embedding again, or the
    /// frequencies that older versions of transformers saved. Nothing computes with it, so it cannot be trained.
    fn is_leftover(&self, name: &str) -> bool {
        (self.network.sizes().tie_word_embeddings && name == "lm_head.weight")
            || name.ends_with(".rotary_emb.inv_freq")
            || name.ends_with(".embeddings.position_ids")
    }
}

impl From<LlamaConfig> for CausalLmConfig {
    fn from(config: LlamaConfig) -> Self {
        Self { json: config.to_json("float32"), network: Arc::new(config) }
    }
}

/// Configurations are equal if they describe the same network, whatever type its weights are stored in.
impl PartialEq for CausalLmConfig {
    fn eq(&self, other: &Self) -> bool {
        without_dtype(&self.json) == without_dtype(&other.json)
    }
}

/// Reads a language model's hub folder: `config.json`, and `model.safetensors` or its shards.
///
/// # Errors
/// If a file is missing or malformed, or the architecture is not supported.
pub fn load_causal_lm(folder: &Path, device: &Device) -> Result<(CausalLmConfig, Params)> {
    load_causal_lm_stored(folder, device, None)
}

/// The same with the weights of linear maps frozen and kept as `storage` says, if it says anything; embedding, norms and
/// head are f32. No more than one weight is in memory twice.
///
/// # Errors
/// As [`load_causal_lm`].
pub fn load_causal_lm_stored(
    folder: &Path,
    device: &Device,
    storage: impl Into<Option<Storage>>,
) -> Result<(CausalLmConfig, Params)> {
    let storage = storage.into();
    let config = CausalLmConfig::read_folder(folder)?;
    let (mut tensors, mut stored) = (BTreeMap::new(), BTreeMap::new());
    files::read_folder_each(folder, "model", device, &mut |name, tensor| {
        let name = config.path_of(&name);
        match storage.filter(|_| is_linear_map(&name, &tensor)) {
            Some(storage) => drop(stored.insert(name, StoredMatrix::new(&tensor, storage)?)),
            None if config.is_leftover(&name) => {}
            None => drop(tensors.insert(name, tensor)),
        }
        Ok(())
    })?;
    let params = Params::new(&folder.display().to_string(), tensors, device);
    let params = params.with_stored(stored).read_by(|scope| config.build(scope));
    Ok((config, params))
}

/// Whether a tensor is the weight of a linear map, neither embedding nor head.
fn is_linear_map(name: &str, tensor: &Tensor) -> bool {
    let module = name.strip_suffix(".weight").filter(|_| tensor.rank() == 2 && !name.ends_with(SCORE_WEIGHT));
    module.is_some_and(|module| !TABLES.iter().any(|table| module.ends_with(table)))
}

/// Writes `config.json` and `model.safetensors` of a language model; `float` is F32, F16 or BF16.
///
/// # Errors
/// If a file cannot be written, or the parameters carry an adapter, which has files of its own.
pub fn save_causal_lm(folder: &Path, config: &CausalLmConfig, params: &Params, float: DType) -> Result<()> {
    let dtype = crate::hub_folder::torch_dtype(float)?;
    if params.lora().is_some() {
        return Err(ModelError::Adapter(
            "merge it or save it by itself; a model folder holds whole weights".to_owned(),
        ));
    }
    let tensors = params.iter().filter(|(name, _)| !config.is_leftover(name));
    let tensors = tensors.map(|(name, tensor)| (config.name_in_files(name), tensor.clone()));
    files::write(&folder.join("model.safetensors"), tensors, float, BTreeMap::new())?;
    files::write_json(&folder.join("config.json"), &config.to_json(dtype))
}
