//! `votive eval judge`: how far a judge can be trusted.
//!
//! ```text
//! pairs of the playground (pictures | texts) ─ judge, bare and with its protocol ─▶ records ─▶ measures ─▶ lines | JSON | page
//!                                            ─ the same with injections ─▶ verdicts that turned
//! a store's judgments ───────────────────────────────────────────────────▶ records
//! ```

mod asking;
mod injections;
mod lines;
mod measures;
mod page;
mod pictures;
mod record;
mod stored;
mod texts;

use crate::cli::judges::{JudgeArgs, Subject};
use crate::cli::{Context, Failure, Outcome};
use asking::Asking;
use measures::measure;
use record::{Heard, Pair};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use votive_playground::Split;

/// How far a judge can be trusted: on held-out pairs of the playground, or by what it has said in a store
///
/// Pairs of the playground have a known winner. Each is asked in both orders, with the protocol around the judge and without, and
/// every different question is asked once. A part of them is asked again with text and marks that speak for the worse candidate,
/// and of some prompts every two of four candidates are compared. With --store nobody is asked: what a judge has said there is
/// compared with what another one, a person too, has said of the same pairs.
///
/// Accuracy, order flips, ECE and kappa are shares of 1; the details are points of 100 with 95 % intervals.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  votive eval judge --judge checker --seed 3 --json\n  \
                  votive eval judge --judge clip-vit-large-patch14 --pairs 200 --html audit\n  \
                  votive eval judge --judge http://127.0.0.1:8000/v1#qwen --subject texts\n  \
                  votive eval judge --store labels.sqlite --by qwen --against person:ann --own models/tiny-sd")]
pub(super) struct Args {
    #[command(flatten)]
    judge: JudgeArgs,
    /// What is judged; a judge that sees no images can be asked about texts.
    #[arg(long, value_enum, default_value_t = Subject::Images)]
    subject: Subject,
    /// Pairs.
    #[arg(long, value_name = "N", default_value = "400")]
    pairs: NonZeroUsize,
    /// Prompts of which every two of four candidates are compared, for transitivity [default: an eighth of --pairs].
    #[arg(long, value_name = "N")]
    contests: Option<usize>,
    /// How many of the pairs are asked again with each injection of text and marks [default: a quarter of --pairs].
    #[arg(long, value_name = "N")]
    injected: Option<usize>,
    /// Seed of the pairs, their order, the judge's draws, and resamples.
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
    /// Prompts for choosing settings instead of those for reporting.
    #[arg(long)]
    select: bool,
    /// A file of `votive label` whose judgments are measured; nobody is asked.
    #[arg(
        long,
        value_name = "FILE",
        requires = "by",
        conflicts_with_all = ["judge", "template", "one_order", "majority", "debate", "temperature", "max_tokens", "calibration",
                              "at_once", "timeout", "api_key_env", "subject", "pairs", "contests", "injected", "select"]
    )]
    store: Option<PathBuf>,
    /// The judge of the store that is measured; the beginning of its name will do.
    #[arg(long, value_name = "NAME", requires = "store")]
    by: Option<String>,
    /// The judge of the store, or the person, who is taken to be right, e.g. person:ann [default: the truth that the store's
    /// items state].
    #[arg(long, value_name = "NAME", requires = "store")]
    against: Option<String>,
    /// The model whose candidates are the judge's own work, to measure its liking for them: a folder or its name.
    #[arg(long, value_name = "MODEL", requires = "store")]
    own: Option<String>,
    /// Also give the temperature under which the judge's probabilities fit these pairs best.
    #[arg(long)]
    fit: bool,
    /// Draw all of it into this folder's index.html.
    #[arg(long, value_name = "DIR")]
    html: Option<PathBuf>,
}

pub(super) fn run(args: &Args, ctx: &Context) -> Outcome {
    args.check()?;
    let heard = match (&args.store, &args.by) {
        (Some(store), Some(by)) => stored::read(store, by, args.against.as_deref(), args.own.as_deref())?,
        _ => ask(args, ctx)?,
    };
    let mut report = measure(heard, args.seed, args.fit);
    report.html = args.html.as_ref().map(|folder| page::write(&report, folder)).transpose()?;
    if ctx.output.wants_json() {
        return ctx.output.json(&json!(report));
    }
    lines::write(&report, ctx)?;
    match &report.html {
        Some(page) => ctx.output.line(format!("written to {}", page.display())),
        None => Ok(()),
    }
}

impl Args {
    /// Refuses options that nothing would read. (The parser waives what an option requires where something else rules it out.)
    fn check(&self) -> Outcome {
        let of_a_store = [("--by", &self.by), ("--against", &self.against), ("--own", &self.own)];
        match of_a_store.iter().find(|(_, given)| given.is_some()) {
            Some((option, _)) if self.store.is_none() => {
                Err(Failure::usage(format!("{option} is about what a store holds; give --store too")))
            }
            _ => Ok(()),
        }
    }
}

/// Asks a judge about the playground.
fn ask(args: &Args, ctx: &Context) -> Outcome<Heard> {
    let pairs = args.pairs.get();
    let (contests, injected) = (args.contests.unwrap_or(pairs / 8), args.injected.unwrap_or(pairs / 4));
    if injected > pairs {
        return Err(Failure::usage(format!("--injected {injected}: there are {pairs} pairs; raise --pairs")));
    }
    let asking = Asking::new(&args.judge, args.subject, args.seed, ctx)?;
    let split = if args.select { Split::Select } else { Split::Test };
    let shown: Vec<Pair> = match args.subject {
        Subject::Images => pictures::pairs(split, args.seed, pairs, contests)?,
        Subject::Texts => texts::pairs(split, args.seed, pairs, contests)?,
    };
    let records = asking.records(&shown, ctx)?;
    let clear: Vec<_> = shown.iter().zip(&records).take(injected).collect();
    let injections = injections::inject(&asking, &clear, args.subject, ctx)?;
    Ok(Heard {
        judge: asking.name().to_owned(),
        against: "the playground's exact checker".to_owned(),
        subject: args.subject,
        own: None,
        records,
        injections,
        cost: asking.cost(),
    })
}
