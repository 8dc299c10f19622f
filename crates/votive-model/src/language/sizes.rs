//! The fields of `config.json` that every decoder has, and what is refused in all of them.

use crate::config::ConfigFile;
use crate::error::Result;
use crate::params::Init;
use serde_json::{Value, json};

/// Sizes of a decoder; the fields have their names in `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// Rows of the embedding, V; at least the size of the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream, D.
    pub hidden_size: usize,
    /// Width inside the gated MLP.
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
    /// The head is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
}

/// What transformers' configuration class assumes for absent sizes.
#[derive(Clone, Copy)]
pub(crate) struct SizeDefaults {
    pub(crate) key_value_heads: Option<usize>,
    pub(crate) head_dim: Option<usize>,
    pub(crate) max_positions: usize,
    pub(crate) rms_norm_eps: f64,
    pub(crate) tied: bool,
}

impl SizeDefaults {
    /// As many key heads as query heads, heads that share the width, an untied head.
    pub(crate) const PLAIN: Self =
        Self { key_value_heads: None, head_dim: None, max_positions: 2048, rms_norm_eps: 1e-6, tied: false };
}

/// Bounds on sizes that lists are made of before a tensor is looked at: far beyond any model, far below any memory.
const MOST_LAYERS: usize = 10_000;
const MOST_HEAD_DIM: usize = 65_536;

impl Sizes {
    /// Reads the sizes.
    ///
    /// # Errors
    /// If a field is missing, has the wrong type, is out of range or contradicts another.
    pub(crate) fn read(config: &ConfigFile, defaults: SizeDefaults) -> Result<Self> {
        let hidden_size = positive(config, "hidden_size")?;
        let num_hidden_layers = positive(config, "num_hidden_layers")?;
        if num_hidden_layers > MOST_LAYERS {
            return Err(config.unsupported("num_hidden_layers", &format!("at most {MOST_LAYERS}")));
        }
        let num_attention_heads = positive(config, "num_attention_heads")?;
        // Null and absent differ: null is "as many as query heads" in every class.
        let absent_kv = defaults.key_value_heads.filter(|_| !is_null(config, "num_key_value_heads"));
        let absent_head = defaults.head_dim.filter(|_| !is_null(config, "head_dim"));
        let positions = config.maybe_usize("max_position_embeddings")?;
        let kv_heads = config.maybe_usize("num_key_value_heads")?.or(absent_kv);
        let head_dim = config.maybe_usize("head_dim")?.or(absent_head);
        let read = Self {
            vocab_size: positive(config, "vocab_size")?,
            hidden_size,
            intermediate_size: positive(config, "intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: kv_heads.unwrap_or(num_attention_heads),
            head_dim: head_dim.unwrap_or(hidden_size / num_attention_heads),
            max_position_embeddings: positions.unwrap_or(defaults.max_positions),
            rms_norm_eps: config.maybe_f64("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps),
            tie_word_embeddings: config.bool_or("tie_word_embeddings", defaults.tied)?,
            initializer_range: config.maybe_f64("initializer_range")?.unwrap_or(0.02),
        };
        read.check(config)
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

    /// Width of all query heads together.
    pub(crate) fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together, which is that of the values.
    pub(crate) fn key_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Start of a weight.
    pub(crate) fn init(&self) -> Init {
        Init::Normal(self.initializer_range)
    }

    /// Start of the projections that add to the residual stream: scaled so that its variance does not grow with depth
    /// (GPT-2).
    pub(crate) fn residual_init(&self) -> Init {
        Init::Normal(self.initializer_range / ((2 * self.num_hidden_layers.max(1)) as f64).sqrt())
    }
}

/// Kinds of layers in `layer_types`.
pub(crate) const FULL: &str = "full_attention";
pub(crate) const SLIDING: &str = "sliding_attention";

/// Each layer's window of `size` newest keys: where `layer_types` says so, or where `otherwise` does if there is no
/// such field.
///
/// # Errors
/// If the list has another length, names another kind of layer, or a window although there is no size.
pub(crate) fn layer_windows(
    config: &ConfigFile,
    layers: usize,
    size: Option<usize>,
    otherwise: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    if config.get("layer_types").is_none() {
        return Ok((0..layers).map(|layer| size.filter(|_| otherwise(layer))).collect());
    }
    let kinds = config.strings("layer_types")?;
    let known = |kind: &String| kind == FULL || (kind == SLIDING && size.is_some());
    if kinds.len() != layers || !kinds.iter().all(known) {
        let supported = format!("{layers} of `{FULL}` or, where windows are in use, `{SLIDING}`");
        return Err(config.unsupported("layer_types", &supported));
    }
    Ok(kinds.iter().map(|kind| size.filter(|_| kind == SLIDING)).collect())
}

/// `sliding_window`: `absent` if there is no such field, none if it is null.
///
/// # Errors
/// If the field is not a whole number above 0.
pub(crate) fn window_size(config: &ConfigFile, absent: Option<usize>) -> Result<Option<usize>> {
    match config.maybe_usize("sliding_window")? {
        Some(0) => Err(config.unsupported("sliding_window", "1 or more, or null")),
        None if is_null(config, "sliding_window") => Ok(None),
        size => Ok(size.or(absent)),
    }
}

/// Refuses what no decoder here implements.
///
/// # Errors
/// If a field asks for it.
pub(crate) fn refuse_what_is_not_implemented(config: &ConfigFile) -> Result<()> {
    config.only("quantization_config", &[])?;
    // Dropout would make the policy differ from the reference at step 0.
    config.only("attention_dropout", &[json!(0), json!(0.0)])
}

/// Whether a field is there and null, which is not the same as absent.
pub(crate) fn is_null(config: &ConfigFile, field: &str) -> bool {
    config.value().get(field).is_some_and(Value::is_null)
}

/// A size that cannot be 0.
///
/// # Errors
/// If the field is missing, has another type or is 0.
pub(crate) fn positive(config: &ConfigFile, field: &str) -> Result<usize> {
    match config.usize(field)? {
        0 => Err(config.unsupported(field, "1 or more")),
        value => Ok(value),
    }
}
