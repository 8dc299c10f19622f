//! What training and generation ask of a language model, whatever its architecture.

use crate::error::{ModelError, Result};
use crate::files;
use crate::llama::{KvCache, LlamaConfig};
use crate::params::Params;
use crate::prefix_tree::PrefixTree;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use votive_tensor::segment::Recorder;

/// A model that gives each token a probability from those before it.
pub trait CausalLm: Send + Sync {
    /// Number of token ids, V.
    fn vocabulary(&self) -> usize;

    /// Longest row in tokens.
    fn max_positions(&self) -> usize;

    /// Where the parameters live.
    fn device(&self) -> &Device;

    /// Log-probability of every wanted token given those before it in its row.
    ///
    /// What rows begin with alike is computed once.
    ///
    /// With a recorder the layers are recomputed in the backward instead of being kept.
    ///
    /// # Shapes
    /// → `(N,)`, in the order of [`TokenBatch::wanted`].
    /// # Units
    /// Nats.
    /// # Errors
    /// If a row is longer than the model's positions or a token id is not in the vocabulary.
    fn log_probs(&self, batch: &TokenBatch, recorder: Option<&Recorder>) -> Result<Tensor>;

    /// Room to generate: rows with the given left padding, `capacity` tokens each, padding included.
    ///
    /// # Errors
    /// Those of candle.
    fn cache(&self, left_padding: Vec<usize>, capacity: usize) -> Result<KvCache>;

    /// Logits of the token that follows `ids`, which join the cache.
    ///
    /// # Shapes
    /// `ids (B, T)` u32 → `(B, V)`.
    /// # Errors
    /// If the cache has no room, a row outgrows the model's positions or an id is not in the vocabulary.
    fn next_logits(&self, ids: &Tensor, cache: &mut KvCache) -> Result<Tensor>;
}

/// Rows of tokens, and the tokens among them whose log-probabilities are asked for.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    rows: Vec<Vec<u32>>,
    wanted: Vec<(usize, usize)>,
}

impl TokenBatch {
    /// Rows of any lengths, and (row, position) of each wanted token.
    ///
    /// # Errors
    /// If no token is wanted, or one is wanted that does not exist or that nothing precedes.
    pub fn new(rows: Vec<Vec<u32>>, wanted: Vec<(usize, usize)>) -> Result<Self> {
        if wanted.is_empty() {
            return Err(ModelError::Tokens("no token is asked for".to_owned()));
        }
        let exists =
            |&(row, at): &(usize, usize)| at > 0 && rows.get(row).is_some_and(|tokens| at < tokens.len());
        match wanted.iter().find(|place| !exists(place)) {
            Some((row, at)) => Err(ModelError::Tokens(format!(
                "row {row} has no token at position {at} that follows another"
            ))),
            None => Ok(Self { rows, wanted }),
        }
    }

    /// The tokens of each row.
    #[must_use]
    pub fn rows(&self) -> &[Vec<u32>] {
        &self.rows
    }

    /// (row, position) of each wanted token.
    #[must_use]
    pub fn wanted(&self) -> &[(usize, usize)] {
        &self.wanted
    }

    /// The wanted tokens.
    #[must_use]
    pub fn targets(&self) -> Vec<u32> {
        self.wanted.iter().map(|&(row, at)| self.rows[row][at]).collect()
    }

    /// Everything that a wanted token can depend on, what rows begin with alike only once.
    pub(crate) fn contexts(&self) -> PrefixTree {
        let mut ends = vec![0; self.rows.len()];
        self.wanted.iter().for_each(|&(row, at)| ends[row] = ends[row].max(at));
        let rows: Vec<&[u32]> = self.rows.iter().zip(ends).map(|(row, end)| &row[..end]).collect();
        PrefixTree::new(&rows)
    }

    /// Where in `contexts` the token before each wanted one lies.
    pub(crate) fn places(&self, contexts: &PrefixTree) -> Vec<u32> {
        let place = |&(row, at): &(usize, usize)| contexts.place(row, at - 1);
        self.wanted.iter().filter_map(place).map(|place| place as u32).collect()
    }

    /// Checks that every id is below the vocabulary's size.
    ///
    /// # Errors
    /// If one is not, with its place.
    pub fn check(&self, vocabulary: usize) -> Result<()> {
        check_ids(&self.rows, vocabulary)
    }
}

/// Checks that every id is below the vocabulary's size.
pub(crate) fn check_ids(rows: &[Vec<u32>], vocabulary: usize) -> Result<()> {
    for (row, tokens) in rows.iter().enumerate() {
        if let Some(at) = tokens.iter().position(|id| *id as usize >= vocabulary) {
            return Err(ModelError::Tokens(format!(
                "row {row}, position {at}: token id {} is not below the model's vocabulary size {vocabulary}; \
                 does the tokenizer belong to this model?",
                tokens[at]
            )));
        }
    }
    Ok(())
}

/// Whether a tensor carries nothing, though some checkpoints hold it: a head that is the embedding again, or the
/// frequencies that older versions of transformers saved. Nothing computes with it, so it cannot be trained.
fn is_leftover(config: &LlamaConfig, name: &str) -> bool {
    (config.tie_word_embeddings && name == "lm_head.weight") || name.ends_with(".rotary_emb.inv_freq")
}

/// Reads a language model's hub folder: `config.json`, and `model.safetensors` or its shards.
///
/// # Errors
/// If a file is missing or malformed, or the architecture is not supported.
pub fn load_causal_lm(folder: &Path, device: &Device) -> Result<(LlamaConfig, Params)> {
    let config = LlamaConfig::read_folder(folder)?;
    let mut tensors = files::read_folder(folder, "model", device)?;
    tensors.retain(|name, _| !is_leftover(&config, name));
    Ok((config, Params::new(&folder.display().to_string(), tensors, device)))
}

/// Writes `config.json` and `model.safetensors` of a language model; `float` is F32, F16 or BF16.
///
/// # Errors
/// If a file cannot be written, or the parameters carry an adapter, which has files of its own.
pub fn save_causal_lm(folder: &Path, config: &LlamaConfig, params: &Params, float: DType) -> Result<()> {
    let dtype = match float {
        DType::F32 => "float32",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        other => {
            return Err(ModelError::Tokens(format!("weights are stored as f32, f16 or bf16, not {other:?}")));
        }
    };
    if params.lora().is_some() {
        return Err(ModelError::Adapter(
            "merge it or save it by itself; a model folder holds whole weights".to_owned(),
        ));
    }
    let tensors = params.iter().filter(|(name, _)| !is_leftover(config, name));
    let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor.clone()));
    files::write(&folder.join("model.safetensors"), tensors, float, BTreeMap::new())?;
    files::write_json(&folder.join("config.json"), &config.to_json(dtype))
}
