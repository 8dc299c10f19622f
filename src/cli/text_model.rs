//! A language model's folder, ready to read and write text: what the text commands share.

use crate::cli::Outcome;
use candle_core::Device;
use std::path::Path;
use votive_data::TextTokenizer;
use votive_model::{Decoder, Lora, load_causal_lm};

/// A language model without gradients, and its tokenizer.
#[derive(Debug)]
pub(crate) struct TextModel {
    /// The network, under its adapter if there is one.
    pub(crate) network: Decoder,
    /// The tokenizer of the same folder.
    pub(crate) tokenizer: TextTokenizer,
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
        Ok(Self { network: params.build(|scope| config.build(scope))?, tokenizer })
    }
}
