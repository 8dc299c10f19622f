//! `votive revise`: rich feedback to pairs, as RPO has it (`votive_critic`, module `revision`).
//!
//! ```text
//! candidates of the store ─ critic ─▶ critiques ─▶ edits ─ editor ─▶ (original, edited) ─ judge ─▶ what improved ─▶ pairs.jsonl
//! ```
//! Critiques, edits and judgments are in the store, and what is there is not made or asked again. It is a command of its own
//! beside `votive label`, whose candidates it needs: it has three models where that has two, and another idea of a pair.

mod editing;
mod originals;
mod report;
mod truth;

use super::judges::{CHECKER, Critic, JudgeArgs};
use super::label::preference_set::{Labelled, PreferenceSet};
use super::label::references::require_in_store;
use super::label::subject_of;
use super::sample::sampler;
use super::{Context, Failure, Outcome};
use clap::builder::PossibleValuesParser;
use editing::{Editor, Plan};
use originals::{Original, Originals};
use report::Report;
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use votive_critic::{Candidate, Finding, NotImproved, Question, Store, improvement};
use votive_diffusion::SamplerKind;

/// Let a critic say what is wrong, edit accordingly, and keep what improved as pairs (RPO; critique and revise)
///
/// Takes candidates that `votive label` has drawn. The critic says in words what each shows and what is wrong with it; an image is
/// made anew from itself towards its prompt and away from what the critic saw, a text is written anew by what was said of it.
/// The judge compares original and edited one, and where it finds the edited one better, it is written as chosen over the
/// original. Everything else is counted by reason.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  votive revise --store labels.sqlite --critic http://127.0.0.1:8000/v1#qwen-vl --model models/tiny-sd \
                  --steps 10 --cfg 1.5 --judge checker --out pairs.jsonl\n  votive revise --store answers.sqlite --critic qwen --model qwen \
                  --judge qwen --out pairs.jsonl"
)]
pub(crate) struct Args {
    /// The file of candidates and judgments, as `votive label` makes it.
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// Who says what is wrong: a language model's folder (for images with vision), or a server's model, as --judge takes them.
    #[arg(long, value_name = "NAME|DIR|URL")]
    critic: String,
    /// How the critic is asked and what is done about its answers: a template's file, or the name of one that comes with the program
    /// [default: critique.toml in the critic's folder, or else image-critique or text-critique].
    #[arg(long, value_name = "FILE|NAME")]
    critic_template: Option<String>,
    /// The editor: of images a Stable Diffusion folder, of texts a language model's folder or a server's model.
    #[arg(long, value_name = "DIR|URL")]
    model: String,
    /// Candidates of a prompt that are criticised, the first ones.
    #[arg(long, value_name = "N", default_value = "1")]
    each: NonZeroUsize,
    /// Seed of edits, and of what critic and judge draw.
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    drawing: DrawingArgs,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Also say how many edits this one confirms as improvements, beside as many random pairs of the same prompts.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new([CHECKER]))]
    truth: Option<String>,
    /// Least probability that the edited candidate is better.
    #[arg(long, value_name = "P", default_value_t = 0.5)]
    least: f64,
    /// The preference set; images go to a folder of the same name beside it.
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
}

/// How images are edited.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Edits of images")]
struct DrawingArgs {
    /// How the editor gets from noise to latents [default: ddim].
    #[arg(long, value_name = "NAME", value_parser = sampler())]
    sampler: Option<SamplerKind>,
    /// Steps of the sampler, of which an edit makes the last ones, as many as its strength says [default: 50].
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Scale of classifier-free guidance towards the prompt and away from what the critic saw [default: 7.5].
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    cfg: Option<f64>,
}

/// An original whose edit was judged.
struct Judged<'a> {
    plan: &'a Plan<'a>,
    item: i64,
    /// The probability that the edited one is better, or why it makes no pair.
    found: Result<f64, NotImproved>,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    if !(0.5..1.0).contains(&args.least) {
        return Err(Failure::usage(format!("--least {}: expected 0.5 or more, below 1", args.least)));
    }
    let mut store = Store::open(&args.store)?;
    let originals = Originals::of(&store, args.each.get())?;
    if originals.all.is_empty() {
        let empty = Failure::data(format!("{}: no candidates in it to revise", args.store.display()));
        return Err(
            empty.hint("draw some first: votive label --store FILE --prompts FILE --model DIR --judge NAME")
        );
    }
    let subject = subject_of(&store)?;
    let judge = args.judge.choose(subject, args.seed, ctx)?;
    let critic =
        args.judge.critic(&args.critic, args.critic_template.as_deref(), (subject, args.seed), ctx)?;
    for chosen in [&judge, &critic.chosen] {
        require_in_store(chosen, &store)?;
    }
    let editor = Editor::of(args, subject, &critic, ctx)?;
    let mut report = Report::new(&critic.chosen, &judge, &args.model, originals.all.len());

    let plans = criticise(&critic, &originals.all, (&mut store, &mut report), ctx)?;
    let items = editor.make(&plans, (&args.model, args.seed), (&mut store, &mut report), ctx)?;
    let ids: Vec<i64> = items.iter().map(|(_, item)| *item).collect();
    report.cost += judge.record(("judging", "edits"), &ids, &mut store, ctx)?;
    let mut all = Vec::with_capacity(items.len());
    for (plan, item) in items {
        let finding = finding(&store, item, judge.judge.name())?;
        let found = improvement(&finding, args.least);
        report.count(found);
        all.push(Judged { plan, item, found });
    }
    if args.truth.is_some() {
        let asked = truth::Asked { judge: &judge, originals: &originals, least: args.least, seed: args.seed };
        let (truth, cost) = asked.measure(&all, &mut store, ctx)?;
        report.truth = Some(truth);
        report.cost += cost;
    }
    if let Some(out) = &args.out {
        write(&all, &args.model, &store, out)?;
    }
    report.tell(args.out.as_deref(), ctx)
}

/// What a judge found of an item.
fn finding(store: &Store, item: i64, judge: &str) -> Outcome<Finding> {
    let found = store.judgments(Some(item), Some(judge))?.pop();
    found
        .map(|found| found.judgment.finding)
        .ok_or_else(|| Failure::data(format!("item {item} was not judged")))
}

/// Asks the critic about every original; gives what is to be done where there is something to act on.
fn criticise<'a>(
    critic: &Critic,
    originals: &'a [Original],
    (store, report): (&mut Store, &mut Report),
    ctx: &Context,
) -> Outcome<Vec<Plan<'a>>> {
    let question = |original: &Original| -> (Question, Value) {
        let origin = json!({ "criticised": { "model": original.model, "seed": original.seed } });
        (original.question.clone(), origin)
    };
    let items = store.add_all(&originals.iter().map(question).collect::<Vec<_>>())?;
    report.cost += critic.chosen.record(("criticising", "candidates"), &items, store, ctx)?;
    let mut plans = Vec::new();
    for (original, item) in originals.iter().zip(items) {
        let said = store.judgments(Some(item), Some(critic.chosen.judge.name()))?.pop();
        let said = said.ok_or_else(|| Failure::data(format!("item {item} was not criticised")))?.judgment;
        let words = said.evidence.into_iter().next().map(|evidence| evidence.words).unwrap_or_default();
        if let Finding::Abstention(abstention) = &said.finding {
            *report.critiques.abstentions.entry(abstention.reason()).or_insert(0) += 1;
            continue;
        }
        let Some(Ok(critique)) = critic.template.critique(&words) else {
            *report.critiques.abstentions.entry("malformed").or_insert(0) += 1;
            continue;
        };
        if critique.is_content {
            report.critiques.nothing_wrong += 1;
            continue;
        }
        let edit = critic.template.edit(original.question.prompt(), &critique);
        let is_actionable = match original.candidate() {
            Some(Candidate::Image(_)) => edit.is_some(),
            _ => critique.instruction.is_some(),
        };
        if !is_actionable {
            report.critiques.nothing_to_act_on += 1;
            continue;
        }
        report.critiques.actionable += 1;
        let (critic, wrong) = (critic.chosen.judge.name().to_owned(), critique.wrong);
        plans.push(Plan { original, critic, words, wrong, edit });
    }
    Ok(plans)
}

/// Writes what improved over its original.
fn write(all: &[Judged], editor: &str, store: &Store, out: &Path) -> Outcome {
    let mut set = PreferenceSet::at(out);
    for Judged { plan, item, found } in all {
        let Ok(probability) = found else { continue };
        let item = store.item(*item)?;
        let [original, edited] = item.question.candidates() else { continue };
        set.add(Labelled {
            prompt: item.question.prompt(),
            sides: [edited, original],
            models: [editor.to_owned(), plan.original.model.clone()],
            is_chat: plan.original.is_chat,
            probability: *probability,
            scores: [*probability, 1.0 - probability],
        })?;
    }
    set.write()
}
