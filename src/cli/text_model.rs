//! A language model's folder, ready to read and write text: what the text commands share.

use crate::cli::Outcome;
use candle_core::Device;
use std::path::Path;
use votive_data::TextTokenizer;
use votive_model::{CausalLmConfig, Decoder, Lora, load_causal_lm};
use votive_train::front_end::ShownImages;

/// The tokenizer of a folder, which knows how the folder's model reads images.
///
/// # Errors
/// As [`load_reader`].
pub(crate) fn load_tokenizer(folder: &Path) -> Outcome<TextTokenizer> {
    // A tokenizer may stand alone, or beside a model that is not supported.
    match CausalLmConfig::read_folder(folder) {
        Ok(config) => Ok(load_reader(folder, &config)?.0),
        Err(_) => Ok(TextTokenizer::load(folder)?),
    }
}

/// The tokenizer of a model's folder, and how images are prepared, if the model sees any.
///
/// # Errors
/// If a file is missing or wrong, or the parts do not belong together.
pub(crate) fn load_reader(
    folder: &Path,
    config: &CausalLmConfig,
) -> Outcome<(TextTokenizer, Option<ShownImages>)> {
    let tokenizer = TextTokenizer::load(folder)?;
    Ok(match config.image_processor(folder)? {
        None => (tokenizer, None),
        Some(processor) => {
            let (tokenizer, images) = ShownImages::of(folder, tokenizer, processor)?;
            (tokenizer, Some(images))
        }
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
        let (tokenizer, images) = load_reader(folder, &config)?;
        tokenizer.check_model_vocabulary(config.vocab_size())?;
        if let Some(adapter) = adapter {
            params = params.with_lora(Lora::load(adapter, device)?)?;
        }
        let network = params.build(|scope| config.build(scope))?;
        Ok(Self { network, tokenizer, images })
    }
}
