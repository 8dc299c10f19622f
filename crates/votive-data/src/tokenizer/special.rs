//! The special tokens of a hub folder, by the names that transformers gives them.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::folder::read_settings;
use crate::error::Result;

const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// `bos_token`, `eos_token`, … of a tokenizer, as far as its folder names them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpecialTokens(Map<String, Value>);

impl SpecialTokens {
    /// Reads the settings; `special_tokens_map.json` of older folders overrides them, but does not count where the
    /// settings list `added_tokens_decoder` (transformers 5 reads both so).
    pub(crate) fn read(folder: &Path, settings: &Map<String, Value>) -> Result<Self> {
        let legacy = if settings.contains_key("added_tokens_decoder") {
            Map::new()
        } else {
            read_settings(&folder.join("special_tokens_map.json"))?
        };
        let token = |name: &str| content(legacy.get(name)).or_else(|| content(settings.get(name)));
        Ok(Self(NAMES.iter().filter_map(|name| Some(((*name).to_owned(), token(name)?.into()))).collect()))
    }

    /// Names a token by the first of `ids`, for folders that hold no names at all.
    pub(super) fn name_by_id(&mut self, name: &str, ids: &[u32], tokenizer: &Tokenizer) {
        if let Some(token) = ids.first().and_then(|id| tokenizer.id_to_token(*id)) {
            self.0.insert(name.to_owned(), token.into());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The token called `name`, such as `eos_token`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// Makes a tokenizer treat the tokens as special: it never splits them, and takes them out of any text, even a
    /// padding token such as `!`. Those that it lists already keep their own rules, for example whether they swallow
    /// the space beside them.
    pub(crate) fn register(&self, tokenizer: &mut Tokenizer) -> tokenizers::Result<usize> {
        let listed: BTreeSet<_> =
            tokenizer.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
        let missing = self.0.values().filter_map(Value::as_str).filter(|token| !listed.contains(*token));
        tokenizer.add_special_tokens(missing.map(|token| AddedToken::from(token.to_owned(), true)))
    }

    /// The tokens as variables of a chat template.
    pub(super) fn variables(&self) -> &Map<String, Value> {
        &self.0
    }
}

/// A token is written as a string, or as an object with its `content`.
fn content(value: Option<&Value>) -> Option<&str> {
    match value? {
        Value::Object(fields) => fields.get("content")?.as_str(),
        other => other.as_str(),
    }
}
