//! `config.json` of LLaVA: the fields of transformers' `LlavaConfig`.
//!
//! `image_seq_length` says nothing that the image encoder does not, and is not read by transformers' model either.

use crate::clip::activation;
use crate::config::ConfigFile;
use crate::error::Result;
use crate::image_tokens::{ImageTokens, ImageVectors};
use crate::language::vision::{placeholder, text_part};
use crate::language::{Architecture, Network};
use crate::vision_transformer::VisionShape;
use serde_json::{Value, json};
use std::sync::Arc;
use votive_tensor::Activation;

/// The language model's fields that transformers leaves out of a file where they are those of the class.
const TEXT_FIELDS: [&str; 5] =
    ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"];

/// Their values in the classes whose LLaVAs have such files; other files must say them.
const TEXT_DEFAULTS: [(&str, [usize; 5]); 3] = [
    ("llama", [32_000, 4096, 11_008, 32, 32]),
    ("mistral", [32_000, 4096, 14_336, 32, 32]),
    ("qwen2", [151_936, 4096, 22_016, 32, 32]),
];

/// The image encoder of LLaVA 1.5, which a file without `vision_config` means.
const VISION_DEFAULTS: [(&str, usize); 6] = [
    ("intermediate_size", 4096),
    ("hidden_size", 1024),
    ("patch_size", 14),
    ("image_size", 336),
    ("num_hidden_layers", 24),
    ("num_attention_heads", 16),
];

/// Two names of the token that stands for a vector of an image.
const IMAGE_TOKEN_FIELDS: [&str; 2] = ["image_token_index", "image_token_id"];

/// Shape of a LLaVA.
#[derive(Debug)]
pub(super) struct LlavaConfig {
    /// The language model.
    pub(super) text: Arc<dyn Network>,
    /// The image encoder.
    pub(super) vision: VisionShape,
    /// Layers of the image encoder whose results are put side by side, counted from 1; 0 is what goes into the first.
    pub(super) feature_layers: Vec<usize>,
    /// The first token of the image encoder, CLIP's class, is not read.
    pub(super) drops_first: bool,
    /// Activation of the projector.
    pub(super) projector_act: Activation,
    /// The projector has biases.
    pub(super) projector_bias: bool,
    /// Token that stands for a vector of an image.
    image_token: u32,
}

impl LlavaConfig {
    /// Reads a `config.json`; absent fields are what transformers' configuration class makes them.
    ///
    /// # Errors
    /// If a field has the wrong type, or a value that is not supported.
    pub(super) fn read(file: &ConfigFile) -> Result<Self> {
        file.only("quantization_config", &[])?;
        let text = text_config(file)?;
        let text = Architecture::read_text(&text)?;
        let vision = match file.object("vision_config") {
            Some(vision) => VisionShape::read(&vision)?,
            None => VisionShape::read(&file.empty_object("vision_config").with_defaults(VISION_DEFAULTS))?,
        };
        let strategy = "vision_feature_select_strategy";
        file.only(strategy, &[json!("default"), json!("full")])?;
        Ok(Self {
            feature_layers: feature_layers(file, vision.layer.layers)?,
            drops_first: file.maybe_str(strategy)?.is_none_or(|strategy| strategy == "default"),
            projector_act: activation(file, "projector_hidden_act", "gelu")?,
            projector_bias: file.bool_or("multimodal_projector_bias", true)?,
            image_token: placeholder(file, &IMAGE_TOKEN_FIELDS, 32_000, text.sizes().vocab_size)?,
            text,
            vision,
        })
    }

    /// Layers of the image encoder that come to anything.
    pub(super) fn depth(&self) -> usize {
        self.feature_layers.iter().copied().max().unwrap_or(0)
    }

    /// How images are read among tokens.
    pub(super) fn tokens(&self) -> ImageTokens {
        let vectors = ImageVectors::Fixed { side: self.vision.image_size, per_image: self.per_image() };
        ImageTokens { placeholder: self.image_token, vectors }
    }

    /// Vectors of an image.
    pub(super) fn per_image(&self) -> usize {
        self.vision.tokens() - usize::from(self.drops_first)
    }
}

/// The language model's part of the file, with the fields that were left out.
fn text_config(file: &ConfigFile) -> Result<ConfigFile> {
    let text = text_part(file)?.with_defaults([("model_type", "llama")]);
    let model_type = text.maybe_str("model_type")?.unwrap_or_default();
    let known = TEXT_DEFAULTS.iter().find(|(known, _)| *known == model_type);
    Ok(match known {
        Some((_, sizes)) => text.with_defaults(TEXT_FIELDS.into_iter().zip(*sizes)),
        None => text,
    })
}

/// `vision_feature_layer`, one number or several, of which those below 0 count from the last layer.
fn feature_layers(file: &ConfigFile, layers: usize) -> Result<Vec<usize>> {
    const FIELD: &str = "vision_feature_layer";
    let most = layers as i64;
    let layer = |value: &Value| {
        let number = value.as_i64().filter(|number| (-most - 1..=most).contains(number))?;
        usize::try_from(if number < 0 { number + most + 1 } else { number }).ok()
    };
    let found = match file.get(FIELD) {
        None => layer(&json!(-2)).map(|layer| vec![layer]),
        Some(Value::Array(list)) if !list.is_empty() => list.iter().map(layer).collect(),
        Some(value) => layer(value).map(|layer| vec![layer]),
    };
    let supported = format!("a layer of the image encoder, -{} to {most}, or a list of them", most + 1);
    found.ok_or_else(|| file.unsupported(FIELD, &supported))
}
