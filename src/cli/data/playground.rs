//! `votive data playground`: prompts of the worlds whose answers can be checked exactly, and answers that are right or flawed.

use crate::cli::{Context, Failure, Outcome};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use votive_playground::{Split, image, text};

/// Print prompts of the playground, whose answers can be checked exactly, or pairs of answers: one a line
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  votive data playground captions --split test -n 340 > captions.txt\n  \
                        votive data playground instructions --seed 7 -n 3000 > instructions.txt\n  \
                        votive data playground pairs -n 20000 > pairs.jsonl")]
pub(super) struct Args {
    /// Of images, or of texts.
    #[arg(value_enum)]
    kind: Kind,
    /// Prompts that the shipped models have seen, or those kept aside for choosing settings or for reporting.
    #[arg(long, value_enum, default_value_t = Part::Train)]
    split: Part,
    /// How many.
    #[arg(short, long, value_name = "N", default_value = "200")]
    n: NonZeroUsize,
    /// Seed of their choice and order.
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// What images are to show.
    Captions,
    /// What texts are to do.
    Instructions,
    /// Instructions with a right and a flawed answer: preference pairs, as JSON lines.
    Pairs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    Train,
    Select,
    Test,
}

pub(super) fn run(args: &Args, ctx: &Context) -> Outcome {
    let split = match args.split {
        Part::Train => Split::Train,
        Part::Select => Split::Select,
        Part::Test => Split::Test,
    };
    let n = args.n.get();
    let prompts: Vec<String> = match args.kind {
        Kind::Captions => image::prompts(split, args.seed, n),
        Kind::Instructions => text::prompts(split, args.seed, n).iter().map(text::Task::prompt).collect(),
        Kind::Pairs if split == Split::Train => {
            return (0..n as u64).try_for_each(|i| ctx.output.json(&pair(args.seed, i)));
        }
        Kind::Pairs => return Err(Failure::usage("pairs are of the training split only")),
    };
    if prompts.len() < n {
        let found = prompts.len();
        return Err(Failure::usage(format!("-n {n}: this split has {found} different prompts")));
    }
    if ctx.output.wants_json() {
        return ctx.output.json(&json!(prompts));
    }
    prompts.iter().try_for_each(|prompt| ctx.output.line(prompt))
}

/// An instruction with a right and a flawed answer, as a row of conversations.
fn pair(seed: u64, index: u64) -> Value {
    let (prompt, right, flawed) = text::preference_pair(seed, index);
    let turn = |role: &str, text: &str| json!([{ "role": role, "content": text }]);
    json!({ "prompt": turn("user", &prompt), "chosen": turn("assistant", &right), "rejected": turn("assistant", &flawed) })
}
