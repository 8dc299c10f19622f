//! `votive score`: log-probabilities of the completions of a data set, of whole ones and of their tokens; or a reward model's rewards.

mod scorer;
mod tokens;

pub(crate) use scorer::{RowArgs, ScoredRow, Scorer, is_reward_model, open_reward_model};

use crate::cli::{Context, Failure, Outcome};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tokens::{TokenRow, heat_map};
use votive_data::{DataReport, write_jsonl};
use votive_gallery::write_heat_map;

/// Write the log-probabilities of completions, or a reward model's rewards.
///
/// A row of preference pairs gets chosen_logps, rejected_logps, chosen_tokens and rejected_tokens; a row of completions
/// with labels gets logps, tokens and label. Log-probabilities are sums over the completion's tokens, the end-of-text
/// token included, in nats. With --per-token every token is written too, with --html as a picture.
///
/// A reward model (sequence classification with one label, or an adapter that brings such a head) writes chosen_reward and
/// rejected_reward in the place of log-probabilities, or reward for a completion with a label.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model's folder, in the hub's layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A LoRA adapter to put on the model, in PEFT's format.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    rows: RowArgs,
    /// Where the scores go, one JSON object a row.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// Write ids and log-probabilities of all tokens: chosen_token_ids, chosen_token_logps and so on.
    #[arg(long)]
    per_token: bool,
    /// The model that the policy was trained from: tokens get rewards, β·log(π/π_ref).
    #[arg(long, value_name = "DIR", requires = "per_token")]
    reference: Option<PathBuf>,
    /// β of the rewards.
    #[arg(long, value_name = "B", default_value_t = 0.1, requires = "reference")]
    beta: f64,
    /// Draw the tokens as a heat map into this folder's index.html.
    #[arg(long, value_name = "DIR", requires = "per_token")]
    html: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    if !(args.beta.is_finite() && args.beta > 0.0) {
        return Err(Failure::usage(format!("--beta {}: must be above 0", args.beta)));
    }
    if is_reward_model(&args.model, args.adapter.as_deref(), ctx)? {
        return args.write_rewards(ctx);
    }
    let scorer = Scorer::open(&args.model, args.adapter.as_deref(), &args.rows, ctx)?;
    ctx.output.note(&scorer.report);
    let rows = scorer.score(args.per_token, ctx)?;
    let reference = args.reference.as_ref().map(|reference| args.score_reference(reference, &scorer, ctx));
    let reference = reference.transpose()?;
    let tokens: Vec<TokenRow> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| TokenRow {
            row,
            reference: reference.as_ref().and_then(|rows| rows.get(i)),
            beta: args.beta,
        })
        .collect();
    let scores: Vec<Value> = tokens
        .iter()
        .map(|row| {
            let mut object = whole(row.row, "logps");
            if args.per_token {
                row.add_to(&mut object);
            }
            Value::Object(object)
        })
        .collect();
    let page = args.html.as_ref().map(|folder| {
        let title = format!("{}: {}", args.model.display(), args.rows.data.display());
        Ok::<_, Failure>(write_heat_map(&heat_map(&tokens, scorer.tokenizer(), title)?, folder)?)
    });
    args.write(&scores, &scorer.report, page.transpose()?, ctx)
}

/// What a model says of a row's whole completions: log-probabilities (`logps`) or rewards (`reward`).
fn whole(row: &ScoredRow, what: &str) -> Map<String, Value> {
    let value = match (row.completions.as_slice(), row.label) {
        ([one], label) => {
            json!({"row": row.row, what: one.score as f32, "tokens": one.ids.len(), "label": label})
        }
        (completions, _) => {
            let of = |side: usize| completions.get(side).map(|one| (one.score as f32, one.ids.len()));
            let ((chosen, chosen_tokens), (rejected, rejected_tokens)) =
                (of(0).unwrap_or_default(), of(1).unwrap_or_default());
            json!({
                "row": row.row,
                format!("chosen_{what}"): chosen,
                format!("rejected_{what}"): rejected,
                "chosen_tokens": chosen_tokens,
                "rejected_tokens": rejected_tokens,
            })
        }
    };
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

impl Args {
    /// Writes what a reward model says of the rows.
    fn write_rewards(&self, ctx: &Context) -> Outcome {
        if self.per_token {
            let message = "--per-token: a reward model says one number of a whole completion";
            return Err(Failure::usage(message));
        }
        let scorer = Scorer::open_reward_model(&self.model, self.adapter.as_deref(), &self.rows, ctx)?;
        ctx.output.note(&scorer.report);
        let rows = scorer.score(false, ctx)?;
        let scores: Vec<Value> = rows.iter().map(|row| Value::Object(whole(row, "reward"))).collect();
        self.write(&scores, &scorer.report, None, ctx)
    }

    fn write(&self, scores: &[Value], data: &DataReport, page: Option<PathBuf>, ctx: &Context) -> Outcome {
        write_jsonl(&self.out, scores)?;
        if ctx.output.wants_json() {
            let (out, rows) = (&self.out, scores.len());
            return ctx.output.json(&json!({"out": out, "rows": rows, "data": data, "html": page}));
        }
        let drawn = page.map(|page| format!(", drawn in {}", page.display())).unwrap_or_default();
        ctx.output.line(format!("{} rows written to {}{drawn}", scores.len(), self.out.display()))
    }

    /// The same rows by the reference, whose tokens must be the policy's.
    fn score_reference(&self, folder: &Path, policy: &Scorer, ctx: &Context) -> Outcome<Vec<ScoredRow>> {
        let scorer = Scorer::open(folder, None, &self.rows, ctx)?;
        scorer.require_same_tokens(policy, folder, &self.model)?;
        scorer.score(self.per_token, ctx)
    }
}
