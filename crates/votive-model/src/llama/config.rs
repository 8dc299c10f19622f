//! `config.json` of the Llama family, as transformers 4 and 5 write it.

use super::rope::Rope;
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::params::Init;
use serde_json::{Map, Value, json};
use std::path::Path;

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

/// What transformers' configuration class assumes for absent fields.
#[derive(Clone, Copy)]
struct Defaults {
    key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_positions: usize,
    bos: Option<u32>,
    eos: Option<u32>,
}

impl Family {
    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// `model_type` in `config.json`.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// Name of transformers' class, in `architectures`.
    #[must_use]
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    fn defaults(self) -> Defaults {
        let none =
            Defaults { key_value_heads: None, head_dim: None, max_positions: 2048, bos: None, eos: None };
        let llama = Defaults { bos: Some(1), eos: Some(2), ..none };
        let qwen = Defaults { key_value_heads: Some(32), max_positions: 32_768, ..none };
        match self {
            Self::Llama => llama,
            Self::Mistral => Defaults { key_value_heads: Some(8), max_positions: 131_072, ..llama },
            Self::Qwen2 => qwen,
            Self::Qwen3 => Defaults { head_dim: Some(128), ..qwen },
        }
    }

    fn read(config: &ConfigFile) -> Result<Self> {
        let names = |name: fn(Self) -> &'static str| Self::ALL.map(name).join(", ");
        let model_type = config.maybe_str("model_type")?.unwrap_or_default();
        let family =
            Self::ALL.into_iter().find(|family| family.model_type() == model_type).ok_or_else(|| {
                config.unsupported("model_type", &format!("supported: {}", names(Self::model_type)))
            })?;
        config.only("architectures", &[json!([family.architecture()])])?;
        Ok(family)
    }
}

/// Sizes and variants of a model of the family; the fields have their names in `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Which architecture.
    pub family: Family,
    /// Rows of the embedding, V; at least the size of the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream, D.
    pub hidden_size: usize,
    /// Width inside the SwiGLU.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Longest row in tokens.
    pub max_position_embeddings: usize,
    /// ε of the norms.
    pub rms_norm_eps: f64,
    /// Rotary positions.
    pub rope: Rope,
    /// For each layer how many newest keys a query sees, its own included; none means all.
    pub windows: Vec<Option<usize>>,
    /// Biases on the attention's projections (Llama and Qwen3 may have them; Qwen2 always has its own).
    pub attention_bias: bool,
    /// Biases in the SwiGLU (Llama).
    pub mlp_bias: bool,
    /// The head is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
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
        Self {
            family: Family::Llama,
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim: hidden_size / num_attention_heads.max(1),
            max_position_embeddings,
            rms_norm_eps: 1e-6,
            rope: Rope::default(),
            windows: vec![None; num_hidden_layers],
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            initializer_range: 0.02,
            bos_token_id: Some(1),
            eos_token_id: vec![2],
            pad_token_id: None,
        }
    }

    /// Reads a `config.json`; absent fields are what transformers' configuration class makes them.
    ///
    /// # Errors
    /// If the architecture or a field's value is not supported, or a field is missing, has the wrong type, or
    /// contradicts another.
    pub fn read(config: &ConfigFile) -> Result<Self> {
        let family = Family::read(config)?;
        refuse_what_is_not_implemented(config)?;
        let defaults = family.defaults();
        let hidden_size = positive(config, "hidden_size")?;
        let num_hidden_layers = positive(config, "num_hidden_layers")?;
        if num_hidden_layers > MOST_LAYERS {
            return Err(config.unsupported("num_hidden_layers", &format!("at most {MOST_LAYERS}")));
        }
        let num_attention_heads = positive(config, "num_attention_heads")?;
        let max_position_embeddings =
            config.maybe_usize("max_position_embeddings")?.unwrap_or(defaults.max_positions);
        // Null and absent differ: null is "as many as query heads" in every class.
        let absent_kv = if is_null(config, "num_key_value_heads") { None } else { defaults.key_value_heads };
        let absent_head = if is_null(config, "head_dim") { None } else { defaults.head_dim };
        let read = Self {
            family,
            vocab_size: positive(config, "vocab_size")?,
            hidden_size,
            intermediate_size: positive(config, "intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: config
                .maybe_usize("num_key_value_heads")?
                .or(absent_kv)
                .unwrap_or(num_attention_heads),
            head_dim: config
                .maybe_usize("head_dim")?
                .or(absent_head)
                .unwrap_or(hidden_size / num_attention_heads),
            max_position_embeddings,
            rms_norm_eps: config.maybe_f64("rms_norm_eps")?.unwrap_or(1e-6),
            rope: Rope::read(config, max_position_embeddings)?,
            windows: windows(config, family, num_hidden_layers)?,
            attention_bias: matches!(family, Family::Llama | Family::Qwen3)
                && config.bool_or("attention_bias", false)?,
            mlp_bias: family == Family::Llama && config.bool_or("mlp_bias", false)?,
            tie_word_embeddings: config.bool_or("tie_word_embeddings", false)?,
            initializer_range: config.maybe_f64("initializer_range")?.unwrap_or(0.02),
            bos_token_id: token_ids(config, "bos_token_id", defaults.bos)?.first().copied(),
            eos_token_id: token_ids(config, "eos_token_id", defaults.eos)?,
            pad_token_id: token_ids(config, "pad_token_id", None)?.first().copied(),
        };
        read.check(config)
    }

    /// Reads a hub folder's `config.json`, and the ids that end a text from its `generation_config.json` if there is one.
    ///
    /// # Errors
    /// Those of [`LlamaConfig::read`].
    pub fn read_folder(folder: &Path) -> Result<Self> {
        let mut read = Self::read(&ConfigFile::read(&folder.join("config.json"))?)?;
        let generation = folder.join("generation_config.json");
        if generation.exists() {
            let ids = token_ids(&ConfigFile::read(&generation)?, "eos_token_id", None)?;
            if !ids.is_empty() {
                read.eos_token_id = ids;
            }
        }
        Ok(read)
    }

    fn check(self, config: &ConfigFile) -> Result<Self> {
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let supported = format!("a divisor of the {} attention heads", self.num_attention_heads);
            return Err(config.unsupported("num_key_value_heads", &supported));
        }
        let head_dim = self.head_dim;
        if head_dim == 0 || !head_dim.is_multiple_of(2) || head_dim > MOST_HEAD_DIM {
            let supported = format!("an even width of a head up to {MOST_HEAD_DIM}, not {head_dim}");
            return Err(config.unsupported("head_dim", &supported));
        }
        Ok(self)
    }

    /// The `config.json` of a model with this configuration, in fields that transformers 4 and 5 both read.
    ///
    /// `dtype` is torch's name of the type that the weights are stored in, e.g. `float16`.
    #[must_use]
    pub fn to_json(&self, dtype: &str) -> Value {
        let mut config = Map::new();
        let mut set = |field: &str, value: Value| config.insert(field.to_owned(), value);
        set("architectures", json!([self.family.architecture()]));
        set("model_type", json!(self.family.model_type()));
        set("vocab_size", json!(self.vocab_size));
        set("hidden_size", json!(self.hidden_size));
        set("intermediate_size", json!(self.intermediate_size));
        set("num_hidden_layers", json!(self.num_hidden_layers));
        set("num_attention_heads", json!(self.num_attention_heads));
        set("num_key_value_heads", json!(self.num_key_value_heads));
        set("head_dim", json!(self.head_dim));
        set("hidden_act", json!("silu"));
        set("max_position_embeddings", json!(self.max_position_embeddings));
        set("rms_norm_eps", json!(self.rms_norm_eps));
        set("initializer_range", json!(self.initializer_range));
        set("attention_dropout", json!(0.0));
        set("tie_word_embeddings", json!(self.tie_word_embeddings));
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

    /// Whether the attention's output projection has a bias.
    pub(super) fn output_bias(&self) -> bool {
        self.attention_bias
    }

    /// Whether queries and keys are normalised in each head.
    pub(super) fn has_head_norms(&self) -> bool {
        self.family == Family::Qwen3
    }

    /// Start of the projections that add to the residual stream: scaled so that its variance does not grow with depth
    /// (GPT-2).
    pub(super) fn residual_init(&self) -> Init {
        Init::Normal(self.initializer_range / ((2 * self.num_hidden_layers.max(1)) as f64).sqrt())
    }
}

/// Bounds on sizes that lists are made of before a tensor is looked at: far beyond any model, far below any memory.
const MOST_LAYERS: usize = 10_000;
const MOST_HEAD_DIM: usize = 65_536;

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

fn refuse_what_is_not_implemented(config: &ConfigFile) -> Result<()> {
    config.only("hidden_act", &[json!("silu")])?;
    config.only("pretraining_tp", &[json!(1)])?;
    config.only("quantization_config", &[])?;
    // Dropout would make the policy differ from the reference at step 0.
    config.only("attention_dropout", &[json!(0), json!(0.0)])?;
    match config.object("auto_map").and_then(|map| map.get("AutoModelForCausalLM").cloned()) {
        Some(_) => Err(config.unsupported("auto_map", "models that bring their own code are not run")),
        None => Ok(()),
    }
}

fn is_null(config: &ConfigFile, field: &str) -> bool {
    config.value().get(field).is_some_and(Value::is_null)
}

fn positive(config: &ConfigFile, field: &str) -> Result<usize> {
    match config.usize(field)? {
        0 => Err(config.unsupported(field, "1 or more")),
        value => Ok(value),
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
    const ABSENT: usize = 4096;
    let size = match config.maybe_usize("sliding_window")? {
        None if is_null(config, "sliding_window") => None,
        size => Some(size.unwrap_or(ABSENT)),
    };
    let size = match family {
        Family::Llama => return Ok(vec![None; layers]),
        Family::Mistral => return Ok(vec![size; layers]),
        Family::Qwen2 | Family::Qwen3 => {
            let used = config.bool_or("use_sliding_window", false)?;
            size.filter(|_| used)
        }
    };
    let full_layers = config.maybe_usize("max_window_layers")?.unwrap_or(28);
    if config.get("layer_types").is_none() {
        return Ok((0..layers).map(|layer| size.filter(|_| layer >= full_layers)).collect());
    }
    let kinds = config.strings("layer_types")?;
    let known = |kind: &String| kind == FULL || (kind == SLIDING && size.is_some());
    if kinds.len() != layers || !kinds.iter().all(known) {
        let supported =
            format!("{layers} of `{FULL}` or, with `use_sliding_window` and `sliding_window`, `{SLIDING}`");
        return Err(config.unsupported("layer_types", &supported));
    }
    Ok(kinds.iter().map(|kind| size.filter(|_| kind == SLIDING)).collect())
}
