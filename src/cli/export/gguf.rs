//! A GGUF file of a language model: its tensors, and its tokenizer in llama.cpp's keys.

use super::Args;
use super::source::Source;
use crate::cli::merge::Dtype;
use crate::cli::{Context, Failure, Outcome};
use candle_core::DType;
use clap::ValueEnum;
use serde_json::json;
use votive_data::{LlamaCppVocabulary, Merging, TextTokenizer};
use votive_model::config::ConfigFile;
use votive_model::gguf::{self, Metadata, Quantization, Value};
use votive_model::{CausalLmConfig, LlamaConfig, hub_folder};

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Precision {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl Precision {
    /// The same in a folder of the hub, which has no blocks.
    pub(super) fn in_a_folder(self) -> Option<Dtype> {
        match self {
            Self::F32 => Some(Dtype::F32),
            Self::F16 => Some(Dtype::F16),
            Self::Bf16 => Some(Dtype::Bf16),
            Self::Q8_0 => None,
        }
    }

    fn quantization(self) -> Quantization {
        match self {
            Self::F32 => Quantization::F32,
            Self::F16 => Quantization::F16,
            Self::Bf16 => Quantization::Bf16,
            Self::Q8_0 => Quantization::Q8_0,
        }
    }
}

pub(super) fn write(source: &Source, args: &Args, ctx: &Context) -> Outcome<serde_json::Value> {
    if args.out.exists() {
        return Err(Failure::usage(format!("--out {}: is there already", args.out.display())));
    }
    let stored = match (args.dtype, hub_folder::stored_dtype(&source.base)?) {
        (Some(precision), _) => precision.quantization(),
        (None, DType::F16) => Quantization::F16,
        (None, DType::BF16) => Quantization::Bf16,
        (None, _) => Quantization::F32,
    };
    let config = LlamaConfig::read(&ConfigFile::read(&source.base.join("config.json"))?)?;
    let tokenizer = TextTokenizer::load(&source.base)?;
    tokenizer.check_model_vocabulary(config.sizes.vocab_size)?;
    let mut metadata = gguf::metadata(&config)?;
    let name = source.base.file_name().unwrap_or_default().to_string_lossy();
    metadata.extend([
        text("general.name", &name),
        ("general.file_type".to_owned(), Value::U32(stored.file_type())),
        ("general.quantization_version".to_owned(), Value::U32(2)),
    ]);
    metadata.extend(vocabulary(tokenizer.for_llama_cpp(config.sizes.vocab_size)?));
    let params = source.params(ctx)?;
    // A parameter that the architecture does not have would be passed on unseen.
    params.build(|scope| CausalLmConfig::from(config.clone()).build(scope))?;
    let tensors = gguf::tensors(&config, &params.merged()?, stored)?;
    gguf::write(&args.out, &metadata, &tensors)?;
    let is_fallback =
        |tensor: &&gguf::GgufTensor| tensor.stored != stored && tensor.stored != Quantization::F32;
    let fallback: Vec<&str> = tensors.iter().filter(is_fallback).map(|tensor| tensor.name.as_str()).collect();
    if !fallback.is_empty() {
        ctx.output.warn(format!(
            "{} of {} tensors are stored as f16: their rows are no multiple of {} numbers",
            fallback.len(),
            tensors.len(),
            stored.block()
        ));
    }
    Ok(json!({"tensors": tensors.len(), "stored_as_f16": fallback}))
}

fn text(key: &str, value: &str) -> (String, Value) {
    (key.to_owned(), Value::Text(value.to_owned()))
}

/// The keys of a tokenizer.
fn vocabulary(vocabulary: LlamaCppVocabulary) -> Metadata {
    let mut found = Metadata::new();
    let mut set = |key: &str, value| found.push((format!("tokenizer.ggml.{key}"), value));
    let kinds = vocabulary.tokens.iter().map(|(_, kind)| *kind as i32).collect();
    let texts = vocabulary.tokens.into_iter().map(|(text, _)| text).collect();
    match vocabulary.merging {
        Merging::Pairs { merges, pattern } => {
            set("model", Value::Text("gpt2".to_owned()));
            set("pre", Value::Text(pattern.to_owned()));
            set("merges", Value::Texts(merges));
        }
        Merging::Pieces { scores, add_space } => {
            set("model", Value::Text("llama".to_owned()));
            set("pre", Value::Text("default".to_owned()));
            set("scores", Value::F32s(scores));
            set("add_space_prefix", Value::Bool(add_space));
        }
    }
    set("tokens", Value::Texts(texts));
    set("token_type", Value::I32s(kinds));
    for (name, id) in vocabulary.special {
        set(&format!("{name}_token_id"), Value::U32(id));
    }
    if let Some(id) = vocabulary.end_of_turn {
        set("eot_token_id", Value::U32(id));
    }
    let (bos, eos) = vocabulary.adds;
    set("add_bos_token", Value::Bool(bos));
    set("add_eos_token", Value::Bool(eos));
    if let Some(template) = vocabulary.chat_template {
        found.push(text("tokenizer.chat_template", &template));
    }
    found
}
