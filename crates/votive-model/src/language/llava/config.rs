//! `config.json` of LLaVA: the fields of transformers' `LlavaConfig`.
//!
//! `image_seq_length` says nothing that the image encoder does not, and is not read by transformers' model either.

use crate::clip::{ClipVisionConfig, activation};
use crate::config::ConfigFile;
use crate::error::Result;
use crate::image_tokens::ImageTokens;
use crate::language::{Architecture, Network};
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

/// Shape of a LLaVA.
#[derive(Debug)]
pub(super) struct LlavaConfig {
    /// The language model.
    pub(super) text: Arc<dyn Network>,
    /// The image encoder.
    pub(super) vision: ClipVisionConfig,
    /// Layers of the image encoder whose results are put side by side, counted from 1; 0 is what goes into the first.
    pub(super) feature_layers: Vec<usize>,
    /// The class token is read too.
    pub(super) keeps_class: bool,
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
        let text = (Architecture::of_text(&text)?.read)(&text)?;
        let vision = match file.object("vision_config") {
            Some(vision) => ClipVisionConfig::from_file(&vision)?,
            None => ClipVisionConfig::from_file(
                &file.empty_object("vision_config").with_defaults(VISION_DEFAULTS),
            )?,
        };
        let strategy = "vision_feature_select_strategy";
        file.only(strategy, &[json!("default"), json!("full")])?;
        Ok(Self {
            feature_layers: feature_layers(file, vision.num_hidden_layers)?,
            keeps_class: file.maybe_str(strategy)?.is_some_and(|strategy| strategy == "full"),
            projector_act: activation(file, "projector_hidden_act", "gelu")?,
            projector_bias: file.bool_or("multimodal_projector_bias", true)?,
            image_token: image_token(file, text.sizes().vocab_size)?,
            text,
            vision,
        })
    }

    /// How images are read among tokens.
    pub(super) fn tokens(&self) -> ImageTokens {
        ImageTokens {
            placeholder: self.image_token,
            per_image: self.vision.patches() + usize::from(self.keeps_class),
            side: self.vision.image_size,
        }
    }
}

/// The language model's part of the file, with the fields that were left out.
fn text_config(file: &ConfigFile) -> Result<ConfigFile> {
    let text = file.object("text_config").unwrap_or_else(|| file.empty_object("text_config"));
    let text = text.with_defaults([("model_type", "llama")]);
    let model_type = text.maybe_str("model_type")?.unwrap_or_default();
    let known = TEXT_DEFAULTS.iter().find(|(known, _)| *known == model_type);
    let text = match known {
        Some((_, sizes)) => text.with_defaults(TEXT_FIELDS.into_iter().zip(*sizes)),
        None => text,
    };
    // Either of the two fields ties the head.
    Ok(match file.bool_or("tie_word_embeddings", false)? {
        true => text.with("tie_word_embeddings", json!(true)),
        false => text,
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

/// `image_token_index`, which transformers also calls `image_token_id`.
fn image_token(file: &ConfigFile, vocabulary: usize) -> Result<u32> {
    let fields = ["image_token_index", "image_token_id"];
    let field = fields.into_iter().find(|field| file.get(field).is_some()).unwrap_or(fields[0]);
    let token = file.maybe_usize(field)?.unwrap_or(32_000);
    match u32::try_from(token) {
        Ok(id) if token < vocabulary => Ok(id),
        _ => Err(file.unsupported(field, &format!("a token id below the vocabulary's size, {vocabulary}"))),
    }
}
