//! `config.json` of the Llama family, as transformers 4 and 5 write it.

use super::Rope;
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::language::rope::DEFAULT_THETA;
use crate::language::sizes::{FULL, SLIDING, SizeDefaults, Sizes};
use crate::language::sizes::{layer_windows, refuse_what_is_not_implemented, window_size};
use serde_json::{Map, Value, json};

/// The architectures of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3, and what is built like them.
    Llama,
    /// Mistral: a sliding window in every layer.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen3 (dense): norms on each head's queries and keys.
    Qwen3,
}

impl Family {
    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// `model_type` in `config.json`.
    #[must_use]
    pub const fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// Name of transformers' class, in `architectures`.
    #[must_use]
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// Name of transformers' class of reward models.
    #[must_use]
    pub const fn reward_architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForSequenceClassification",
            Self::Mistral => "MistralForSequenceClassification",
            Self::Qwen2 => "Qwen2ForSequenceClassification",
            Self::Qwen3 => "Qwen3ForSequenceClassification",
        }
    }

    fn of(config: &ConfigFile) -> Result<Self> {
        let model_type = config.maybe_str("model_type")?.unwrap_or_default();
        let family = Self::ALL.into_iter().find(|family| family.model_type() == model_type);
        family.ok_or_else(|| config.unsupported("model_type", "a member of the Llama family"))
    }

    fn size_defaults(self) -> SizeDefaults {
        let llama = SizeDefaults::PLAIN;
        let qwen = SizeDefaults { key_value_heads: Some(32), max_positions: 32_768, ..llama };
        match self {
            Self::Llama => llama,
            Self::Mistral => SizeDefaults { key_value_heads: Some(8), max_positions: 131_072, ..llama },
            Self::Qwen2 => qwen,
            Self::Qwen3 => SizeDefaults { head_dim: Some(128), ..qwen },
        }
    }

    /// Ids that start and end a text when a configuration does not say.
    fn default_ids(self) -> [Option<u32>; 2] {
        match self {
            Self::Llama | Self::Mistral => [Some(1), Some(2)],
            Self::Qwen2 | Self::Qwen3 => [None, None],
        }
    }
}

/// Sizes and variants of a model of the family; the fields have their names in `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Which architecture.
    pub family: Family,
    /// Sizes.
    pub sizes: Sizes,
    /// Rotary positions.
    pub rope: Rope,
    /// For each layer how many newest keys a query sees, its own included; none means all.
    pub windows: Vec<Option<usize>>,
    /// Biases on the attention's projections (Llama and Qwen3 may have them; Qwen2 always has its own).
    pub attention_bias: bool,
    /// Biases in the SwiGLU (Llama).
    pub mlp_bias: bool,
    /// Id that starts a text.
    pub bos_token_id: Option<u32>,
    /// Ids that end a text.
    pub eos_token_id: Vec<u32>,
    /// Id that fills up a batch.
    pub pad_token_id: Option<u32>,
}

impl LlamaConfig {
    /// A Llama with the given sizes, everything else as transformers' `LlamaConfig` has it.
    #[must_use]
    pub fn llama(
        vocab_size: usize,
        (hidden_size, intermediate_size): (usize, usize),
        num_hidden_layers: usize,
        (num_attention_heads, num_key_value_heads): (usize, usize),
        max_position_embeddings: usize,
    ) -> Self {
        let sizes = Sizes {
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim: hidden_size / num_attention_heads.max(1),
            max_position_embeddings,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            initializer_range: 0.02,
        };
        Self {
            family: Family::Llama,
            sizes,
            rope: Rope::default(),
            windows: vec![None; num_hidden_layers],
            attention_bias: false,
            mlp_bias: false,
            bos_token_id: Some(1),
            eos_token_id: vec![2],
            pad_token_id: None,
        }
    }

    /// Reads a `config.json` of the family; absent fields are what transformers' configuration class makes them.
    ///
    /// # Errors
    /// If the model is of another family, a field's value is not supported, or a field is missing, has the wrong type, or contradicts another.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        let family = Family::of(config)?;
        refuse_what_is_not_implemented(config)?;
        config.only("hidden_act", &[json!("silu")])?;
        config.only("pretraining_tp", &[json!(1)])?;
        let sizes = Sizes::read(config, family.size_defaults())?;
        let [bos, eos] = family.default_ids();
        Ok(Self {
            family,
            rope: Rope::read(config, DEFAULT_THETA, sizes.max_position_embeddings)?,
            windows: windows(config, family, sizes.num_hidden_layers)?,
            sizes,
            attention_bias: matches!(family, Family::Llama | Family::Qwen3)
                && config.bool_or("attention_bias", false)?,
            mlp_bias: family == Family::Llama && config.bool_or("mlp_bias", false)?,
            bos_token_id: token_ids(config, "bos_token_id", bos)?.first().copied(),
            eos_token_id: token_ids(config, "eos_token_id", eos)?,
            pad_token_id: token_ids(config, "pad_token_id", None)?.first().copied(),
        })
    }

    /// The `config.json` of a model with this configuration, in fields that transformers 4 and 5 both read.
    ///
    /// `dtype` is torch's name of the type that the weights are stored in, e.g. `float16`.
    #[must_use]
    pub fn to_json(&self, dtype: &str) -> Value {
        let sizes = &self.sizes;
        let mut config = Map::new();
        let mut set = |field: &str, value: Value| config.insert(field.to_owned(), value);
        set("architectures", json!([self.family.architecture()]));
        set("model_type", json!(self.family.model_type()));
        set("vocab_size", json!(sizes.vocab_size));
        set("hidden_size", json!(sizes.hidden_size));
        set("intermediate_size", json!(sizes.intermediate_size));
        set("num_hidden_layers", json!(sizes.num_hidden_layers));
        set("num_attention_heads", json!(sizes.num_attention_heads));
        set("num_key_value_heads", json!(sizes.num_key_value_heads));
        set("head_dim", json!(sizes.head_dim));
        set("hidden_act", json!("silu"));
        set("max_position_embeddings", json!(sizes.max_position_embeddings));
        set("rms_norm_eps", json!(sizes.rms_norm_eps));
        set("initializer_range", json!(sizes.initializer_range));
        set("attention_dropout", json!(0.0));
        set("tie_word_embeddings", json!(sizes.tie_word_embeddings));
        set("bos_token_id", json!(self.bos_token_id));
        set("eos_token_id", ids_to_json(&self.eos_token_id));
        set("pad_token_id", json!(self.pad_token_id));
        set("torch_dtype", json!(dtype));
        set("use_cache", json!(true));
        if matches!(self.family, Family::Llama | Family::Qwen3) {
            set("attention_bias", json!(self.attention_bias));
        }
        if self.family == Family::Llama {
            set("mlp_bias", json!(self.mlp_bias));
        }
        self.write_windows(&mut config);
        self.rope.write(&mut config);
        Value::Object(config)
    }

    fn write_windows(&self, config: &mut Map<String, Value>) {
        let window = self.windows.iter().flatten().next();
        match self.family {
            Family::Llama => {}
            Family::Mistral => {
                config.insert("sliding_window".to_owned(), json!(window));
            }
            Family::Qwen2 | Family::Qwen3 => {
                let full = self.windows.iter().take_while(|window| window.is_none()).count();
                let kinds: Vec<_> =
                    self.windows.iter().map(|w| if w.is_some() { SLIDING } else { FULL }).collect();
                config.insert("use_sliding_window".to_owned(), json!(window.is_some()));
                config.insert("sliding_window".to_owned(), json!(window));
                config.insert("max_window_layers".to_owned(), json!(full));
                config.insert("layer_types".to_owned(), json!(kinds));
            }
        }
    }

    /// Whether queries, keys and values have biases.
    pub(super) fn qkv_bias(&self) -> bool {
        self.family == Family::Qwen2 || self.attention_bias
    }
}

/// One id, or a list of them; none if the field is null, the default if it is absent.
fn token_ids(config: &ConfigFile, field: &str, absent: Option<u32>) -> Result<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let Some(value) = config.value().get(field) else { return Ok(absent.into_iter().collect()) };
    if value.is_null() {
        return Ok(Vec::new());
    }
    let ids = match value.as_array() {
        Some(list) => list.iter().map(id).collect(),
        None => id(value).map(|id| vec![id]),
    };
    ids.ok_or_else(|| ModelError::Field {
        path: config.path().into(),
        field: field.to_owned(),
        expected: "a token id or a list of token ids".to_owned(),
        found: value.to_string(),
    })
}

fn ids_to_json(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    }
}

/// Each layer's sliding window.
fn windows(config: &ConfigFile, family: Family, layers: usize) -> Result<Vec<Option<usize>>> {
    let size = window_size(config, Some(4096))?;
    match family {
        Family::Llama => Ok(vec![None; layers]),
        Family::Mistral => Ok(vec![size; layers]),
        Family::Qwen2 | Family::Qwen3 => {
            let used = config.bool_or("use_sliding_window", false)?;
            let full_layers = config.maybe_usize("max_window_layers")?.unwrap_or(28);
            layer_windows(config, layers, size.filter(|_| used), |layer| layer >= full_layers)
        }
    }
}
