//! CLIP's tokenizer: byte-pair encoding of lower-cased words, to a fixed number of positions.
//!
//! Source: Radford et al. 2021, arXiv:2103.00020; the pipeline is the one that transformers 5.23 builds in
//! `models/clip/tokenization_clip.py`, padding and truncation are those of diffusers' `encode_prompt`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use crate::error::{DataError, Result};
use crate::tokenizer::{SpecialTokens, as_length, parse, read_settings};

const LOOKED_FOR: &str = "tokenizer.json, or vocab.json with merges.txt";
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// Positions of every CLIP text encoder of Stable Diffusion.
const POSITIONS: usize = 77;
/// Words of a caption: contractions, runs of letters, single digits, runs of anything else.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A caption in token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipPrompt {
    /// (S,), S the number of positions: start, caption, end, padding.
    pub ids: Vec<u32>,
    /// Tokens among them that are no padding: start, caption and end.
    pub tokens: usize,
    /// Caption tokens that did not fit.
    pub truncated_tokens: usize,
}

/// The tokenizer of a CLIP text encoder.
#[derive(Debug)]
pub struct ClipTokenizer {
    folder: PathBuf,
    tokenizer: Tokenizer,
    start_id: u32,
    end_id: u32,
    pad_id: u32,
    positions: usize,
    size: usize,
}

impl ClipTokenizer {
    /// Loads the `tokenizer` folder of a Stable Diffusion pipeline.
    ///
    /// # Errors
    /// If the folder has neither `tokenizer.json` nor `vocab.json` with `merges.txt`; if they cannot be parsed; if the
    /// vocabulary lacks the start, end or padding token.
    pub fn load(folder: &Path) -> Result<Self> {
        let mut tokenizer = if folder.join("tokenizer.json").is_file() {
            let file = folder.join("tokenizer.json");
            parse(&file, &fs::read(&file).map_err(DataError::read(&file))?)?
        } else {
            from_vocabulary(folder)?
        };
        let failed = |error: tokenizers::Error| DataError::Tokenizer {
            folder: folder.to_owned(),
            message: error.to_string(),
        };
        tokenizer.with_truncation(None).map_err(failed)?.with_padding(None);
        let settings = read_settings(&folder.join("tokenizer_config.json"))?;
        let special = SpecialTokens::read(folder, &settings)?;
        special.register(&mut tokenizer).map_err(failed)?;
        let id = |name: &'static str, default: &str| {
            let lacking = || DataError::NoSpecialToken { folder: folder.to_owned(), token: name };
            tokenizer.token_to_id(special.get(name).unwrap_or(default)).ok_or_else(lacking)
        };
        let (start_id, end_id) = (id("bos_token", START)?, id("eos_token", END)?);
        // Stable Diffusion 2 pads with `!`, the others with the end token.
        let pad_id = id("pad_token", special.get("eos_token").unwrap_or(END))?;
        // Two positions are the least that hold a start and an end.
        let positions = as_length(settings.get("model_max_length")).unwrap_or(POSITIONS).max(2);
        let size = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        Ok(Self { folder: folder.to_owned(), tokenizer, start_id, end_id, pad_id, positions, size })
    }

    /// A caption at all positions: cut or padded to [`positions`](Self::positions).
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, caption: &str) -> Result<ClipPrompt> {
        let encoding = self.tokenizer.encode_fast(caption, false).map_err(|error| DataError::Tokenizer {
            folder: self.folder.clone(),
            message: error.to_string(),
        })?;
        let caption_ids = encoding.get_ids();
        let kept = caption_ids.len().min(self.positions - 2);
        let mut ids = Vec::with_capacity(self.positions);
        ids.push(self.start_id);
        ids.extend_from_slice(&caption_ids[..kept]);
        ids.push(self.end_id);
        ids.resize(self.positions, self.pad_id);
        Ok(ClipPrompt { ids, tokens: kept + 2, truncated_tokens: caption_ids.len() - kept })
    }

    /// S, the positions of the text encoder; 77 unless the folder says otherwise.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Id of the end token, at which the text encoder pools.
    #[must_use]
    pub fn end_id(&self) -> u32 {
        self.end_id
    }

    /// Largest id plus one.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.size
    }

    /// Whether another tokenizer gives every token the same id, and begins, ends and fills captions with the same.
    #[must_use]
    pub fn is_same_vocabulary(&self, other: &Self) -> bool {
        let special = |it: &Self| (it.start_id, it.end_id, it.pad_id, it.positions);
        special(self) == special(other) && self.tokenizer.get_vocab(true) == other.tokenizer.get_vocab(true)
    }

    /// Checks that every id has a row in the text encoder's embedding.
    ///
    /// # Errors
    /// If the tokenizer is larger, naming both sizes.
    pub fn check_model_vocabulary(&self, model_size: usize) -> Result<()> {
        if self.size <= model_size {
            return Ok(());
        }
        Err(DataError::Vocabulary {
            folder: self.folder.clone(),
            tokenizer_size: self.size,
            last_token: self.tokenizer.id_to_token((self.size - 1) as u32).unwrap_or_default(),
            model_size,
        })
    }
}

/// Builds the tokenizer from the files of the original layout.
fn from_vocabulary(folder: &Path) -> Result<Tokenizer> {
    let (vocab_file, merges_file) = (folder.join("vocab.json"), folder.join("merges.txt"));
    if !vocab_file.is_file() || !merges_file.is_file() {
        return Err(DataError::NoTokenizer { folder: folder.to_owned(), looked_for: LOOKED_FOR });
    }
    let vocab = read_settings(&vocab_file)?;
    let merges = fs::read_to_string(&merges_file).map_err(DataError::read(&merges_file))?;
    let merges: Vec<_> =
        merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let json = pipeline(&vocab, &merges).to_string();
    parse(&vocab_file, json.as_bytes())
}

/// The tokenizer in the format of `tokenizer.json`.
fn pipeline(vocab: &Map<String, Value>, merges: &[&str]) -> Value {
    let special = |token: &str| {
        let id = vocab.get(token)?;
        Some(json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true}))
    };
    let added_tokens: Vec<_> = [START, END].into_iter().filter_map(special).collect();
    json!({
        "version": "1.0",
        "added_tokens": added_tokens,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "</w>", "fuse_unk": false, "vocab": vocab, "merges": merges},
    })
}
