//! `votive eval rank-accuracy`: how many pairs a model ranks rightly, before and after training, and how many its
//! objective's optimum would; or how many a reward model does.

use crate::cli::score::{RowArgs, ScoredRow, Scorer, is_reward_model};
use crate::cli::{Context, Failure, Outcome};
use serde_json::json;
use std::path::PathBuf;
use votive_eval::{RankAccuracy, RankedPair, RewardAccuracy, Share, rank_accuracy, reward_accuracy};

/// Count the pairs whose chosen completion is the likelier one
///
/// Raw and per token, by the model and by its reference. With --label-share also what the optimum of DPO would rank rightly,
/// and the alignment gap between the two (Chen et al., arXiv:2405.19534). Of a reward model it counts the pairs whose chosen
/// completion has the greater reward, as RewardBench does, and tells the mean of the differences.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The trained model's folder, or a reward model's.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A LoRA adapter on it.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The model that it was trained from; a reward model has none.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
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
    if is_reward_model(&args.model, args.adapter.as_deref(), ctx)? {
        return args.of_rewards(ctx);
    }
    let Some(folder) = &args.reference else {
        let message = "--reference: a language model's ranking is compared with that of the model that it was trained from";
        return Err(Failure::usage(message));
    };
    let policy = Scorer::open(&args.model, args.adapter.as_deref(), &args.rows, ctx)?;
    ctx.output.note(&policy.report);
    let reference = Scorer::open(folder, None, &args.rows, ctx)?;
    reference.require_same_tokens(&policy, folder, &args.model)?;
    let (policy, reference) = (policy.score(false, ctx)?, reference.score(false, ctx)?);
    let pairs: Option<Vec<RankedPair>> = policy.iter().zip(&reference).map(|(p, r)| pair(p, r)).collect();
    let pairs = pairs.ok_or_else(|| args.unpaired())?;
    report(&rank_accuracy(&pairs, args.beta, args.label_share), ctx)
}

impl Args {
    fn unpaired(&self) -> Failure {
        let message =
            format!("{}: rows with labels have nothing to be ranked against", self.rows.data.display());
        Failure::data(message).hint("rank-accuracy reads preference pairs")
    }

    /// The pairs that a reward model ranks rightly.
    fn of_rewards(&self, ctx: &Context) -> Outcome {
        let idle = [("--reference", self.reference.is_some()), ("--label-share", self.label_share.is_some())];
        if let Some((option, _)) = idle.into_iter().find(|(_, given)| *given) {
            return Err(Failure::usage(format!("{option}: a reward model is compared with no other model")));
        }
        let scorer = Scorer::open_reward_model(&self.model, self.adapter.as_deref(), &self.rows, ctx)?;
        ctx.output.note(&scorer.report);
        let rewards = |row: &ScoredRow| match row.completions.as_slice() {
            [chosen, rejected] => Some([chosen.score, rejected.score]),
            _ => None,
        };
        let pairs: Option<Vec<[f64; 2]>> = scorer.score(false, ctx)?.iter().map(rewards).collect();
        let found = reward_accuracy(&pairs.ok_or_else(|| self.unpaired())?);
        if ctx.output.wants_json() {
            return ctx.output.json(&json!(found));
        }
        let RewardAccuracy { accuracy: Share { value, low, high, n }, ties, margin } = found;
        ctx.output.line(format!("reward model {value:5.1} % [{low:.1}, {high:.1}] of {n}, {ties} ties"))?;
        ctx.output.line(format!("mean margin {margin:+.3}"))
    }
}

fn pair(policy: &ScoredRow, reference: &ScoredRow) -> Option<RankedPair> {
    let [(chosen, other_chosen), (rejected, other_rejected)] =
        [0, 1].map(|side| (policy.completions.get(side), reference.completions.get(side)));
    let (chosen, rejected) = (chosen?, rejected?);
    Some(RankedPair {
        policy: [chosen.score, rejected.score],
        reference: [other_chosen?.score, other_rejected?.score],
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
