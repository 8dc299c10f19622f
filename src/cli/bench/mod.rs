//! `votive bench`: the time of fixed pieces of work, chosen so that other programs can do exactly the same.

mod image;
mod label_sources;
mod laps;
mod methods;
mod study;
mod text;
mod update;

pub(super) use laps::peak_rss_mib;

use crate::cli::{Context, Failure, Outcome};
use clap::ValueEnum;
use laps::Laps;
use serde_json::{Map, Value, json};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Time a fixed piece of work.
///
/// The last line of the result is JSON: wall and CPU seconds of every step, the first included, peak memory, and the
/// age of the process when the first step was done.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, clap::Subcommand)]
enum Work {
    /// A DPO step of a language model: reference, policy, backward, clipping, AdamW.
    TextStep(TextStepArgs),
    /// A Diffusion-DPO step of a U-Net on random latents and prompt embeddings.
    DiffusionStep(DiffusionStepArgs),
    /// Greedy completions of a batch of prompts, all of the same length.
    Generate(GenerateArgs),
    /// Every recipe for images beside the base model: the playground's exact checker, several seeds.
    DiffusionMethods(methods::MethodsArgs),
    /// The same pictures labelled by the truth, by a critic, by a critic that is often wrong, and by CLIPScore: what each label is worth.
    LabelSources(label_sources::LabelSourcesArgs),
    /// One image from a prompt: text encoder, DDIM with 50 steps and guidance, VAE.
    Sample(SampleArgs),
}

#[derive(Debug, clap::Args)]
struct StepArgs {
    /// The model's folder, in the hub's layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Whether all weights are trained or a LoRA adapter of rank 16.
    #[arg(long, value_enum, default_value_t = Mode::Full)]
    mode: Mode,
    /// Pairs of a step.
    #[arg(long, value_name = "N", default_value = "4")]
    batch: NonZeroUsize,
    /// Steps, of which the first warms up.
    #[arg(long, value_name = "N", default_value = "5")]
    steps: NonZeroUsize,
}

#[derive(Debug, clap::Args)]
struct TextStepArgs {
    #[command(flatten)]
    step: StepArgs,
    /// Preference pairs, taken in the order of the file [default: random tokens].
    #[arg(long, value_name = "FILE.jsonl")]
    data: Option<PathBuf>,
    /// Tokens of each random prompt.
    #[arg(long, value_name = "N", default_value = "128", conflicts_with = "data")]
    prompt_tokens: NonZeroUsize,
    /// Tokens of each random completion.
    #[arg(long, value_name = "N", default_value = "192", conflicts_with = "data")]
    completion_tokens: NonZeroUsize,
}

#[derive(Debug, clap::Args)]
struct DiffusionStepArgs {
    #[command(flatten)]
    step: StepArgs,
    /// Side of the latents.
    #[arg(long, value_name = "N", default_value = "32")]
    latent: NonZeroUsize,
    /// Pairs that go through the network at a time, as `train.micro_batch_size` has it for images.
    #[arg(long, value_name = "N", default_value = "1")]
    micro_batch: NonZeroUsize,
}

#[derive(Debug, clap::Args)]
struct GenerateArgs {
    /// The model's folder, in the hub's layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prompts: the first ones of this file's column `prompt` are completed [default: random tokens].
    #[arg(long, value_name = "FILE.jsonl")]
    data: Option<PathBuf>,
    /// Prompts that are completed at once.
    #[arg(long, value_name = "N", default_value = "8")]
    batch: NonZeroUsize,
    /// Tokens of each completion; no end-of-text token ends it earlier.
    #[arg(long, value_name = "N", default_value = "128")]
    new_tokens: NonZeroUsize,
    /// Repetitions, of which the first warms up.
    #[arg(long, value_name = "N", default_value = "5")]
    steps: NonZeroUsize,
}

#[derive(Debug, clap::Args)]
struct SampleArgs {
    /// The model's folder, in diffusers' layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Images at once.
    #[arg(long, value_name = "N", default_value = "1")]
    batch: NonZeroUsize,
    /// Side of the latents.
    #[arg(long, value_name = "N", default_value = "32")]
    latent: NonZeroUsize,
    /// Repetitions, of which the first warms up.
    #[arg(long, value_name = "N", default_value = "3")]
    steps: NonZeroUsize,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// All weights, against a frozen copy.
    Full,
    /// An adapter, against the model without it.
    Lora,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Lora => "lora",
        }
    }
}

/// The times of a piece of work, and what else describes it.
struct Measured {
    bench: &'static str,
    laps: Laps,
    details: Value,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let measured = match &args.work {
        Work::TextStep(args) => text::step(args, ctx)?,
        Work::DiffusionStep(args) => image::step(args, ctx)?,
        Work::Generate(args) => text::generate(args, ctx)?,
        Work::Sample(args) => image::sample(args, ctx)?,
        Work::DiffusionMethods(args) => return methods::run(args, ctx),
        Work::LabelSources(args) => return label_sources::run(args, ctx),
    };
    let result = measured.to_json(ctx)?;
    if !ctx.output.wants_json() {
        for (step, (wall, cpu)) in measured.laps.times().enumerate() {
            ctx.output.line(format!("step {step}: {wall:.3} s wall, {cpu:.3} s CPU"))?;
        }
    }
    ctx.output.json(&result)
}

impl Measured {
    fn to_json(&self, ctx: &Context) -> Outcome<Value> {
        let first = self.laps.first_done().ok_or_else(|| Failure::usage("--steps: nothing was measured"))?;
        let (wall, cpu): (Vec<f64>, Vec<f64>) = self.laps.times().unzip();
        let own = json!({
            "bench": self.bench,
            "wall_s": wall,
            "cpu_s": cpu,
            "peak_rss_mib": laps::peak_rss_mib(),
            "first_step_done_s": first,
            "device": ctx.device_name(),
            "threads": ctx.threads,
            "version": env!("CARGO_PKG_VERSION"),
        });
        let mut result = Map::new();
        for part in [own, self.details.clone()] {
            result.extend(part.as_object().cloned().unwrap_or_default());
        }
        Ok(result.into())
    }
}
