//! A language model's folder, ready to read and write text: what the text commands share.

use crate::cli::Outcome;
use candle_core::Device;
use std::path::Path;
use votive_data::{ImagePlaces, TextTokenizer};
use votive_model::{CausalLmConfig, Decoder, ImageTokens, Lora, load_causal_lm};
use votive_train::front_end::ShownImages;

/// The tokenizer of a folder, which knows how the folder's model reads images.
///
/// # Errors
/// As [`TextTokenizer::load`].
pub(crate) fn load_tokenizer(folder: &Path) -> Outcome<TextTokenizer> {
    let tokenizer = TextTokenizer::load(folder)?;
    // A tokenizer may stand alone, or beside a model that is not supported.
    let tokens = CausalLmConfig::read_folder(folder).ok().and_then(|config| config.image_tokens());
    let places =
        |tokens: ImageTokens| ImagePlaces { token_id: tokens.placeholder, per_image: tokens.per_image };
    Ok(match tokens {
        Some(tokens) => tokenizer.with_images(places(tokens)),
        None => tokenizer,
    })
}

/// A language model without gradients, and its tokenizer.
#[derive(Debug)]
pub(crate) struct TextModel {
    /// The network, under its adapter if there is one.
    pub(crate) network: Decoder,
    /// The tokenizer of the same folder.
    pub(crate) tokenizer: TextTokenizer,
    /// How images are prepared, if the model sees any.
    pub(crate) images: Option<ShownImages>,
}

impl TextModel {
    /// Loads a hub folder, and puts an adapter on it.
    ///
    /// # Errors
    /// If a file is missing or wrong, or the parts do not belong together.
    pub(crate) fn load(folder: &Path, adapter: Option<&Path>, device: &Device) -> Outcome<Self> {
        let (config, mut params) = load_causal_lm(folder, device)?;
        let tokenizer = TextTokenizer::load(folder)?;
        tokenizer.check_model_vocabulary(config.vocab_size())?;
        if let Some(adapter) = adapter {
            params = params.with_lora(Lora::load(adapter, device)?)?;
        }
        let network = params.build(|scope| config.build(scope))?;
        Ok(match config.image_tokens() {
            None => Self { network, tokenizer, images: None },
            Some(tokens) => {
                let (tokenizer, images) = ShownImages::of(folder, tokenizer, tokens)?;
                Self { network, tokenizer, images: Some(images) }
            }
        })
    }
}
