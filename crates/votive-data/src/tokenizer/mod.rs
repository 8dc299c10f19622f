//! A tokenizer loaded from a hub folder, with its special tokens and chat templates.
//!
//! Both generations of the layout are read: transformers 4 (`special_tokens_map.json`, the template inside
//! `tokenizer_config.json`) and transformers 5 (everything in `tokenizer_config.json`, `chat_template.jinja`,
//! `additional_chat_templates/`).

mod folder;
mod images;
mod llama_cpp;
mod sentencepiece;
mod special;
mod stream;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::{DataError, Result};
use crate::record::{ChatOptions, Message};
use crate::template::UtcTime;
use folder::Templates;
pub(crate) use folder::{as_length, read_settings};
pub(crate) use images::Shown;
pub use images::{CountBySize, ImagePlaces, VectorCount};
pub use llama_cpp::{LlamaCppVocabulary, Merging, TokenKind};
pub use special::SpecialTokens;
pub use stream::TextStream;

const LOOKED_FOR: &str = "tokenizer.json (a tokenizer.model or vocab.json alone must be converted: load it with \
                          transformers and save it again)";

/// Text to token ids and back.
#[derive(Debug)]
pub struct TextTokenizer {
    folder: PathBuf,
    tokenizer: Tokenizer,
    special: SpecialTokens,
    templates: Templates,
    stop_ids: Vec<u32>,
    model_max_length: Option<usize>,
    size: usize,
    images: Option<ImagePlaces>,
}

impl TextTokenizer {
    /// Loads the tokenizer of a model folder.
    ///
    /// # Errors
    /// If there is no `tokenizer.json` or it cannot be parsed; if a settings file is not JSON; if a chat template does
    /// not compile.
    pub fn load(folder: &Path) -> Result<Self> {
        let mut tokenizer = load_backend(folder)?;
        let settings = read_settings(&folder.join("tokenizer_config.json"))?;
        let generation = read_settings(&folder.join("generation_config.json"))?;
        let model = read_settings(&folder.join("config.json"))?;
        let mut special = SpecialTokens::read(folder, &settings)?;
        let stop_ids = folder::token_ids(&generation, "eos_token_id");
        let model_stop_ids = folder::token_ids(&model, "eos_token_id");
        if special.is_empty() {
            special.name_by_id("eos_token", &model_stop_ids, &tokenizer);
            special.name_by_id("bos_token", &folder::token_ids(&model, "bos_token_id"), &tokenizer);
        }
        special.register(&mut tokenizer).map_err(|error| failed(folder, error))?;
        let stop_ids = if stop_ids.is_empty() { model_stop_ids } else { stop_ids };
        let mut loaded = Self {
            folder: folder.to_owned(),
            size: tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1),
            tokenizer,
            special,
            templates: Templates::read(folder, &settings)?,
            stop_ids,
            model_max_length: as_length(settings.get("model_max_length")),
            images: None,
        };
        let eos_id = loaded.special_id("eos_token");
        loaded.stop_ids.extend(eos_id.filter(|id| !loaded.stop_ids.contains(id)));
        Ok(loaded)
    }

    /// Lets chat templates read the time; see [`ChatTemplate::with_time`](crate::ChatTemplate::with_time).
    #[must_use]
    pub fn with_time(mut self, time: UtcTime) -> Self {
        self.templates = self.templates.with_time(time);
        self
    }

    /// Token ids of a text. With `add_special_tokens` the tokenizer's post-processor runs, which adds a
    /// beginning-of-text token for models that were trained with one.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding =
            self.tokenizer.encode_fast(text, add_special_tokens).map_err(|error| self.failed(error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of a text as [`encode`](Self::encode), and the byte of the text where each token starts; a token that
    /// the post-processor added starts at 0.
    pub(crate) fn encode_with_starts(
        &self,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<(Vec<u32>, Vec<usize>)> {
        let encoding = self.tokenizer.encode(text, add_special_tokens).map_err(|error| self.failed(error))?;
        let starts = encoding.get_offsets().iter().map(|(start, _)| *start).collect();
        Ok((encoding.get_ids().to_vec(), starts))
    }

    /// The text of token ids.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.tokenizer.decode(ids, skip_special_tokens).map_err(|error| self.failed(error))
    }

    /// The token of an id as the vocabulary spells it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// Renders a conversation with the model's template; `add_generation_prompt` opens the assistant's turn.
    ///
    /// # Errors
    /// If there is no template, or it refuses the conversation.
    pub fn render_chat(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        options: &ChatOptions,
    ) -> Result<String> {
        let template = self
            .templates
            .select(options.tools.is_some())
            .ok_or_else(|| DataError::NoChatTemplate { folder: self.folder.clone() })?;
        // Templates of models that see images read contents as lists of parts.
        let messages = self.showing(messages, 0);
        template.render(&messages, add_generation_prompt, options, self.special.variables())
    }

    /// Token ids of a rendered conversation. The template writes its special tokens itself, so none are added.
    ///
    /// # Errors
    /// As [`render_chat`](Self::render_chat) and [`encode`](Self::encode).
    pub fn encode_chat(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        options: &ChatOptions,
    ) -> Result<Vec<u32>> {
        self.encode(&self.render_chat(messages, add_generation_prompt, options)?, false)
    }

    /// True if the folder has a chat template.
    #[must_use]
    pub fn has_chat_template(&self) -> bool {
        self.templates.select(false).is_some()
    }

    /// The end-of-text token.
    ///
    /// # Errors
    /// If the folder names none.
    pub fn eos_token(&self) -> Result<&str> {
        self.special.get("eos_token").ok_or_else(|| self.lacks("eos_token"))
    }

    /// Id of the end-of-text token.
    ///
    /// # Errors
    /// If the folder names none.
    pub fn eos_id(&self) -> Result<u32> {
        self.special_id("eos_token").ok_or_else(|| self.lacks("eos_token"))
    }

    /// Id of the beginning-of-text token, if the folder names one.
    #[must_use]
    pub fn bos_id(&self) -> Option<u32> {
        self.special_id("bos_token")
    }

    /// Id to pad with: the padding token's, or else the end-of-text token's, as TRL does.
    ///
    /// # Errors
    /// If the folder names neither.
    pub fn pad_id(&self) -> Result<u32> {
        self.special_id("pad_token").map_or_else(|| self.eos_id(), Ok)
    }

    /// Ids at which generation stops: those of `generation_config.json` (or else `config.json`), and the end-of-text
    /// token.
    #[must_use]
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// The special tokens by name.
    #[must_use]
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// `model_max_length` of the settings, if it is a real limit.
    #[must_use]
    pub fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    /// Largest id plus one, added tokens included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.size
    }

    /// The first id that two tokenizers write differently, in words.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let ids = 0..self.vocab_size().max(other.vocab_size()) as u32;
        ids.map(|id| (id, self.token(id), other.token(id))).find(|(_, own, others)| own != others).map(
            |(id, own, others)| {
                let word =
                    |token: Option<String>| token.map_or("nothing".to_owned(), |token| format!("{token:?}"));
                format!("its tokenizer is another: id {id} is {}, not {}", word(others), word(own))
            },
        )
    }

    /// Checks that every id has a row in a model's embedding; the model may have more rows than that.
    ///
    /// # Errors
    /// If the tokenizer is larger, naming both sizes.
    pub fn check_model_vocabulary(&self, model_size: usize) -> Result<()> {
        if self.size <= model_size {
            return Ok(());
        }
        let last_token = self.token((self.size - 1) as u32).unwrap_or_default();
        Err(DataError::Vocabulary {
            folder: self.folder.clone(),
            tokenizer_size: self.size,
            last_token,
            model_size,
        })
    }

    fn special_id(&self, name: &str) -> Option<u32> {
        self.tokenizer.token_to_id(self.special.get(name)?)
    }

    fn lacks(&self, token: &'static str) -> DataError {
        DataError::NoSpecialToken { folder: self.folder.clone(), token }
    }

    fn failed(&self, error: tokenizers::Error) -> DataError {
        failed(&self.folder, error)
    }
}

/// Reads `tokenizer.json`, without the truncation and padding that some folders bake into it: what is cut and padded
/// is decided, and counted, by this crate.
fn load_backend(folder: &Path) -> Result<Tokenizer> {
    let file = folder.join("tokenizer.json");
    if !file.is_file() {
        return Err(DataError::NoTokenizer { folder: folder.to_owned(), looked_for: LOOKED_FOR });
    }
    let bytes = std::fs::read(&file).map_err(DataError::read(&file))?;
    let mut tokenizer = parse(&file, &bytes)?;
    tokenizer.with_truncation(None).map_err(|error| failed(folder, error))?.with_padding(None);
    Ok(tokenizer)
}

/// A tokenizer from the JSON of a `tokenizer.json`, which stands in `file`.
pub(crate) fn parse(file: &Path, json: &[u8]) -> Result<Tokenizer> {
    /// tokenizers 0.23.2 panics where this part is not JSON.
    #[derive(Deserialize)]
    struct Delicate {
        #[serde(rename = "decoder")]
        _decoder: Option<Value>,
    }
    let wrong = |error: &dyn Display| DataError::Settings {
        file: file.to_owned(),
        message: format!("not a tokenizer: {error}"),
    };
    serde_json::from_slice::<Delicate>(json).map_err(|error| wrong(&error))?;
    Tokenizer::from_bytes(json).map_err(|error| wrong(&error))
}

fn failed(folder: &Path, error: tokenizers::Error) -> DataError {
    DataError::Tokenizer { folder: folder.to_owned(), message: error.to_string() }
}
