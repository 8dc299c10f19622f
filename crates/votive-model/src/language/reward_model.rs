//! Reward models: a decoder of any architecture under a head of one row, which says how good a text is.
//!
//! This is what transformers calls sequence classification with one label (`LlamaForSequenceClassification` and so on): the head
//! `score` reads the hidden state of a text's last token that is not padding. Where the padding token is the end-of-text token
//! too, that is the token before the end.

use super::decoder::Roots;
use super::{Architecture, Network, files, is_linear_map, with_dtype, without_dtype};
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::hub_folder::torch_dtype;
use crate::language::{Decoder, Sizes};
use crate::params::{Params, Scope};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use votive_tensor as ops;
use votive_tensor::Recorder;
use votive_tensor::{Storage, StoredMatrix};

/// The head's module, which an adapter has whole (`modules_to_save`), as PEFT does for the task `SEQ_CLS`.
pub const SCORE: &str = "score";
/// The head's one tensor, `(1, D)`.
pub(super) const SCORE_WEIGHT: &str = "score.weight";

/// What transformers calls the one label, for want of a better name.
const LABEL: &str = "LABEL_0";

/// The `config.json` of a reward model of any supported architecture.
#[derive(Clone, Debug)]
pub struct RewardModelConfig {
    json: Value,
    network: Arc<dyn Network>,
    pad_token_id: Option<u32>,
}

impl RewardModelConfig {
    /// Whether a folder's `config.json` is that of a reward model, or of another classifier of texts.
    ///
    /// # Errors
    /// If there is no such file, or it is not JSON.
    pub fn is_in(folder: &Path) -> Result<bool> {
        let file = ConfigFile::read(&folder.join("config.json"))?;
        let classes = file.get("architectures").and_then(Value::as_array).into_iter().flatten();
        Ok(classes.filter_map(Value::as_str).any(|class| class.ends_with("ForSequenceClassification")))
    }

    /// Reads a `config.json`; absent fields are what transformers' configuration class makes them.
    ///
    /// # Errors
    /// If the architecture or a field's value is not supported, there is not exactly one label, or a field is missing, has the wrong
    /// type, or contradicts another.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let row = Architecture::of_type(file)?;
        file.only("architectures", &[json!([reward_class(row, file)?])])?;
        row.without_own_code(file, "AutoModelForSequenceClassification")?;
        one_label(file)?;
        let pad_token_id = match file.value().get("pad_token_id") {
            None => row.pad_token_id,
            Some(_) => file.maybe_usize("pad_token_id")?.map(|id| id as u32),
        };
        // A decoder whose head is its embedding has no tensors but its body's, which is all that is read of it here.
        let body = file.with(&[("tie_word_embeddings", json!(true))]);
        Ok(Self { json: file.value().clone(), network: (row.read)(&body)?, pad_token_id })
    }

    /// The configuration of a reward model on a language model's body. `pad_token_id` fills up batches and is passed over at the end
    /// of a text.
    ///
    /// # Errors
    /// As [`RewardModelConfig::read`].
    pub fn on_language_model(file: &ConfigFile, pad_token_id: u32) -> Result<Self> {
        let row = Architecture::of(file)?;
        // Code that a folder brings is of the language model alone.
        let reward = file.without("auto_map").with(&[
            ("architectures", json!([reward_class(row, file)?])),
            ("id2label", json!({ "0": LABEL })),
            ("label2id", json!({ LABEL: 0 })),
            ("pad_token_id", json!(pad_token_id)),
        ]);
        Self::read(&reward)
    }

    /// How large the decoder is.
    #[must_use]
    pub fn sizes(&self) -> &Sizes {
        self.network.sizes()
    }

    /// Rows of the embedding, V; at least the size of the tokenizer's vocabulary.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.sizes().vocab_size
    }

    /// Longest row in tokens.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.sizes().max_position_embeddings
    }

    /// The network at the root of a checkpoint.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub fn build(&self, scope: &Scope) -> Result<RewardModel> {
        let decoder = self.network.decoder(&Roots::of(scope))?;
        Ok(RewardModel { decoder, score: self.head(scope)?, pad_token_id: self.pad_token_id })
    }

    fn head(&self, scope: &Scope) -> Result<Tensor> {
        let sizes = self.sizes();
        scope.sub(SCORE).get("weight", &[1, sizes.hidden_size], sizes.init())
    }

    /// The `config.json` of these weights, stored in a type with torch's name `dtype`, e.g. `float16`.
    #[must_use]
    pub fn to_json(&self, dtype: &str) -> Value {
        with_dtype(&self.json, dtype)
    }

    /// Reads the weights of a folder, those of linear maps as `storage` says; what no reward model has is left out.
    fn weights(&self, folder: &Path, device: &Device, storage: Option<Storage>) -> Result<Params> {
        let (mut tensors, mut stored) = (BTreeMap::new(), BTreeMap::new());
        files::read_folder_each(folder, "model", device, &mut |name, tensor| {
            match storage.filter(|_| is_linear_map(&name, &tensor)) {
                Some(storage) => drop(stored.insert(name, StoredMatrix::new(&tensor, storage)?)),
                None if name == "lm_head.weight" || name.ends_with(".rotary_emb.inv_freq") => {}
                None => drop(tensors.insert(name, tensor)),
            }
            Ok(())
        })?;
        Ok(Params::new(&folder.display().to_string(), tensors, device).with_stored(stored))
    }
}

/// transformers' name of an architecture's reward models.
fn reward_class(row: &Architecture, file: &ConfigFile) -> Result<&'static str> {
    let what = "a reward model is made of a language model that reads text alone";
    row.reward_class.ok_or_else(|| file.unsupported("model_type", what))
}

/// Refuses a classifier that has not one label. transformers counts `id2label`, and takes two where there is none.
fn one_label(file: &ConfigFile) -> Result<()> {
    let what = "a reward model has one label, such as {\"0\": \"LABEL_0\"}";
    match file.get("id2label").map(|labels| labels.as_object().map(serde_json::Map::len)) {
        Some(Some(1)) => file.only("num_labels", &[json!(1)]),
        None if file.get("num_labels") == Some(&json!(1)) => Ok(()),
        None if file.get("num_labels").is_some() => Err(file.unsupported("num_labels", what)),
        _ => Err(file.unsupported("id2label", what)),
    }
}

/// Configurations are equal if they describe the same network, whatever type its weights are stored in.
impl PartialEq for RewardModelConfig {
    fn eq(&self, other: &Self) -> bool {
        without_dtype(&self.json) == without_dtype(&other.json)
    }
}

/// Reads a reward model's hub folder, its linear maps frozen and kept as `storage` says, if it says anything.
///
/// # Errors
/// If a file is missing or malformed, or it is no reward model of a supported architecture.
pub fn load_reward_model(
    folder: &Path,
    device: &Device,
    storage: Option<Storage>,
) -> Result<(RewardModelConfig, Params)> {
    let config = RewardModelConfig::read(&ConfigFile::read(&folder.join("config.json"))?)?;
    let params = config.weights(folder, device, storage)?;
    Ok((config, params))
}

/// Reads a language model's hub folder and puts a fresh head on it, normal with the model's `initializer_range` as its standard
/// deviation, as transformers starts one; drawn from `seed`.
///
/// # Errors
/// If a file is missing or malformed, or the architecture is not supported.
pub fn new_reward_model(
    folder: &Path,
    device: &Device,
    storage: Option<Storage>,
    (pad_token_id, seed): (u32, u64),
) -> Result<(RewardModelConfig, Params)> {
    let file = ConfigFile::read(&folder.join("config.json"))?;
    let config = RewardModelConfig::on_language_model(&file, pad_token_id)?;
    let (_, head) = Params::fresh(seed, device, |scope| config.head(scope))?;
    let params = config.weights(folder, device, storage)?.with_tensors(head);
    Ok((config, params))
}

/// Writes `config.json` and `model.safetensors` of a reward model, as transformers loads it; `float` is F32, F16 or BF16.
///
/// # Errors
/// If a file cannot be written, or the parameters carry an adapter, which has files of its own.
pub fn save_reward_model(
    folder: &Path,
    config: &RewardModelConfig,
    params: &Params,
    float: DType,
) -> Result<()> {
    if params.lora().is_some() {
        return Err(ModelError::Adapter(
            "merge it or save it by itself; a model folder holds whole weights".to_owned(),
        ));
    }
    let tensors = params.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone()));
    files::write(&folder.join("model.safetensors"), tensors, float, BTreeMap::new())?;
    files::write_json(&folder.join("config.json"), &config.to_json(torch_dtype(float)?))
}

/// A network that says how good a text is.
#[derive(Clone, Debug)]
pub struct RewardModel {
    decoder: Decoder,
    /// `(1, D)`.
    score: Tensor,
    pad_token_id: Option<u32>,
}

impl RewardModel {
    /// The reward of every text, `(R,)`, in no unit: differences between completions of one prompt are what was trained.
    ///
    /// What rows begin with alike is computed once. With a recorder the layers are recomputed in the backward instead of being
    /// kept. Under LongRoPE the length of each text decides its angles, where transformers takes that of the longest in its batch.
    ///
    /// # Errors
    /// If a row is empty or longer than the model's positions, or a token id is not in the vocabulary.
    pub fn rewards(&self, rows: &[Vec<u32>], recorder: Option<&Recorder>) -> Result<Tensor> {
        if let Some(row) = rows.iter().position(Vec::is_empty) {
            return Err(ModelError::Tokens(format!("row {row} has no tokens, so it cannot be scored")));
        }
        let at: Vec<usize> = rows.iter().map(|row| self.last(row)).collect();
        let hidden = self.decoder.hidden_at(rows, &at, recorder)?;
        Ok(ops::linear(&hidden, &self.score, None)?.squeeze(1)?)
    }

    /// The place whose hidden state is read: that of the last token that is not padding.
    fn last(&self, row: &[u32]) -> usize {
        match self.pad_token_id {
            None => row.len() - 1,
            Some(pad) => row.iter().rposition(|id| *id != pad).unwrap_or(0),
        }
    }
}
