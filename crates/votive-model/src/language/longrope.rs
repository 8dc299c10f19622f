//! LongRoPE: two sets of frequencies, one for texts as long as those of the pretraining, one for longer ones.
//!
//! Source: Ding et al., arXiv:2402.13753; details as in transformers' `_compute_longrope_parameters` and `Phi3Config`
//! (5.23).

use super::rope::{DEFAULT_THETA, rope_fields};
use crate::config::ConfigFile;
use crate::error::Result;
use serde_json::{Value, json};

/// The fields of Phi-3's rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LongRope {
    /// Base of the frequencies, θ.
    pub(crate) theta: f64,
    /// Numbers of a head that are turned; twice the number of frequencies.
    pub(crate) width: usize,
    /// What each frequency is divided by in short texts.
    pub(crate) short_factor: Vec<f64>,
    /// What each frequency is divided by in long texts.
    pub(crate) long_factor: Vec<f64>,
    /// The longest text that is short, in tokens.
    pub(crate) original_max_position_embeddings: usize,
    /// Factor of cosines and sines.
    pub(crate) attention_factor: f64,
}

impl LongRope {
    /// Reads the fields of a model with heads of that width; plain rotary positions have factors of 1.
    ///
    /// # Errors
    /// If a field is missing, has the wrong type or asks for what is not implemented.
    pub(crate) fn read(config: &ConfigFile, head_dim: usize, max_positions: usize) -> Result<Self> {
        const ORIGINAL: &str = "original_max_position_embeddings";
        let fields = rope_fields(config)?;
        let fields = fields.as_ref().unwrap_or(config);
        let either = |field: &str| -> Result<Option<f64>> {
            Ok(fields.maybe_f64(field)?.or(config.maybe_f64(field)?))
        };
        let theta = either("rope_theta")?.unwrap_or(DEFAULT_THETA);
        let width = rotary_width(config, head_dim, either("partial_rotary_factor")?.unwrap_or(1.0))?;
        // The field outside comes first: Phi-3's own class has it there.
        let original = config.maybe_usize(ORIGINAL)?.or(fields.maybe_usize(ORIGINAL)?).unwrap_or(4096);
        let kind_field = if fields.get("rope_type").is_some() { "rope_type" } else { "type" };
        let kind = fields.maybe_str(kind_field)?.unwrap_or_else(|| "default".to_owned());
        let plain = vec![1.0; width / 2];
        let (short_factor, long_factor, attention_factor) = match kind.as_str() {
            "default" => (plain.clone(), plain, 1.0),
            // Older names of the same thing.
            "longrope" | "su" | "yarn" => {
                let factor = |field: &str| factors(fields, field, width / 2);
                let magnitude = attention_factor(fields, max_positions, original)?;
                (factor("short_factor")?, factor("long_factor")?, magnitude)
            }
            _ => return Err(fields.unsupported(kind_field, "supported: default, longrope")),
        };
        let original_max_position_embeddings = original;
        Ok(Self {
            theta,
            width,
            short_factor,
            long_factor,
            original_max_position_embeddings,
            attention_factor,
        })
    }

    /// Radians per token of each pair, with the given divisors; in f32, as transformers computes it.
    pub(crate) fn frequencies(&self, factors: &[f64]) -> Vec<f32> {
        let base = |pair: usize| (self.theta as f32).powf((2 * pair) as f32 / self.width as f32);
        factors.iter().enumerate().map(|(pair, factor)| (*factor as f32 * base(pair)).recip()).collect()
    }
}

/// How many numbers of a head are turned.
fn rotary_width(config: &ConfigFile, head_dim: usize, share: f64) -> Result<usize> {
    let width = (head_dim as f64 * share) as usize;
    if !(share > 0.0 && share <= 1.0) || width == 0 || !width.is_multiple_of(2) {
        let supported = format!("a share above 0 and up to 1 of {head_dim} that is even, not {share}");
        return Err(config.unsupported("partial_rotary_factor", &supported));
    }
    Ok(width)
}

fn factors(fields: &ConfigFile, field: &str, n: usize) -> Result<Vec<f64>> {
    let above_0 = |value: &Value| value.as_f64().filter(|factor| *factor > 0.0);
    let list = fields.get(field).and_then(Value::as_array);
    let read: Option<Vec<f64>> = list.and_then(|list| list.iter().map(above_0).collect());
    read.filter(|factors| factors.len() == n)
        .ok_or_else(|| fields.unsupported(field, &format!("a list of {n} numbers above 0")))
}

fn attention_factor(fields: &ConfigFile, max_positions: usize, original: usize) -> Result<f64> {
    if let Some(given) = fields.maybe_f64("attention_factor")? {
        return Ok(given);
    }
    let factor = match fields.maybe_f64("factor")? {
        Some(factor) => factor,
        None => max_positions as f64 / original as f64,
    };
    if factor > 1.0 && original < 2 {
        let field = "original_max_position_embeddings";
        return Err(fields.unsupported(field, &format!("2 or more, not {}", json!(original))));
    }
    Ok(if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() })
}
