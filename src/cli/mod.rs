//! The command line: one file per command, each from arguments to a plan to a library call to an exit code.
//!
//! Results go to stdout and everything else to stderr. This is the only part of the workspace that prints, reads the
//! clock for its own sake, or looks at the machine it runs on.

mod bench;
mod best_of;
mod chat;
mod data;
mod decoding;
mod demo;
mod device;
mod doctor;
mod embedded;
mod eval;
mod export;
mod failure;
mod gallery;
mod generate;
mod geneval;
mod image_edit;
mod image_model;
mod inspect;
mod judges;
mod label;
mod labels;
mod made_with;
mod memory;
mod merge;
mod methods;
mod model_hash;
mod output;
mod plan;
mod png;
mod pretrain;
mod progress;
mod prompts;
mod recipes;
mod revise;
mod reward;
mod run_samples;
mod sample;
mod score;
mod serve;
mod signal;
mod speaker;
mod text_model;
mod train;
mod weighted;
mod world;
mod world_pairs;

use clap::{Parser, Subcommand};
use std::num::NonZeroUsize;
use std::process::ExitCode;

pub(crate) use device::DeviceName;
pub(crate) use failure::{Code, Failure, Outcome};
pub(crate) use output::Output;
pub(crate) use progress::Progress;

/// A backward pass recurses once per node of its graph; the main thread's 8 MiB end at some 30,000 nodes.
const STACK_BYTES: usize = 256 << 20;

/// Aligns language models and Stable Diffusion to preferences.
#[derive(Debug, Parser)]
#[command(name = "votive", version = device::VERSION, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 2 command line or recipe, 3 data or model files, 4 resources, \
                        5 numbers, 6 interrupted and saved.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// Where tensors live and are computed.
    #[arg(long, global = true, value_enum, default_value_t = DeviceName::Cpu)]
    device: DeviceName,
    /// Threads of the CPU's share of the work [default: all cores].
    #[arg(long, global = true, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Write results as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Write only results, warnings and errors.
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Train(train::Args),
    Resume(train::ResumeArgs),
    Plan(plan::Args),
    Inspect(inspect::Args),
    Generate(generate::Args),
    Chat(chat::Args),
    Merge(merge::Args),
    Export(export::Args),
    Sample(sample::Args),
    Score(score::Args),
    Label(label::Args),
    Revise(revise::Args),
    Data(data::Args),
    Eval(eval::Args),
    Gallery(gallery::Args),
    Serve(serve::Args),
    Methods(methods::Args),
    Recipes(recipes::Args),
    Bench(bench::Args),
    Pretrain(pretrain::Args),
    Doctor(doctor::Args),
}

impl Command {
    fn run(&self, ctx: &Context) -> Outcome {
        match self {
            Self::Methods(args) => methods::run(args, ctx),
            Self::Recipes(args) => recipes::run(args, ctx),
            Self::Doctor(args) => doctor::run(args, ctx),
            Self::Bench(args) => bench::run(args, ctx),
            Self::Gallery(args) => gallery::run(args, ctx),
            Self::Serve(args) => serve::run(args, ctx),
            Self::Generate(args) => generate::run(args, ctx),
            Self::Chat(args) => chat::run(args, ctx),
            Self::Merge(args) => merge::run(args, ctx),
            Self::Export(args) => export::run(args, ctx),
            Self::Sample(args) => sample::run(args, ctx),
            Self::Score(args) => score::run(args, ctx),
            Self::Label(args) => label::run(args, ctx),
            Self::Revise(args) => revise::run(args, ctx),
            Self::Data(args) => data::run(args, ctx),
            Self::Pretrain(args) => pretrain::run(args, ctx),
            Self::Demo(args) => demo::run(args, ctx),
            Self::Train(args) => train::run(args, ctx),
            Self::Eval(args) => eval::run(args, ctx),
            Self::Resume(args) => train::resume(args, ctx),
            Self::Inspect(args) => inspect::run(args, ctx),
            Self::Plan(args) => plan::run(args, ctx),
        }
    }
}

/// What every command is given besides its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where results and remarks go.
    pub(crate) output: Output,
    /// Threads of the CPU's share of the work.
    pub(crate) threads: usize,
    device: DeviceName,
}

impl Context {
    fn new(global: &Global) -> Outcome<Self> {
        if let Some(threads) = global.threads {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads.get())
                .build_global()
                .map_err(|error| Failure::resources(format!("cannot start {threads} threads: {error}")))?;
        }
        let threads = global.threads.map_or_else(rayon::current_num_threads, NonZeroUsize::get);
        Ok(Self { output: Output::new(global.json, global.quiet), threads, device: global.device })
    }

    /// The device of `--device`, opened.
    ///
    /// # Errors
    /// If the program was built without it, or the machine has none.
    pub(crate) fn device(&self) -> Outcome<candle_core::Device> {
        self.device.open()
    }

    /// The name that `--device` gives.
    pub(crate) fn device_name(&self) -> &'static str {
        self.device.name()
    }
}

/// Keeps panics quiet that a reader of damaged files catches and tells as errors.
fn silence_caught_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !votive_data::catches_panics() {
            report(panic);
        }
    }));
}

/// Parses the command line, runs the command on a thread with a large stack, and reports a failure.
pub(crate) fn main() -> ExitCode {
    #[cfg(unix)]
    signal::ignore_file_size_limit();
    silence_caught_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody may be listening any more, and nothing could be done about it.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Code::Usage as u8 } else { 0 });
        }
    };
    let command = move || Context::new(&cli.global).and_then(|ctx| cli.command.run(&ctx));
    let outcome =
        match std::thread::Builder::new().name("votive".to_owned()).stack_size(STACK_BYTES).spawn(command) {
            // The panic itself was reported by the thread.
            Ok(thread) => thread.join().unwrap_or_else(|_| Err(Failure::defect())),
            Err(error) => {
                Err(Failure::resources(format!("cannot start a thread with a stack of 256 MiB: {error}")))
            }
        };
    outcome.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}
