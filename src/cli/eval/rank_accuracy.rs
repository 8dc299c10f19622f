//! `votive eval rank-accuracy`: how many pairs a model ranks rightly, before and after training, and how many its
//! objective's optimum would.

use crate::cli::score::{RowArgs, ScoredRow, Scorer};
use crate::cli::{Context, Failure, Outcome};
use serde_json::json;
use std::path::PathBuf;
use votive_eval::{RankAccuracy, RankedPair, Share, rank_accuracy};

/// Count the pairs whose chosen completion is the likelier one
///
/// Raw and per token, by the model and by its reference. With --label-share also what the optimum of DPO would rank rightly,
/// and the alignment gap between the two (Chen et al., arXiv:2405.19534).
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The trained model's folder.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A LoRA adapter on it.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The model that it was trained from.
    #[arg(long, value_name = "DIR")]
    reference: PathBuf,
    #[command(flatten)]
    rows: RowArgs,
    /// β that it was trained with.
    #[arg(long, value_name = "B", default_value_t = 0.1)]
    beta: f64,
    /// Share of people who prefer what is labelled chosen, above ½ and below 1.
    #[arg(long, value_name = "A")]
    label_share: Option<f64>,
}

pub(super) fn run(args: &Args, ctx: &Context) -> Outcome {
    if !(args.beta.is_finite() && args.beta > 0.0) {
        return Err(Failure::usage(format!("--beta {}: must be above 0", args.beta)));
    }
    if let Some(share) = args.label_share.filter(|share| !(*share > 0.5 && *share < 1.0)) {
        return Err(Failure::usage(format!("--label-share {share}: must be above 0.5 and below 1")));
    }
    let policy = Scorer::open(&args.model, args.adapter.as_deref(), &args.rows, ctx)?;
    ctx.output.note(&policy.report);
    let reference = Scorer::open(&args.reference, None, &args.rows, ctx)?;
    reference.require_same_tokens(&policy, &args.reference, &args.model)?;
    let (policy, reference) = (policy.score(false, ctx)?, reference.score(false, ctx)?);
    let pairs: Option<Vec<RankedPair>> = policy.iter().zip(&reference).map(|(p, r)| pair(p, r)).collect();
    let pairs = pairs.ok_or_else(|| {
        let message =
            format!("{}: rows with labels have nothing to be ranked against", args.rows.data.display());
        Failure::data(message).hint("rank-accuracy reads preference pairs")
    })?;
    report(&rank_accuracy(&pairs, args.beta, args.label_share), ctx)
}

fn pair(policy: &ScoredRow, reference: &ScoredRow) -> Option<RankedPair> {
    let [(chosen, other_chosen), (rejected, other_rejected)] =
        [0, 1].map(|side| (policy.completions.get(side), reference.completions.get(side)));
    let (chosen, rejected) = (chosen?, rejected?);
    Some(RankedPair {
        policy: [chosen.logp, rejected.logp],
        reference: [other_chosen?.logp, other_rejected?.logp],
        lengths: [chosen.ids.len(), rejected.ids.len()],
    })
}

fn report(found: &RankAccuracy, ctx: &Context) -> Outcome {
    if ctx.output.wants_json() {
        return ctx.output.json(&json!(found));
    }
    let rows: [(&str, Option<Share>); 6] = [
        ("model", Some(found.policy)),
        ("model, per token", Some(found.policy_per_token)),
        ("reference", Some(found.reference)),
        ("reference, per token", Some(found.reference_per_token)),
        ("implicit rewards", Some(found.rewards)),
        ("optimum", found.idealised),
    ];
    for (name, share) in rows.into_iter().filter_map(|(name, share)| Some((name, share?))) {
        let Share { value, low, high, n } = share;
        ctx.output.line(format!("{name:20} {value:5.1} % [{low:.1}, {high:.1}] of {n}"))?;
    }
    ctx.output.line(format!("learnt {}, lost {}", found.learnt, found.lost))?;
    match found.alignment_gap {
        Some(gap) => ctx.output.line(format!("alignment gap {gap:+.1} points")),
        None => Ok(()),
    }
}
