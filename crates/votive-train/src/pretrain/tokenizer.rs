//! Tokenizers for the shipped models, learnt from their worlds and written in the hub's layouts.

use crate::error::{Result, TrainError};
use serde_json::json;
use std::path::Path;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer, TokenizerBuilder};
use votive_model::files;

const PAD: &str = "<|pad|>";
const BEGIN: &str = "<|begin|>";
const END: &str = "<|end|>";

/// A chat template that says the same as a plain prompt with a line break, so that both forms train alike; images are
/// parts of a turn's content, where there are any.
const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{% if message['content'] is string %}\
{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\
{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}\
{{ eos_token if message['role'] == 'assistant' else '\\n' }}{% endfor %}";

/// What stands for an image in a text.
pub const IMAGE: &str = "<image>";

fn failed(error: impl std::fmt::Display) -> TrainError {
    TrainError::Plan(format!("tokenizer: {error}"))
}

/// Learns a byte-level BPE of `size` entries and writes `tokenizer.json` and `tokenizer_config.json`.
///
/// Every text starts with `<|begin|>`; `<|end|>` ends an answer; `<|pad|>` fills; [`IMAGE`] is one of the tokens if the model
/// `sees_images`.
///
/// # Errors
/// If the files cannot be written.
pub fn text_tokenizer(
    texts: impl Iterator<Item = String> + Send,
    size: usize,
    positions: usize,
    sees_images: bool,
    folder: &Path,
) -> Result<()> {
    let images = sees_images.then_some(IMAGE);
    let specials: Vec<AddedToken> =
        [PAD, BEGIN, END].into_iter().chain(images).map(|token| AddedToken::from(token, true)).collect();
    let mut trainer = BpeTrainer::builder()
        .vocab_size(size)
        .min_frequency(2)
        .special_tokens(specials)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build();
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None::<tokenizers::NormalizerWrapper>)
        .with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)))
        .with_post_processor(None::<tokenizers::PostProcessorWrapper>)
        .with_decoder(Some(ByteLevel::default()))
        .build()
        .map_err(failed)?;
    tokenizer.train(&mut trainer, texts).map_err(failed)?;
    let mut tokenizer: Tokenizer = tokenizer.into();
    let begin = tokenizer.token_to_id(BEGIN).ok_or_else(|| failed("no begin token"))?;
    let template = TemplateProcessing::builder()
        .try_single(format!("{BEGIN} $A"))
        .map_err(failed)?
        .special_tokens(vec![(BEGIN, begin)])
        .build()
        .map_err(failed)?;
    tokenizer.with_post_processor(Some(template));
    files::write_bytes(
        &folder.join("tokenizer.json"),
        tokenizer.to_string(true).map_err(failed)?.as_bytes(),
    )?;
    files::write_json(
        &folder.join("tokenizer_config.json"),
        &json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": positions,
            "bos_token": BEGIN,
            "eos_token": END,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": false,
            "chat_template": CHAT_TEMPLATE,
        }),
    )?;
    Ok(())
}

/// Learns a CLIP tokenizer that has a token of its own for each word of `captions`, and writes `vocab.json`,
/// `merges.txt` and the configuration files.
///
/// # Errors
/// If the files cannot be written.
pub fn clip_tokenizer(
    captions: impl Iterator<Item = String> + Send,
    positions: usize,
    folder: &Path,
) -> Result<()> {
    const START: &str = "<|startoftext|>";
    const STOP: &str = "<|endoftext|>";
    let words = SplitPattern::Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+".to_owned());
    let split = Split::new(words, SplitDelimiterBehavior::Removed, true).map_err(failed)?;
    let bytes = ByteLevel::default().add_prefix_space(false).use_regex(false);
    let sequence = tokenizers::pre_tokenizers::sequence::Sequence::new(vec![split.into(), bytes.into()]);
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut trainer = BpeTrainer::builder()
        .vocab_size(100_000)
        .min_frequency(1)
        .initial_alphabet(alphabet.iter().copied().collect())
        .end_of_word_suffix("</w>".to_owned())
        .show_progress(false)
        .build();
    let model = BPE::builder().end_of_word_suffix("</w>".to_owned()).build().map_err(failed)?;
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(Some(tokenizers::normalizers::utils::Lowercase))
        .with_pre_tokenizer(Some(sequence))
        .with_post_processor(None::<tokenizers::PostProcessorWrapper>)
        .with_decoder(None::<tokenizers::DecoderWrapper>)
        .build()
        .map_err(failed)?;
    tokenizer.train(&mut trainer, captions).map_err(failed)?;
    let learnt: serde_json::Value =
        serde_json::from_str(&tokenizer.to_string(false).map_err(failed)?).map_err(failed)?;
    let merges: Vec<[String; 2]> =
        serde_json::from_value(learnt["model"]["merges"].clone()).map_err(failed)?;
    // CLIP's order: every byte, every byte as the end of a word, the merges, the two specials.
    let singles = alphabet.iter().map(char::to_string).chain(alphabet.iter().map(|c| format!("{c}</w>")));
    let entries =
        singles.chain(merges.iter().map(|pair| pair.concat())).chain([START.to_owned(), STOP.to_owned()]);
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        entries.enumerate().map(|(id, token)| (token, id.into())).collect();
    let lines: Vec<String> = merges.iter().map(|pair| pair.join(" ")).collect();
    files::write_bytes(
        &folder.join("merges.txt"),
        format!("#version: 0.2\n{}\n", lines.join("\n")).as_bytes(),
    )?;
    files::write_json(&folder.join("vocab.json"), &vocabulary.into())?;
    let specials = json!({ "bos_token": START, "eos_token": STOP, "unk_token": STOP, "pad_token": STOP });
    files::write_json(&folder.join("special_tokens_map.json"), &specials)?;
    let mut config = json!({
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": positions,
        "do_lower_case": true,
        "add_prefix_space": false,
        "errors": "replace",
    });
    for (key, value) in specials.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    files::write_json(&folder.join("tokenizer_config.json"), &config)?;
    Ok(())
}
