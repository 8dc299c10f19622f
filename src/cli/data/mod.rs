//! `votive data`: preference data seen row by row, in numbers, and in another layout.

mod convert;
mod image_convert;
mod image_show;
mod image_stats;
mod playground;
mod segments;
mod show;
mod source;
mod stats;

use crate::cli::{Context, Outcome};

/// Look into preference data, or write it in another layout
///
/// DATA is a file (.jsonl, .json, .parquet), several shards, a folder of shards, or LLaMA-Factory's dataset_info.json
/// with --name. The layout is recognized by the columns: those of TRL, UltraFeedback, HH-RLHF, Orca, HelpSteer3, Nectar,
/// NeMo, Argilla and LLaMA-Factory, and lists of completions with scores or ranks; of images those of Pick-a-Pic and HPD v2,
/// lists of images with scores or ranks, tables of chosen and rejected images, and folders with the folders chosen and
/// rejected (docs/formats.md).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  votive data show pairs.jsonl --model Qwen2.5-0.5B-Instruct --rows 2\n  \
                        votive data stats ultrafeedback/ --split train_prefs --model Qwen2.5-0.5B-Instruct --max-length 1024\n  \
                        votive data convert nectar/ --pairs all --to trl-conversational --out pairs.jsonl\n  \
                        votive data show pickapic/ --split test --rows 4 --out sheet.png\n  \
                        votive data convert pickapic/ --split test --to image-pairs --out pairs.jsonl\n  \
                        votive data playground captions --split test > captions.txt"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Show(show::Args),
    Stats(stats::Args),
    Convert(convert::Args),
    Playground(playground::Args),
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    match &args.action {
        Action::Show(args) => show::run(args, ctx),
        Action::Stats(args) => stats::run(args, ctx),
        Action::Convert(args) => convert::run(args, ctx),
        Action::Playground(args) => playground::run(args, ctx),
    }
}
