//! `votive merge`: an adapter added into its model's weights, or models and adapters added with weights, as a folder of its
//! own.

mod expression;
mod model;
mod reward_model;
mod sum;
mod terms;
mod verify;

use crate::cli::prompts;
use crate::cli::score::is_reward_model;
use crate::cli::text_model::TextModel;
use crate::cli::{Code, Context, Failure, Outcome};
use candle_core::{DType, Tensor};
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;
use std::path::{Path, PathBuf};
use terms::{Named, Terms};
use verify::{Comparison, Networks, built_in_rows, compare};
use votive_data::TextTokenizer;
use votive_model::{CausalLmConfig, Lora, LoraFormat, Params, hub_folder, load_causal_lm};
use votive_train::Modality;
use votive_train::model_card::{self, Library};

/// Add an adapter into a model's weights, or add up models and adapters with weights.
///
/// The result is a model folder in the hub's layout: the base's own configuration, tokenizer and licence, and weights
/// W + (α/r)·B·A, which any program loads without knowing of adapters.
///
/// --sum is a formula over named folders of text or image models of one architecture, and of adapters, whose names stand
/// for their change alone. The weights of the models add up to 1. A sum of adapters alone is an adapter, whose rank is the
/// sum of the ranks; give the model below them with --model.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  votive merge --model Qwen2.5-0.5B-Instruct --adapter runs/mine/final --out merged --dtype bf16 --verify
  votive merge base=lm helpful=runs/a/final harmless=runs/b/final --sum 'base + 0.7*(helpful - base) + 0.3*(harmless - base)' \
--out both
  votive merge new=runs/2/final old=runs/1/final --sum 'new + 0.3*(new - old)' --out ahead
  votive merge base=sd15 dpo=dpo-sd15 npo=npo.safetensors --sum '0.2*base + 0.8*dpo + npo' --out negative
  votive merge a=runs/a/final b=b.safetensors --sum '0.5*a + 0.5*b' --model sd15 --format kohya --out mixed

--verify reads the folder back and computes the logits (of a reward model the rewards) of the same rows with it and with model and adapter. They may differ
by what rounding to the stored type does to the merged weights in memory, and by 1.6e-5 of the largest logit for f32
arithmetic; beyond that the merge ends with exit code 5, and nothing is left behind. After --sum, weights are compared.")]
pub(crate) struct Args {
    /// The models and adapters of a sum.
    #[arg(value_name = "NAME=PATH", requires = "sum")]
    named: Vec<Named>,
    /// What to add up: names times numbers, with + - * / and parentheses.
    #[arg(long, value_name = "FORMULA", requires = "named", conflicts_with_all = ["adapter", "prompts"], allow_hyphen_values = true)]
    sum: Option<String>,
    /// The folder of the model that the adapter was trained on.
    #[arg(long, value_name = "DIR", required_unless_present = "sum")]
    model: Option<PathBuf>,
    /// The adapter: PEFT's folder; for an image model also a file or folder of diffusers' or kohya's.
    #[arg(long, value_name = "PATH", required_unless_present = "sum")]
    adapter: Option<PathBuf>,
    /// What a sum of image adapters is written as [default: diffusers].
    #[arg(long, value_name = "FORMAT", requires = "sum", value_parser = format())]
    format: Option<LoraFormat>,
    /// Where the merged model goes; must not be there yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The type that weights are stored in [default: the model's own].
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Compare the logits of model and adapter with those of the merged folder, read back from disk.
    #[arg(long)]
    verify: bool,
    /// Texts to compare on: one a line, or the column `prompt` of a .jsonl file [default: made-up tokens].
    #[arg(long, value_name = "FILE", requires = "verify")]
    prompts: Option<PathBuf>,
    /// Spread a language model's weights over files of at most this size.
    #[arg(long, value_name = "MIB", default_value_t = hub_folder::SHARD_BYTES >> 20)]
    shard_mib: u64,
}

/// A type that weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    /// candle's name of it.
    pub(crate) fn to_candle(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// Refuses to write where something is already.
pub(crate) fn check_out(out: &Path) -> Outcome {
    let is_free = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !out.exists(),
    };
    match is_free {
        true => Ok(()),
        false => Err(Failure::usage(format!("--out {}: is there already", out.display()))),
    }
}

/// Parses an adapter's format; clap suggests the nearest for one that does not exist.
fn format() -> impl TypedValueParser<Value = LoraFormat> {
    let named = |name: String| LoraFormat::ALL.into_iter().find(|format| format.name() == name);
    PossibleValuesParser::new(LoraFormat::ALL.map(LoraFormat::name))
        .try_map(move |name| named(name).ok_or("not a format"))
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    match (&args.sum, &args.model, &args.adapter) {
        (Some(formula), ..) => sum::write(&Terms::read(formula, &args.named)?, args, ctx),
        (None, Some(model), Some(adapter)) => args.merge(model, adapter, ctx),
        // clap asks for both where there is no sum.
        _ => Err(Failure::usage("--model and --adapter, or --sum: nothing to merge")),
    }
}

/// Writes a model folder of adapted parameters.
pub(crate) fn write_merged(
    base: &Path,
    adapted: &Params,
    folder: &Path,
    float: DType,
    shard_bytes: u64,
) -> Outcome {
    hub_folder::copy_companions(base, folder, float)?;
    let config = CausalLmConfig::read_folder(base)?;
    Ok(hub_folder::write_weights(folder, (&config, &adapted.merged()?), float, shard_bytes)?)
}

const ADAPTER_ADDED: &str =
    "This is the base model with the adapter that is described below added into its weights.";

/// Says on the card that an adapter is now part of the weights.
pub(crate) fn write_card(folder: &Path, adapter: &Path, base: &Path) -> Outcome {
    Ok(model_card::derive(folder, adapter, base, Library::Transformers, ADAPTER_ADDED)?)
}

impl Args {
    /// An adapter added into its model; an image model is the sum of both.
    fn merge(&self, model: &Path, adapter: &Path, ctx: &Context) -> Outcome {
        check_out(&self.out)?;
        if Modality::of(model)? == Modality::Image {
            if self.prompts.is_some() {
                return Err(Failure::usage(
                    "--prompts: the weights of an image model are compared, not its words",
                ));
            }
            return sum::write(&Terms::merged(model, adapter), self, ctx)
                .map_err(|failure| failure.at(format!("{} (Stable Diffusion)", model.display())));
        }
        if is_reward_model(model, Some(adapter), ctx)? {
            return self.merge_reward_model(model, adapter, ctx);
        }
        let device = ctx.device()?;
        let (config, base) = load_causal_lm(model, &device)?;
        let adapted = base.with_lora(Lora::load(adapter, &device)?)?;
        let float = self.float(model)?;
        let mut comparison = None;
        hub_folder::write_folder(&self.out, |folder| -> Outcome {
            write_merged(model, &adapted, folder, float, self.shard_mib << 20)?;
            write_card(folder, adapter, model)?;
            if self.verify {
                comparison = Some(self.verified(&config, &adapted, folder, float)?);
            }
            Ok(())
        })?;
        report(self, float, comparison.as_ref(), ctx)
    }

    /// The type that weights are stored in.
    fn float(&self, model: &Path) -> Outcome<DType> {
        Ok(match self.dtype {
            Some(dtype) => dtype.to_candle(),
            None => hub_folder::stored_dtype(model)?,
        })
    }

    /// What a card says of how its model was made.
    fn made(&self) -> String {
        let Some(formula) = &self.sum else {
            return ADAPTER_ADDED.to_owned();
        };
        let named: Vec<String> = self.named.iter().map(Named::to_string).collect();
        format!("This is the sum `{formula}`, where {}.", named.join(", "))
    }

    fn verified(
        &self,
        config: &CausalLmConfig,
        adapted: &Params,
        folder: &Path,
        float: DType,
    ) -> Outcome<Comparison> {
        let build = |params: &Params| params.build(|scope| config.build(scope));
        let TextModel { network: stored, tokenizer } = TextModel::load(folder, None, adapted.device())?;
        let rows = self.rows(&tokenizer, config.max_positions())?;
        let merged = adapted.merged()?;
        let rounded = build(&rounded(&merged, float)?)?;
        let networks = Networks { adapted: build(adapted)?, merged: build(&merged)?, rounded, stored };
        within_bound(compare(&networks, &rows)?)
    }

    /// The rows that networks are compared on.
    fn rows(&self, tokenizer: &TextTokenizer, positions: usize) -> Outcome<Vec<Vec<u32>>> {
        match &self.prompts {
            Some(file) => rows_of(file, tokenizer, positions),
            None => Ok(built_in_rows(tokenizer.vocab_size(), positions)),
        }
    }
}

/// Refuses a merged model that says other numbers.
fn within_bound(comparison: Comparison) -> Outcome<Comparison> {
    match comparison.is_within_bound() {
        true => Ok(comparison),
        false => Err(Failure::new(Code::Numbers, format!("the merged model is another one: {comparison}"))
            .hint("this is a defect of votive or of the disk; please report it")),
    }
}

/// The values that parameters have after they were stored in a type.
fn rounded(params: &Params, float: DType) -> Outcome<Params> {
    let round = |(name, tensor): (&str, &Tensor)| {
        Ok((name.to_owned(), tensor.to_dtype(float)?.to_dtype(tensor.dtype())?))
    };
    let tensors = params.iter().map(round).collect::<candle_core::Result<_>>()?;
    Ok(Params::new("rounded weights", tensors, params.device()))
}

fn rows_of(file: &Path, tokenizer: &TextTokenizer, positions: usize) -> Outcome<Vec<Vec<u32>>> {
    let encode = |(index, prompt): (usize, String)| {
        let ids = tokenizer.encode(&prompt, true)?;
        match ids.len() {
            n if (1..=positions).contains(&n) => Ok(ids),
            n => Err(Failure::data(format!(
                "{}: prompt {} has {n} tokens, expected 1 to {positions}",
                file.display(),
                index + 1
            ))),
        }
    };
    prompts::read_file(file)?.into_iter().enumerate().map(encode).collect()
}

fn report(args: &Args, float: DType, comparison: Option<&Comparison>, ctx: &Context) -> Outcome {
    let dtype = hub_folder::torch_dtype(float)?;
    if ctx.output.wants_json() {
        let verify = comparison.map(Comparison::to_json);
        return ctx.output.json(&json!({"out": args.out, "dtype": dtype, "verify": verify}));
    }
    ctx.output.line(format!("{} ({dtype})", args.out.display()))?;
    comparison.map_or(Ok(()), |comparison| ctx.output.line(comparison))
}
