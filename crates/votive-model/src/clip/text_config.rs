//! Configuration of [`super::ClipTextModel`]: the fields of transformers' `CLIPTextConfig`.

use super::layer::{activation, activation_name};
use crate::config::ConfigFile;
use crate::error::Result;
use serde_json::{Value, json};
use votive_tensor::Activation;

/// Shape of a text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the result.
    pub hidden_size: usize,
    /// Width inside the feed-forward nets.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// The longest prompt, in tokens.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward nets.
    pub hidden_act: Activation,
    /// ε of the layer normalisations.
    pub layer_norm_eps: f64,
    /// Token that a prompt starts with.
    pub bos_token_id: u32,
    /// Token that a prompt ends with.
    pub eos_token_id: u32,
    /// Token that fills prompts up; the tokenizer has the last word on it.
    pub pad_token_id: u32,
    /// Width of the pooled prompt of a [`super::ClipTextModelWithProjection`]; nothing to others.
    pub projection_dim: usize,
}

impl Default for ClipTextConfig {
    /// The text encoder of Stable Diffusion 1.
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            bos_token_id: 49406,
            eos_token_id: 49407,
            pad_token_id: 1,
            projection_dim: 768,
        }
    }
}

impl ClipTextConfig {
    /// Reads a `config.json`. Absent fields have transformers' defaults. Dropout and the fields of the initialisation
    /// change nothing here.
    ///
    /// # Errors
    /// If a field has the wrong type, or a value that is not supported.
    pub fn from_file(file: &ConfigFile) -> Result<Self> {
        file.only("model_type", &[json!("clip_text_model")])?;
        let or = |field: &str, default: usize| -> Result<usize> {
            Ok(file.maybe_usize(field)?.unwrap_or(default))
        };
        // Lists of end tokens and ids beyond u32 say nothing to the network.
        let id = |field: &str, default: u32| {
            file.get(field).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()).unwrap_or(default)
        };
        let config = Self {
            vocab_size: or("vocab_size", 49408)?,
            hidden_size: or("hidden_size", 512)?,
            intermediate_size: or("intermediate_size", 2048)?,
            num_hidden_layers: or("num_hidden_layers", 12)?,
            num_attention_heads: or("num_attention_heads", 8)?,
            max_position_embeddings: or("max_position_embeddings", 77)?,
            hidden_act: activation(file, "hidden_act", "quick_gelu")?,
            layer_norm_eps: file.maybe_f64("layer_norm_eps")?.unwrap_or(1e-5),
            bos_token_id: id("bos_token_id", 49406),
            eos_token_id: id("eos_token_id", 49407),
            pad_token_id: id("pad_token_id", 1),
            projection_dim: or("projection_dim", 512)?,
        };
        if config.hidden_size == 0 || !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            return Err(file.unsupported("num_attention_heads", "a divisor of hidden_size"));
        }
        Ok(config)
    }

    /// The same for an encoder that pools, which must know where a prompt ends.
    ///
    /// # Errors
    /// As [`ClipTextConfig::from_file`]; if the end token is not one id, or there is no projection.
    pub fn with_projection(file: &ConfigFile) -> Result<Self> {
        let is_id = |value: &Value| value.as_u64().is_some_and(|id| u32::try_from(id).is_ok());
        if file.value().get("eos_token_id").is_some_and(|value| !is_id(value)) {
            return Err(file.unsupported("eos_token_id", "one token id: prompts are pooled at it"));
        }
        let config = Self::from_file(file)?;
        let given = file.value().get("projection_dim");
        if config.projection_dim == 0 || given.is_some_and(Value::is_null) {
            return Err(file.unsupported("projection_dim", "at least 1"));
        }
        Ok(config)
    }

    /// The `config.json` of this configuration.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["CLIPTextModel"],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "dtype": "float32",
            "eos_token_id": self.eos_token_id,
            "hidden_act": activation_name(self.hidden_act),
            "hidden_size": self.hidden_size,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "layer_norm_eps": self.layer_norm_eps,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": "clip_text_model",
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "pad_token_id": self.pad_token_id,
            "projection_dim": self.projection_dim,
            "vocab_size": self.vocab_size,
        })
    }
}
