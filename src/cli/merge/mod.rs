//! `votive merge`: an adapter added into its model's weights, as a folder of its own.

mod verify;

use crate::cli::prompts;
use crate::cli::text_model::TextModel;
use crate::cli::{Code, Context, Failure, Outcome};
use candle_core::{DType, Tensor};
use clap::ValueEnum;
use serde_json::json;
use std::path::{Path, PathBuf};
use verify::{Comparison, Networks, built_in_rows, compare};
use votive_data::TextTokenizer;
use votive_model::{CausalLmConfig, Lora, Params, hub_folder, load_causal_lm};
use votive_train::Modality;
use votive_train::model_card::{self, Library};

/// Add an adapter into a model's weights.
///
/// The result is a model folder in the hub's layout: the base's own configuration, tokenizer and licence, and weights
/// W + (α/r)·B·A, which any program loads without knowing of adapters.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  votive merge --model Qwen2.5-0.5B-Instruct --adapter runs/mine/final --out merged --dtype bf16 --verify

--verify reads the folder back and computes the logits of the same rows with it and with model and adapter. They may differ
by what rounding to the stored type does to the merged weights in memory, and by 1.6e-5 of the largest logit for f32
arithmetic; beyond that the merge ends with exit code 5, and nothing is left behind.")]
pub(crate) struct Args {
    /// The folder of the model that the adapter was trained on.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The adapter's folder, in PEFT's format.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
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
    /// Spread weights over files of at most this size.
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

/// Refuses what holds no language model.
pub(crate) fn check_text(model: &Path) -> Outcome {
    match Modality::of(model)? {
        Modality::Text => Ok(()),
        Modality::Image => Err(Failure::data(format!(
            "{}: adapters of Stable Diffusion are not merged; `votive sample --adapter` and diffusers load them as they are",
            model.display()
        ))),
    }
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    check_out(&args.out)?;
    check_text(&args.model)?;
    let device = ctx.device()?;
    let (config, base) = load_causal_lm(&args.model, &device)?;
    let adapted = base.with_lora(Lora::load(&args.adapter, &device)?)?;
    let float = match args.dtype {
        Some(dtype) => dtype.to_candle(),
        None => hub_folder::stored_dtype(&args.model)?,
    };
    let mut comparison = None;
    hub_folder::write_folder(&args.out, |folder| -> Outcome {
        write_merged(&args.model, &adapted, folder, float, args.shard_mib << 20)?;
        write_card(folder, &args.adapter, &args.model)?;
        if args.verify {
            comparison = Some(args.verified(&config, &adapted, folder, float)?);
        }
        Ok(())
    })?;
    report(args, float, comparison.as_ref(), ctx)
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
    Ok(hub_folder::write_weights(folder, &adapted.merged()?, float, shard_bytes)?)
}

/// Says on the card that an adapter is now part of the weights.
pub(crate) fn write_card(folder: &Path, adapter: &Path, base: &Path) -> Outcome {
    let made = "This is the base model with the adapter that is described below added into its weights.";
    Ok(model_card::derive(folder, adapter, base, Library::Transformers, made)?)
}

impl Args {
    fn verified(
        &self,
        config: &CausalLmConfig,
        adapted: &Params,
        folder: &Path,
        float: DType,
    ) -> Outcome<Comparison> {
        let build = |params: &Params| params.build(|scope| config.build(scope));
        let TextModel { network: stored, tokenizer } = TextModel::load(folder, None, adapted.device())?;
        let positions = config.max_positions();
        let rows = match &self.prompts {
            Some(file) => rows_of(file, &tokenizer, positions)?,
            None => built_in_rows(tokenizer.vocab_size(), positions),
        };
        let merged = adapted.merged()?;
        let rounded = build(&rounded(&merged, float)?)?;
        let networks = Networks { adapted: build(adapted)?, merged: build(&merged)?, rounded, stored };
        let comparison = compare(&networks, &rows)?;
        match comparison.is_within_bound() {
            true => Ok(comparison),
            false => {
                Err(Failure::new(Code::Numbers, format!("the merged model is another one: {comparison}"))
                    .hint("this is a defect of votive or of the disk; please report it"))
            }
        }
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
