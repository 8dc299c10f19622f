//! `votive eval judge`: how far a judge can be trusted, on pairs of the playground whose winner is known.

use crate::cli::judges::{Chosen, JudgeArgs, Subject};
use crate::cli::world::stored;
use crate::cli::{Context, Outcome, signal};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use votive_critic::protocol::fit_temperature;
use votive_critic::{Abstention, Candidate, Cost, Finding, Judge, Judgment, Question, Winner};
use votive_eval::judging::{
    Agreement, Calibration, Leaning, OrderEffects, Verdict, agreement, calibration, leaning, order_effects,
};
use votive_eval::{Share, share};
use votive_playground::Split;
use votive_playground::image::{ClearPair, Picture as Drawn, check, clear_pairs, in_words};

/// Bins of the reliability diagram.
const BINS: usize = 10;

/// How far a judge can be trusted: on held-out pairs of the playground whose winner is known
///
/// Each pair is asked in both orders, and again with its candidates exchanged, with the protocol around the judge and without.
/// Accuracy, order flips, ECE and kappa are shares of 1; the details are points of 100 with 95 % intervals.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  votive eval judge --judge checker --seed 3 --json\n  \
                  votive eval judge --judge clip-vit-large-patch14 --pairs 200")]
pub(super) struct Args {
    #[command(flatten)]
    judge: JudgeArgs,
    /// Pairs.
    #[arg(long, value_name = "N", default_value = "400")]
    pairs: NonZeroUsize,
    /// Seed of the pairs, their order, and the judge's draws.
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
    /// Captions for choosing settings instead of those for reporting.
    #[arg(long)]
    select: bool,
    /// Also give the temperature under which the judge's probabilities fit these pairs best.
    #[arg(long)]
    fit: bool,
}

/// A pair as it is shown, and its truth.
struct Shown {
    question: Question,
    truth: Verdict,
    /// Mean brightness of the first minus that of the second, 0 to 255.
    brighter: f64,
    /// What is wrong with the worse one, in words.
    flaw: String,
}

/// What a judge says of a pair.
struct Said {
    /// Without a protocol: as shown, and the other way round.
    bare: [Judgment; 2],
    /// With it, in the same two orders.
    judged: [Judgment; 2],
}

/// All that is found.
#[derive(Serialize)]
struct Report {
    judge: String,
    /// Right verdicts among those that the protocol lets stand, 0 to 1.
    accuracy: f64,
    /// Pairs whose verdict changes with the order in spite of the protocol, 0 to 1.
    order_flip_rate: f64,
    /// Expected calibration error, 0 to 1.
    ece: f64,
    /// Cohen's kappa with the truth.
    kappa: f64,
    /// Pairs.
    n: usize,
    agreement: Agreement,
    calibration: Calibration,
    order: OrderEffects,
    bare: Bare,
    abstentions: BTreeMap<&'static str, usize>,
    by_flaw: BTreeMap<String, Share>,
    brightness: Leaning,
    cost: Cost,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
}

/// The judge without a protocol, asked once.
#[derive(Serialize)]
struct Bare {
    accuracy: Share,
    order: OrderEffects,
    ece: f64,
}

pub(super) fn run(args: &Args, ctx: &Context) -> Outcome {
    let chosen = args.judge.choose(Subject::Images, args.seed, ctx)?;
    let shown = pairs(args)?;
    let said = ask(&chosen, &shown, ctx)?;
    report(&measure(args, &chosen, &shown, &said), ctx)
}

fn pairs(args: &Args) -> Outcome<Vec<Shown>> {
    let split = if args.select { Split::Select } else { Split::Test };
    let pairs = clear_pairs(split, args.seed, args.pairs.get());
    let shown = |pair: &ClearPair| {
        let pictures = pair.shown();
        let [first, second] = pictures.map(stored);
        Ok(Shown {
            question: Question::pair(&pair.caption, Candidate::Image(first?), Candidate::Image(second?)),
            truth: if pair.is_better_first { Verdict::First } else { Verdict::Second },
            brighter: brightness(pictures[0]) - brightness(pictures[1]),
            flaw: in_words(&check(&pair.caption, &pair.worse)?),
        })
    };
    pairs.iter().map(shown).collect()
}

fn brightness(picture: &Drawn) -> f64 {
    picture.rgb.iter().map(|byte| f64::from(*byte)).sum::<f64>() / picture.rgb.len().max(1) as f64
}

fn ask(chosen: &Chosen, shown: &[Shown], ctx: &Context) -> Outcome<Vec<Said>> {
    let progress = ctx.output.progress("judging", "pairs", shown.len() as u64);
    let one = |(draw, shown): (usize, &Shown)| -> Outcome<Said> {
        signal::go_on()?;
        let orders = [shown.question.clone(), shown.question.reversed()];
        let by = |judge: &dyn Judge| -> Outcome<[Judgment; 2]> {
            Ok([judge.judge(&orders[0], draw as u64)?, judge.judge(&orders[1], draw as u64)?])
        };
        let said = Said { bare: by(&*chosen.bare)?, judged: by(&*chosen.judge)? };
        progress.add(1);
        Ok(said)
    };
    // Several pairs at a time, because small networks have no operation that is worth sharing between cores.
    let all = || shown.par_iter().enumerate().map(one).collect::<Outcome<Vec<_>>>();
    let said = chosen.at_once(all)?;
    progress.finish();
    Ok(said)
}

fn verdict(judgment: &Judgment) -> Option<Verdict> {
    judgment.finding.winner().map(|winner| match winner {
        Winner::First => Verdict::First,
        Winner::Second => Verdict::Second,
        Winner::Tie => Verdict::Tie,
    })
}

fn measure(args: &Args, chosen: &Chosen, shown: &[Shown], said: &[Said]) -> Report {
    let truth: Vec<Verdict> = shown.iter().map(|shown| shown.truth).collect();
    let verdicts =
        |of: &dyn Fn(&Said) -> &Judgment| said.iter().map(|said| verdict(of(said))).collect::<Vec<_>>();
    let judged = verdicts(&|said| &said.judged[0]);
    let order = order_effects(&judged, &verdicts(&|said| &said.judged[1]));
    let labelled = |of: &dyn Fn(&Said) -> &Judgment| -> Vec<(f64, bool)> {
        let probability = |said: &Said| match of(said).finding {
            Finding::Preference(probability) => Some(probability),
            _ => None,
        };
        let pairs = said.iter().zip(&truth);
        pairs.filter_map(|(said, truth)| Some((probability(said)?, *truth == Verdict::First))).collect()
    };
    let of_judged = labelled(&|said| &said.judged[0]);
    let agreement = agreement(&judged, &truth, args.seed);
    let calibration = calibration(&of_judged, BINS);
    let mut abstentions = BTreeMap::new();
    let mut by_flaw: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    let mut cost = Cost::default();
    for ((shown, said), verdict) in shown.iter().zip(said).zip(&judged) {
        let judgments = said.bare.iter().chain(&said.judged);
        judgments.for_each(|judgment| cost += judgment.cost());
        if let Finding::Abstention(abstention) = &said.judged[0].finding {
            *abstentions.entry(Abstention::reason(abstention)).or_insert(0) += 1;
        }
        if let Some(verdict) = verdict {
            for flaw in shown.flaw.split(", ") {
                by_flaw.entry(flaw.to_owned()).or_default().push(*verdict == shown.truth);
            }
        }
    }
    let bare = verdicts(&|said| &said.bare[0]);
    let bare_hits: Vec<bool> =
        bare.iter().zip(&truth).filter_map(|(verdict, truth)| Some((*verdict)? == *truth)).collect();
    let leanings: Vec<_> = judged
        .iter()
        .zip(shown)
        .filter_map(|(verdict, shown)| Some(((*verdict)?, shown.truth, shown.brighter)))
        .collect();
    Report {
        judge: chosen.judge.name().to_owned(),
        accuracy: agreement.accuracy.value / 100.0,
        order_flip_rate: order.flip_rate.value / 100.0,
        ece: calibration.ece,
        kappa: agreement.kappa.value,
        n: shown.len(),
        bare: Bare {
            accuracy: share(&bare_hits),
            order: order_effects(&bare, &verdicts(&|said| &said.bare[1])),
            ece: votive_eval::judging::calibration(&labelled(&|said| &said.bare[0]), BINS).ece,
        },
        agreement,
        calibration,
        order,
        abstentions,
        by_flaw: by_flaw.into_iter().map(|(flaw, hits)| (flaw, share(&hits))).collect(),
        brightness: leaning(&leanings),
        cost,
        temperature: args.fit.then(|| fit_temperature(&of_judged)).flatten(),
    }
}

fn report(report: &Report, ctx: &Context) -> Outcome {
    if ctx.output.wants_json() {
        return ctx.output.json(&json!(report));
    }
    let out = |text: String| ctx.output.line(text);
    let of =
        |share: &Share| format!("{:5.1} % [{:.1}, {:.1}] of {}", share.value, share.low, share.high, share.n);
    out(report.judge.clone())?;
    out(format!("accuracy      {}", of(&report.agreement.accuracy)))?;
    out(format!("  asked once  {}", of(&report.bare.accuracy)))?;
    out(format!("decided       {}", of(&report.agreement.decided)))?;
    out(format!("order flips   {}", of(&report.order.flip_rate)))?;
    out(format!("  asked once  {}", of(&report.bare.order.flip_rate)))?;
    out(format!("first slot    {} (asked once)", of(&report.bare.order.first_slot)))?;
    let kappa = &report.agreement.kappa;
    out(format!("kappa         {:.3} [{:.3}, {:.3}]", kappa.value, kappa.low, kappa.high))?;
    out(format!(
        "ECE           {:.3} (asked once {:.3}), NLL {:.3} nats",
        report.ece, report.bare.ece, report.calibration.nll
    ))?;
    for (flaw, share) in &report.by_flaw {
        out(format!("  {flaw:16} {}", of(share)))?;
    }
    out(format!("the brighter is better   {}", of(&report.brightness.right_with)))?;
    out(format!("the darker is better     {}", of(&report.brightness.right_against)))?;
    for (reason, n) in &report.abstentions {
        out(format!("abstained: {reason} {n}"))?;
    }
    let Cost { calls, input_tokens, output_tokens, seconds } = report.cost;
    out(format!("{calls} calls, {input_tokens} tokens read, {output_tokens} written, {seconds:.1} s"))?;
    match report.temperature {
        Some(temperature) => out(format!("best temperature {temperature:.3}")),
        None => Ok(()),
    }
}
