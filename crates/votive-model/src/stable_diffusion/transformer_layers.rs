//! How many transformer blocks each attention of a U-Net has.
//!
//! diffusers takes a number for all levels, one for each level, or one for each attention of a level; the way up may
//! have its own. Checked against: diffusers 0.42.1, `UNet2DConditionModel`.

use crate::config::ConfigFile;
use crate::error::Result;
use serde_json::{Value, json};

/// How many transformer blocks the attentions of one way through a level have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransformerLayers {
    /// As many in all of them.
    Same(usize),
    /// Each its own number, in the order in which they are computed.
    Each(Vec<usize>),
}

impl TransformerLayers {
    /// Blocks of attention `index`.
    #[must_use]
    pub fn at(&self, index: usize) -> usize {
        match self {
            Self::Same(layers) => *layers,
            Self::Each(layers) => layers.get(index).copied().unwrap_or(0),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Same(layers) => json!(layers),
            Self::Each(layers) => json!(layers),
        }
    }
}

/// Transformer blocks on the way down and up, level by level from full resolution down.
pub(super) fn transformer_layers(
    file: &ConfigFile,
    n: usize,
    layers: &[usize],
) -> Result<(Vec<TransformerLayers>, Vec<TransformerLayers>)> {
    const DOWNWARDS: &str = "transformer_layers_per_block";
    const UPWARDS: &str = "reverse_transformer_layers_per_block";
    let down = nested(file, DOWNWARDS, layers)?.unwrap_or_else(|| vec![TransformerLayers::Same(1); n]);
    // One attention more on the way up, and the levels from below.
    let more: Vec<usize> = layers.iter().rev().map(|layers| layers.saturating_add(1)).collect();
    if file.get(UPWARDS).is_some_and(|value| !value.is_array()) {
        return Err(file.unsupported(UPWARDS, "a list, one entry for each level from below"));
    }
    if let Some(mut up) = nested(file, UPWARDS, &more)? {
        up.reverse();
        return Ok((down, up));
    }
    if down.iter().any(|layers| matches!(layers, TransformerLayers::Each(_))) {
        return Err(file.unsupported(DOWNWARDS, &format!("lists in the list only together with {UPWARDS}")));
    }
    let up = down.clone();
    Ok((down, up))
}

/// A number for all levels, or for each level a number or a list of at least as many as it has attentions.
fn nested(file: &ConfigFile, field: &str, attentions: &[usize]) -> Result<Option<Vec<TransformerLayers>>> {
    let n = attentions.len();
    let is_nested = |value: &Value| value.as_array().is_some_and(|all| all.iter().any(Value::is_array));
    let Some(list) = file.get(field).filter(|value| is_nested(value)).and_then(Value::as_array) else {
        let same = |layers: Vec<usize>| layers.into_iter().map(TransformerLayers::Same).collect();
        return Ok(file.per_level(field, n)?.map(same));
    };
    let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok()).map(|n| n as usize);
    let level = |(value, least): (&Value, &usize)| match value.as_array() {
        None => number(value).map(TransformerLayers::Same),
        Some(each) if each.len() >= *least => {
            each[..*least].iter().map(number).collect::<Option<_>>().map(TransformerLayers::Each)
        }
        Some(_) => None,
    };
    let levels = (list.len() == n).then(|| list.iter().zip(attentions).map(level).collect::<Option<_>>());
    levels.flatten().map(Some).ok_or_else(|| {
        file.unsupported(field, &format!("{n} numbers, or lists of at least {attentions:?} numbers"))
    })
}
