//! `votive export`: a finished run or a model, in the form that another program loads.

mod gguf;
mod image;
mod source;

use crate::cli::merge::{Dtype, check_out, write_card, write_merged};
use crate::cli::{Context, Failure, Outcome};
use clap::ValueEnum;
use gguf::Precision;
use serde_json::json;
use source::Source;
pub(crate) use source::is_image_adapter;
use std::path::{Path, PathBuf};
use votive_model::{Lora, Params, hub_folder, load_causal_lm};
use votive_train::Modality;
use votive_train::model_card::{self, Library};

/// Write a model for other programs.
///
/// The source is the folder of a run, of a model or of an adapter, or an image adapter's file. Text models are written for
/// PEFT, transformers and llama.cpp, adapters of image models for diffusers, for programs that read kohya's files, and for
/// PEFT.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  votive export runs/mine --to peft --out adapter        # adapter_config.json, adapter_model.safetensors
  votive export runs/mine --to hub --out model           # a whole model, the adapter merged
  votive export runs/mine --to gguf --out model.gguf --dtype q8_0
  votive export runs/image --to kohya --out mine.safetensors
  votive export mine.safetensors --model sd15 --to diffusers --out adapter

A GGUF file holds Llama, Mistral, Qwen2 and Qwen3 models with byte-level or SentencePiece tokenizers. What llama.cpp would \
compute otherwise (a sliding window, a splitting pattern that it does not know) is refused.")]
pub(crate) struct Args {
    /// Folder of a run, a model or an adapter, or an adapter's file.
    source: PathBuf,
    /// What to write.
    #[arg(long, visible_alias = "format", value_enum)]
    to: Target,
    /// The folder, or for GGUF the file; an image adapter's may be either. Must not be there yet.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// The model below an adapter [default: the one that the adapter names].
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// How weights are stored: f32, f16, bf16; for GGUF also q8_0 [default: the model's own; f32 for peft].
    #[arg(long, value_enum)]
    dtype: Option<Precision>,
}

/// A form that other programs load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// An adapter's folder, as PEFT loads it.
    Peft,
    /// A model's folder in the hub's layout, as transformers loads it.
    Hub,
    /// A GGUF file, as llama.cpp loads it.
    Gguf,
    /// An image adapter as diffusers loads it.
    Diffusers,
    /// An image adapter as kohya's scripts write it.
    Kohya,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let source = Source::find(&args.source, args.model.as_deref())?;
    let details = match (Modality::of(&source.base)?, args.to) {
        (Modality::Image, _) => image::write(&source, args, ctx)?,
        (Modality::Text, Target::Peft) => args.peft(&source, ctx)?,
        (Modality::Text, Target::Hub) => args.hub(&source, ctx)?,
        (Modality::Text, Target::Gguf) => gguf::write(&source, args, ctx)?,
        (Modality::Text, Target::Diffusers | Target::Kohya) => {
            let other = Failure::usage(format!("{}: is of a language model", args.source.display()));
            return Err(other.hint("an adapter of one is written with --to peft"));
        }
    };
    if ctx.output.wants_json() {
        let to = args.to.to_possible_value().map(|value| value.get_name().to_owned());
        return ctx.output.json(&json!({"out": args.out, "to": to, "details": details}));
    }
    ctx.output.line(args.out.display())
}

impl Args {
    fn peft(&self, source: &Source, ctx: &Context) -> Outcome<serde_json::Value> {
        check_out(&self.out)?;
        let Some(adapter) = &source.adapter else {
            let whole = Failure::usage(format!("{}: holds a whole model, no adapter", self.source.display()));
            return Err(whole.hint("use --to hub"));
        };
        if !matches!(self.dtype, None | Some(Precision::F32)) {
            return Err(Failure::usage("--dtype: an adapter is written in f32"));
        }
        let lora = Lora::load(adapter, &ctx.device()?)?;
        // An adapter that does not fit its model would be found out only by whoever loads it.
        let (_, params) = load_causal_lm(&source.base, &ctx.device()?)?;
        params.with_lora(lora.clone())?;
        hub_folder::write_folder(&self.out, |folder| -> Outcome {
            lora.save(folder, &source.base.to_string_lossy())?;
            hub_folder::copy_tokenizer(&source.base, folder)?;
            let made = "An adapter in PEFT's format.";
            Ok(model_card::derive(folder, adapter, &source.base, Library::Peft, made)?)
        })?;
        Ok(json!({"modules": lora.paths().count(), "rank": lora.config().rank}))
    }

    fn hub(&self, source: &Source, ctx: &Context) -> Outcome<serde_json::Value> {
        check_out(&self.out)?;
        let float = match self.dtype {
            None => hub_folder::stored_dtype(&source.base)?,
            Some(precision) => precision
                .in_a_folder()
                .map(Dtype::to_candle)
                .ok_or_else(|| Failure::usage("--dtype q8_0: only a GGUF file holds it"))?,
        };
        let params = source.params(ctx)?;
        hub_folder::write_folder(&self.out, |folder| -> Outcome {
            write_merged(&source.base, &params, folder, float, hub_folder::SHARD_BYTES)?;
            match &source.adapter {
                Some(adapter) => write_card(folder, adapter, &source.base),
                None => card_of_whole(folder, &source.base, Library::Transformers),
            }
        })?;
        Ok(json!({"dtype": hub_folder::torch_dtype(float)?}))
    }
}

fn card_of_whole(folder: &Path, model: &Path, library: Library) -> Outcome {
    Ok(model_card::derive(folder, model, model, library, "The weights of this model as they were.")?)
}

impl Source {
    /// The model's parameters, with the adapter if there is one.
    fn params(&self, ctx: &Context) -> Outcome<Params> {
        let device = ctx.device()?;
        let (_, params) = load_causal_lm(&self.base, &device)?;
        Ok(match &self.adapter {
            Some(adapter) => params.with_lora(Lora::load(adapter, &device)?)?,
            None => params,
        })
    }
}
