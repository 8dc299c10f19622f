//! Rotary frequencies, and the ways in which checkpoints stretch them to longer contexts.
//!
//! Source: Su et al., arXiv:2104.09864; linear scaling: Chen et al., arXiv:2306.15595; `llama3`: the reference code
//! of Llama 3.1, as in transformers' `_compute_llama3_parameters`.

use super::longrope::LongRope;
use super::positions::{Position, Positions};
use crate::config::ConfigFile;
use crate::error::Result;
use candle_core::{Device, Tensor};
use serde_json::{Map, Value, json};
use std::f32::consts::TAU;
use votive_tensor as ops;

/// The base of the frequencies when a configuration does not say: transformers' `default_theta`.
pub(crate) const DEFAULT_THETA: f64 = 10_000.0;

/// How positions become angles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies, θ.
    pub theta: f64,
    /// How the frequencies are lowered for longer contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are lowered, so that a model serves contexts longer than those of its pretraining.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All by the same factor.
    Linear {
        /// What frequencies are divided by.
        factor: f64,
    },
    /// Slow ones by the factor, fast ones not, those between gradually.
    Llama3 {
        /// What slow frequencies are divided by.
        factor: f64,
        /// Turns within the original context below which a frequency is slow.
        low_freq_factor: f64,
        /// Turns within the original context above which a frequency is fast.
        high_freq_factor: f64,
        /// The context of the pretraining, in tokens.
        original_max_position_embeddings: usize,
    },
}

impl Default for Rope {
    fn default() -> Self {
        Self { theta: DEFAULT_THETA, scaling: RopeScaling::Default }
    }
}

impl Rope {
    /// Reads `rope_theta` with `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5), one set for all
    /// layers and whole heads.
    ///
    /// # Errors
    /// If a field has the wrong type or asks for what is not implemented.
    pub(crate) fn read(config: &ConfigFile, default_theta: f64, max_positions: usize) -> Result<Self> {
        let whole = [json!(1), json!(1.0)];
        config.only("partial_rotary_factor", &whole)?;
        let fields = rope_fields(config)?;
        if let Some(fields) = &fields {
            fields.only("partial_rotary_factor", &whole)?;
            // Other angles for some of the layers.
            fields.only("full_attention", &[])?;
            fields.only("sliding_attention", &[])?;
        }
        let theta = config.maybe_f64("rope_theta")?.unwrap_or(default_theta);
        Self::of(config, fields.as_ref(), theta, max_positions)
    }

    /// θ and scaling of one set of fields, which may lack θ.
    ///
    /// # Errors
    /// If a field has the wrong type or asks for what is not implemented.
    pub(crate) fn of(
        config: &ConfigFile,
        fields: Option<&ConfigFile>,
        default_theta: f64,
        max_positions: usize,
    ) -> Result<Self> {
        let Some(scaling) = fields else { return Ok(Self { theta: default_theta, ..Self::default() }) };
        let theta = scaling.maybe_f64("rope_theta")?.unwrap_or(default_theta);
        let kind_field = if scaling.get("rope_type").is_some() { "rope_type" } else { "type" };
        let kind = scaling.maybe_str(kind_field)?.unwrap_or_else(|| "default".to_owned());
        let number = |field: &str| match scaling.maybe_f64(field)? {
            Some(value) if value > 0.0 => Ok(value),
            _ => Err(scaling.unsupported(field, &format!("rope type `{kind}` needs a number above 0"))),
        };
        let scaling = match kind.as_str() {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: number("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: config
                    .maybe_usize("original_max_position_embeddings")?
                    .or(scaling.maybe_usize("original_max_position_embeddings")?)
                    .unwrap_or(max_positions),
            },
            _ => return Err(scaling.unsupported(kind_field, "supported: default, linear, llama3")),
        };
        Ok(Self { theta, scaling })
    }

    /// Writes the fields that [`Rope::read`] and both generations of transformers read.
    pub(crate) fn write(&self, config: &mut Map<String, Value>) {
        config.insert("rope_theta".into(), json!(self.theta));
        let scaling = match self.scaling {
            RopeScaling::Default => Value::Null,
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                json!({
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": low_freq_factor,
                    "high_freq_factor": high_freq_factor,
                    "original_max_position_embeddings": original_max_position_embeddings,
                })
            }
        };
        config.insert("rope_scaling".into(), scaling);
    }

    /// Radians per token of each of the `head_dim / 2` pairs.
    ///
    /// In f32 and in transformers' order of operations: checkpoints were trained with those roundings.
    #[must_use]
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2)
            .map(|pair| {
                let exponent = (2 * pair) as f32 / head_dim as f32;
                self.scaling.apply((self.theta as f32).powf(exponent).recip())
            })
            .collect()
    }
}

/// `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5); with both, transformers takes the older one.
///
/// # Errors
/// If one of them is not an object.
pub(crate) fn rope_fields(config: &ConfigFile) -> Result<Option<ConfigFile>> {
    for field in ["rope_scaling", "rope_parameters"] {
        if config.get(field).is_some_and(|value| !value.is_object()) {
            return Err(config.unsupported(field, "an object with a `rope_type`"));
        }
    }
    Ok(["rope_scaling", "rope_parameters"].iter().find_map(|field| config.object(field)))
}

impl RopeScaling {
    fn apply(self, frequency: f32) -> f32 {
        match self {
            Self::Default => frequency,
            Self::Linear { factor } => frequency / factor as f32,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let (low, high) = (low_freq_factor as f32, high_freq_factor as f32);
                let turns = original_max_position_embeddings as f32 * frequency / TAU;
                let slow = frequency / factor as f32;
                if turns < low {
                    slow
                } else if turns > high {
                    frequency
                } else {
                    let smooth = (turns - low) / (high - low);
                    (1.0 - smooth) * slow + smooth * frequency
                }
            }
        }
    }
}

/// A table of frequencies, which gives the angles of positions.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    frequencies: Vec<f32>,
    /// Which of a position's three numbers each frequency is multiplied by.
    axes: Vec<usize>,
    /// What texts beyond a length have instead.
    beyond: Option<(usize, Vec<f32>)>,
    /// Factor of cosines and sines.
    magnitude: f32,
}

impl Rotary {
    /// The table for heads of which `width` numbers are turned.
    pub(crate) fn new(rope: &Rope, width: usize) -> Self {
        Self::of_frequencies(rope.frequencies(width))
    }

    fn of_frequencies(frequencies: Vec<f32>) -> Self {
        Self { axes: vec![0; frequencies.len()], frequencies, beyond: None, magnitude: 1.0 }
    }

    /// The same where frequencies are multiplied by other numbers of a position than its first.
    pub(crate) fn with_axes(self, axes: Vec<usize>) -> Self {
        Self { axes, ..self }
    }

    /// The table for heads of `width` numbers of which one half is turned by rows and the other by columns, with the same
    /// frequencies.
    pub(crate) fn of_grid(rope: &Rope, width: usize) -> Self {
        let half = rope.frequencies(width / 2);
        let axes = [vec![1; half.len()], vec![2; half.len()]].concat();
        Self::of_frequencies([&half[..], &half].concat()).with_axes(axes)
    }

    /// Two tables, for short and for long texts.
    pub(crate) fn long(rope: &LongRope) -> Self {
        Self {
            beyond: Some((rope.original_max_position_embeddings, rope.frequencies(&rope.long_factor))),
            magnitude: rope.attention_factor as f32,
            ..Self::of_frequencies(rope.frequencies(&rope.short_factor))
        }
    }

    /// The longest text that the first table serves, if there is a second one.
    pub(crate) fn short_texts(&self) -> Option<usize> {
        self.beyond.as_ref().map(|(length, _)| *length)
    }

    /// The table of a text of `length` tokens.
    fn of(&self, length: usize) -> &[f32] {
        match &self.beyond {
            Some((most, long)) if length > *most => long,
            _ => &self.frequencies,
        }
    }

    /// The angles of tokens.
    ///
    /// # Errors
    /// Those of candle.
    pub(crate) fn angles(&self, positions: &Positions, device: &Device) -> candle_core::Result<Angles> {
        let Positions { rows, tokens } = positions;
        let token = |&Position { at, length }: &Position| {
            self.of(length).iter().zip(&self.axes).map(move |(f, axis)| at[*axis] as f32 * f)
        };
        let angles: Vec<f32> = tokens.iter().flat_map(token).collect();
        let shape = (*rows, tokens.len() / rows.max(&1), self.frequencies.len());
        let table = |function: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|angle| function(*angle) * self.magnitude).collect();
            Tensor::from_vec(values, shape, device)
        };
        Ok(Angles { cos: table(f32::cos)?, sin: table(f32::sin)? })
    }
}

/// Cosine and sine of every angle, `(B, T, width / 2)`.
#[derive(Clone, Debug)]
pub(crate) struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Angles {
    /// Turns every head of `x (B, T, heads·D)`.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub(crate) fn rotate(&self, x: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
        ops::rope(x, &self.cos, &self.sin, heads)
    }
}
