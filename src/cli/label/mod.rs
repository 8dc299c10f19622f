//! `votive label`: prompts to candidates, candidates to judgments, judgments to a preference set.
//!
//! ```text
//! prompts × models × seeds ─▶ candidates ─ every two of a prompt ─▶ items of the store ─ judge ─▶ judgments of the store
//!   ─ best against worst of each prompt ─▶ pairs.jsonl (+ images)
//! ```
//! What is in the store is not made or asked again, so a stopped labelling goes on where it was.

mod candidates;
mod contrast;
mod export;
pub(crate) mod origin;
pub(crate) mod preference_set;
mod ratings;
pub(crate) mod references;

use super::judges::{JudgeArgs, Subject};
use super::{Context, Failure, Outcome};
use candidates::{Candidates, DrawingArgs};
use contrast::Umpire;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use votive_critic::{Candidate, Cost, Finding, Store};
use votive_train::Modality;

/// Let a judge label candidates: prompts × models × seeds to a preference set
///
/// Candidates are drawn from the models, every two of a prompt are compared by the judge, and the best is written against the
/// worst of each prompt, where the judge found it so when it compared the two. Every judgment is kept in the store with the
/// order shown, the judge's words and what they cost; `votive serve` shows them, and lets people judge the same pairs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  votive label --store labels.sqlite --prompts captions.txt --model models/tiny-sd --samples 4 \
                  --steps 10 --cfg 1.5 --out pairs.jsonl\n  votive label --store labels.sqlite --judge http://127.0.0.1:8000/v1#qwen \
                  --out pairs-qwen.jsonl\n  votive label --store answers.sqlite --prompts questions.jsonl --model models/tiny-lm \
                  --judge http://127.0.0.1:8000/v1#qwen --template text-reference --out pairs.jsonl\n  votive label --store labels.sqlite --by person:ann --out pairs-ann.jsonl"
)]
pub(crate) struct Args {
    /// The file of candidates and judgments; made if it is not there.
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// Prompts whose candidates are drawn: one a line, or the column `prompt` of a .jsonl file, whose column `reference` (a text) or
    /// `reference_image` (a file) is an answer that is known to be right. Without it, what is in the store is judged.
    #[arg(long, value_name = "FILE", requires = "model")]
    prompts: Option<PathBuf>,
    /// A model that draws candidates, of texts or of images; repeat it for several.
    #[arg(long, value_name = "DIR", requires = "prompts")]
    model: Vec<PathBuf>,
    /// Candidates of a prompt from each model.
    #[arg(long, value_name = "N", default_value = "4", requires = "prompts")]
    samples: NonZeroUsize,
    /// Seed of candidates, and of what the judge draws.
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    drawing: DrawingArgs,
    /// Share of the pairs that become gold: the playground's exact checker says which candidate is better, and `votive serve` tells
    /// people's attention by them.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, requires = "prompts")]
    gold: f64,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Ask nobody, and take what this judge has said already, e.g. `person:ann`; the beginning of a name will do.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["judge", "prompts"])]
    by: Option<String>,
    /// The preference set; images go to a folder of the same name beside it.
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
    /// Pairs of the judge's own answers in words, to train the judge on: right verdicts against wrong ones (Con-J, GenRM), or what most
    /// agree with against what least do (Genii).
    #[arg(long, value_name = "FILE.jsonl", requires = "umpire")]
    contrast: Option<PathBuf>,
    /// The judge whose verdicts are taken for the truth by --contrast: one who has judged the same store.
    #[arg(long, value_name = "NAME", requires = "contrast", group = "umpire")]
    truth: Option<String>,
    /// Judges who have judged the same store, and by whose agreement --contrast tells good answers from odd ones, without a truth; the
    /// judge's own answers (draws of --majority, members of a jury) count too, and alone if nobody is named.
    #[arg(long, value_name = "NAME", num_args = 0.., value_delimiter = ',', requires = "contrast", group = "umpire")]
    group: Option<Vec<String>>,
    /// Least probability that the chosen candidate is better.
    #[arg(long, value_name = "P", default_value_t = 0.5)]
    least: f64,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    if !(0.5..1.0).contains(&args.least) {
        return Err(Failure::usage(format!("--least {}: expected 0.5 or more, below 1", args.least)));
    }
    if !(0.0..=1.0).contains(&args.gold) {
        return Err(Failure::usage(format!("--gold {}: expected 0 to 1", args.gold)));
    }
    let mut store = Store::open(&args.store)?;
    if args.prompts.is_none() && store.pair_numbers()?.is_empty() {
        let empty = Failure::data(format!("{}: there is nothing in it to judge", args.store.display()));
        return Err(empty.hint("give --prompts and --model, and candidates will be drawn"));
    }
    // Before anything is drawn, so that a mistake in the judge's name costs nothing.
    let chosen = match args.by {
        Some(_) => None,
        None => Some(args.judge.choose(subject(args, &store)?, args.seed, ctx)?),
    };
    if let Some(file) = &args.prompts {
        let prompts = references::read(file)?;
        if let Some(chosen) = &chosen {
            references::require_in_file(chosen, file, &prompts)?;
        }
        let drawn = Candidates {
            models: &args.model,
            samples: args.samples.get(),
            seed: args.seed,
            drawing: &args.drawing,
            gold: args.gold,
        };
        drawn.draw(&prompts, &mut store, ctx)?;
    }
    let (by, cost) = match (&args.by, &chosen) {
        (None, Some(chosen)) => {
            references::require_in_store(chosen, &store)?;
            let pairs = store.pair_numbers()?;
            let cost = chosen.record(("judging", "pairs"), &pairs, &mut store, ctx)?;
            (chosen.judge.name().to_owned(), cost)
        }
        (name, _) => (store.judge_named(name.as_deref().unwrap_or_default())?, Cost::default()),
    };
    let found = export::Found::of(&store, &by, args.least)?;
    if let Some(out) = &args.out {
        found.write(&store, out)?;
    }
    if let Some(out) = &args.contrast {
        write_contrast(args, &store, &by, out, ctx)?;
    }
    found.report(&by, cost, &ratings::ratings(&store, &by, args.seed)?, args.out.as_deref(), ctx)
}

/// Writes pairs of the judge's own answers, and says who of a group is odd.
fn write_contrast(args: &Args, store: &Store, by: &str, out: &Path, ctx: &Context) -> Outcome {
    let umpire = match (&args.truth, &args.group) {
        (Some(truth), _) => Umpire::truth(store, truth)?,
        (None, names) => Umpire::group(store, by, names.as_deref().unwrap_or_default())?,
    };
    let pairs = contrast::write(store, by, &umpire, out)?;
    ctx.output.note(format!("{pairs} pairs of the judge's own answers in {}", out.display()));
    let odd = umpire.odd(store, by)?;
    if odd.len() > 2 {
        let count = |(name, count): (&String, &usize)| format!("{name} {count}");
        ctx.output.note(format!("odd one out: {}", odd.iter().map(count).collect::<Vec<_>>().join("; ")));
    }
    Ok(())
}

/// What is judged: what the models draw, or what is in the store.
fn subject(args: &Args, store: &Store) -> Outcome<Subject> {
    let Some(model) = args.model.first() else { return subject_of(store) };
    Ok(match Modality::of(model)? {
        Modality::Text => Subject::Texts,
        Modality::Image => Subject::Images,
    })
}

/// What the pairs of a store compare.
///
/// # Errors
/// If the store cannot be read.
pub(crate) fn subject_of(store: &Store) -> Outcome<Subject> {
    let first = store.pair_numbers()?.first().map(|id| store.item(*id)).transpose()?;
    let is_image = first.is_some_and(|item| matches!(item.question.candidates(), [Candidate::Image(_), ..]));
    Ok(if is_image { Subject::Images } else { Subject::Texts })
}

/// Whether a finding names a winner.
fn decides(finding: &Finding) -> bool {
    matches!(finding, Finding::Preference(probability) if *probability != 0.5)
}
