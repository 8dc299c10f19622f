//! A folder's vocabulary in the terms of llama.cpp's tokenizers, which are two: byte-level pairs merged by rank (`gpt2`),
//! and SentencePiece's pieces merged by score (`llama`).
//!
//! llama.cpp does not read the pattern that splits a text before merging; it knows some by name. A pattern without a name
//! is refused: the file would load and give other tokens.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::sentencepiece::{self, Piece};
use super::{TextTokenizer, failed};
use crate::error::{DataError, Result};

/// What a token is to llama.cpp, with its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum TokenKind {
    /// Text.
    Normal = 1,
    /// What stands for text that has no token.
    Unknown = 2,
    /// A mark that is not text.
    Control = 3,
    /// Text that is never split.
    UserDefined = 4,
    /// A row of the embedding that is no token.
    Unused = 5,
    /// A single byte.
    Byte = 6,
}

/// How tokens are made of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Merging {
    /// Byte-level pairs in the order of their ranks, after splitting by the pattern that llama.cpp calls `pattern`.
    Pairs {
        /// Two parts with a space between.
        merges: Vec<String>,
        /// llama.cpp's name.
        pattern: &'static str,
    },
    /// Pieces with scores.
    Pieces {
        /// One for each token.
        scores: Vec<f32>,
        /// Whether a space is put before a text.
        add_space: bool,
    },
}

/// Everything that llama.cpp must know of a tokenizer.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaCppVocabulary {
    /// Text and kind by id, one for each row of the embedding.
    pub tokens: Vec<(String, TokenKind)>,
    /// How a text is cut.
    pub merging: Merging,
    /// `bos`, `eos`, `unknown`, `padding`, as far as the folder names them.
    pub special: Vec<(&'static str, u32)>,
    /// An id that ends a turn and is not the end of text.
    pub end_of_turn: Option<u32>,
    /// Whether a text begins with `bos`, and whether it ends with `eos`.
    pub adds: (bool, bool),
    /// The source of the chat template.
    pub chat_template: Option<String>,
}

/// Text and kind by id.
type Tokens = BTreeMap<u32, (String, TokenKind)>;

/// Patterns by llama.cpp's name, and whether a word that is a token is not merged first.
const PATTERNS: [(&str, bool, &str); 4] = [
    (
        "llama-bpe",
        true,
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        "dbrx",
        false,
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        "qwen2",
        false,
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        "tekken",
        true,
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];

impl TextTokenizer {
    /// The vocabulary as llama.cpp takes it, with `rows` rows of the model's embedding.
    ///
    /// # Errors
    /// If llama.cpp has no tokenizer that gives the same tokens.
    pub fn for_llama_cpp(&self, rows: usize) -> Result<LlamaCppVocabulary> {
        let file = self.folder.join("tokenizer.json");
        let text = fs::read_to_string(&file).map_err(DataError::read(&file))?;
        let json: Value = serde_json::from_str(&text).map_err(|error| self.unfit(&error.to_string()))?;
        let (mut tokens, merging) = match is_byte_level(&json["decoder"]) {
            true => self.pairs(&json)?,
            false => self.pieces()?,
        };
        for (id, token) in self.tokenizer.get_added_tokens_decoder() {
            let kind = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
            // A piece that is said to be unknown stays that.
            let kind = match tokens.get(&id) {
                Some((_, TokenKind::Unknown)) => TokenKind::Unknown,
                _ => kind,
            };
            tokens.insert(id, (token.content, kind));
        }
        let at = |id: usize| {
            let unused = || (format!("[PAD{id}]"), TokenKind::Unused);
            u32::try_from(id).ok().and_then(|id| tokens.get(&id).cloned()).unwrap_or_else(unused)
        };
        let tokens: Vec<_> = (0..rows.max(self.size)).map(at).collect();
        let merging = match merging {
            Merging::Pieces { mut scores, add_space } => {
                // Below every real piece, so that nothing is merged into what SentencePiece does not know.
                scores.resize(tokens.len(), -1000.0);
                Merging::Pieces { scores, add_space }
            }
            pairs @ Merging::Pairs { .. } => pairs,
        };
        let names =
            [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")];
        let special: Vec<_> =
            names.iter().filter_map(|(theirs, ours)| Some((*theirs, self.special_id(ours)?))).collect();
        let eos = self.special_id("eos_token");
        Ok(LlamaCppVocabulary {
            tokens,
            merging,
            special,
            end_of_turn: self.stop_ids.iter().copied().find(|id| Some(*id) != eos),
            adds: self.adds()?,
            chat_template: self.templates.select(false).map(|template| template.source().to_owned()),
        })
    }

    /// Whether the tokenizer puts `bos` before and `eos` behind a text.
    fn adds(&self) -> Result<(bool, bool)> {
        let (with, without) = (self.encode("a", true)?, self.encode("a", false)?);
        let starts = with.first() != without.first();
        let ends = with.last() != without.last();
        let expected = usize::from(starts) + usize::from(ends);
        let bos = self.special_id("bos_token").filter(|_| starts);
        let eos = self.special_id("eos_token").filter(|_| ends);
        let is_known = with.len() == without.len() + expected
            && (!starts || bos == with.first().copied())
            && (!ends || eos == with.last().copied());
        match is_known {
            true => Ok((starts, ends)),
            false => Err(self.unfit("it adds other tokens to a text than the beginning and the end of one")),
        }
    }

    fn pairs(&self, json: &Value) -> Result<(Tokens, Merging)> {
        let model = &json["model"];
        if model["type"] != "BPE" || model["byte_fallback"] == true {
            return Err(self.unfit(&format!("a byte-level tokenizer of the kind {}", model["type"])));
        }
        let is_idle = |value: &Value| value.is_null() || value["type"] == "NFC";
        if !is_idle(&json["normalizer"]) {
            return Err(self.unfit(&format!("the normalizer {}", json["normalizer"]["type"])));
        }
        let skips_merges = model["ignore_merges"] == true;
        let pattern = pattern(&json["pre_tokenizer"], skips_merges).ok_or_else(|| {
            self.unfit(&format!("the pattern that splits a text: {}", json["pre_tokenizer"]))
        })?;
        let merges = model["merges"].as_array().map(Vec::as_slice).unwrap_or_default();
        let merge = |merge: &Value| match merge {
            Value::String(both) => Some(both.clone()),
            parts => Some(format!("{} {}", parts.get(0)?.as_str()?, parts.get(1)?.as_str()?)),
        };
        let merges = merges.iter().map(merge).collect::<Option<Vec<_>>>();
        let merges = merges.ok_or_else(|| self.unfit("a merge that is no pair"))?;
        let tokens = self.tokenizer.get_vocab(false).into_iter();
        let tokens = tokens.map(|(text, id)| (id, (text, TokenKind::Normal))).collect();
        Ok((tokens, Merging::Pairs { merges, pattern }))
    }

    fn pieces(&self) -> Result<(Tokens, Merging)> {
        let file = self.folder.join("tokenizer.model");
        if !file.is_file() {
            return Err(self.unfit(
                "a tokenizer that is not byte-level, without the scores of its pieces; put the tokenizer.model of the base \
                 model beside it",
            ));
        }
        let bytes = fs::read(&file).map_err(DataError::read(&file))?;
        let model = sentencepiece::parse(&bytes)
            .ok_or_else(|| failed(&self.folder, "tokenizer.model is not a SentencePiece model".into()))?;
        let ours = self.tokenizer.get_vocab(true);
        let differs =
            |(id, piece): (usize, &Piece)| ours.get(&piece.text).is_none_or(|own| *own as usize != id);
        if let Some(id) = model.pieces.iter().enumerate().position(differs) {
            let piece = &model.pieces[id].text;
            return Err(
                self.unfit(&format!("tokenizer.model has `{piece}` as token {id}, tokenizer.json has not"))
            );
        }
        let scores = model.pieces.iter().map(|piece| piece.score).collect();
        let tokens = (0..).zip(model.pieces).map(|(id, piece)| (id, (piece.text, piece.kind))).collect();
        Ok((tokens, Merging::Pieces { scores, add_space: model.add_space }))
    }

    fn unfit(&self, what: &str) -> DataError {
        DataError::NotInLlamaCpp { folder: self.folder.clone(), what: what.to_owned() }
    }
}

fn is_byte_level(decoder: &Value) -> bool {
    let parts = decoder["decoders"].as_array();
    decoder["type"] == "ByteLevel" || parts.is_some_and(|parts| parts.iter().any(is_byte_level))
}

/// llama.cpp's name of a way to split a text.
fn pattern(pre_tokenizer: &Value, skips_merges: bool) -> Option<&'static str> {
    let steps = match pre_tokenizer["pretokenizers"].as_array() {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(pre_tokenizer),
    };
    let (bytes, before) = steps.split_last()?;
    if bytes["type"] != "ByteLevel" || bytes["add_prefix_space"] == true {
        return None;
    }
    // Absent is yes, as in the library.
    let splits_words = bytes["use_regex"] != false;
    match before {
        [] if splits_words && !skips_merges => Some("gpt-2"),
        [digits] if splits_words && !skips_merges => {
            (digits["type"] == "Digits" && digits["individual_digits"] == true).then_some("smollm")
        }
        [split] if !splits_words && split["type"] == "Split" && split["behavior"] == "Isolated" => {
            let regex = split["pattern"]["Regex"].as_str()?;
            let named = PATTERNS.iter().find(|(_, skips, known)| *known == regex && *skips == skips_merges);
            named.map(|(name, ..)| *name)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patterns_have_the_names_of_llama_cpp() {
        let bytes = |words: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": words});
        let split = |regex: &str| {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}, bytes(false),
            ]})
        };
        assert_eq!(pattern(&bytes(true), false), Some("gpt-2"));
        assert_eq!(pattern(&bytes(false), false), None);
        assert_eq!(pattern(&json!({"type": "ByteLevel", "add_prefix_space": true}), false), None);
        for (name, skips, regex) in PATTERNS {
            assert_eq!(pattern(&split(regex), skips), Some(name));
        }
        assert_eq!(pattern(&split(PATTERNS[2].2), true), None);
        assert_eq!(pattern(&split(r"\w+"), false), None);
        let digits = json!({"type": "Digits", "individual_digits": true});
        let smollm = json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]});
        assert_eq!(pattern(&smollm, false), Some("smollm"));
    }
}
