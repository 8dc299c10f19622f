//! `votive score`: log-probabilities of the completions of a data set.

use crate::cli::text_model::TextModel;
use crate::cli::{Context, Failure, Outcome, Progress};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use votive_data::{
    FaultyRows, LongRows, RowPolicy, TextRecords, TokenizedPair, TokenizedUnpaired, read_text, write_jsonl,
};
use votive_model::{CausalLm, TokenBatch};

/// Write the log-probabilities of completions.
///
/// A row of preference pairs gets chosen_logps, rejected_logps, chosen_tokens and rejected_tokens; a row of completions
/// with labels gets logps, tokens and label. Log-probabilities are sums over the completion's tokens, the end-of-text
/// token included, in nats.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model's folder, in the hub's layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A LoRA adapter to put on the model, in PEFT's format.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Preference pairs, or completions with labels, one JSON object a line.
    #[arg(long, value_name = "FILE.jsonl")]
    data: PathBuf,
    /// Where the scores go, one JSON object a row.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// Tokens of a row at most [default: the model's positions].
    #[arg(long, value_name = "N")]
    max_length: Option<NonZeroUsize>,
    /// What to do with longer rows.
    #[arg(long, value_enum, default_value_t = Long::Error)]
    long_rows: Long,
    /// What to do with rows whose completion is empty or whose completions are equal.
    #[arg(long, value_enum, default_value_t = Faulty::Error)]
    faulty_rows: Faulty,
    /// Rows that are worked on at once.
    #[arg(long, value_name = "N", default_value = "4")]
    batch: NonZeroUsize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Long {
    Error,
    Drop,
    Truncate,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Faulty {
    Error,
    Drop,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let records = read_text(&args.data)?;
    let model = TextModel::load(&args.model, args.adapter.as_deref(), &ctx.device()?)?;
    let policy = args.policy(&model)?;
    let batch = args.batch.get();
    let (rows, report) = match records {
        TextRecords::Pairs(records) => {
            let (pairs, report) = model.tokenizer.tokenize_pairs(&records, policy)?;
            ctx.output.note(&report);
            let progress = ctx.output.progress("scoring", "rows", pairs.len() as u64);
            (in_batches(&pairs, batch, progress, |pairs| score_pairs(&model, pairs))?, report)
        }
        TextRecords::Unpaired(records) => {
            let (examples, report) = model.tokenizer.tokenize_unpaired(&records, policy)?;
            ctx.output.note(&report);
            let progress = ctx.output.progress("scoring", "rows", examples.len() as u64);
            (in_batches(&examples, batch, progress, |examples| score_unpaired(&model, examples))?, report)
        }
    };
    write_jsonl(&args.out, &rows)?;
    if ctx.output.wants_json() {
        return ctx.output.json(&json!({"out": args.out, "rows": rows.len(), "data": report}));
    }
    ctx.output.line(format!("{} rows written to {}", rows.len(), args.out.display()))
}

impl Args {
    fn policy(&self, model: &TextModel) -> Outcome<RowPolicy> {
        let positions = model.network.max_positions();
        let max_length = self.max_length.map_or(positions, NonZeroUsize::get);
        if max_length > positions {
            return Err(Failure::usage(format!("--max-length {max_length}: the model has {positions} positions")));
        }
        let long_rows = match self.long_rows {
            Long::Error => LongRows::Error,
            Long::Drop => LongRows::Drop,
            Long::Truncate => LongRows::Truncate,
        };
        let faulty_rows = match self.faulty_rows {
            Faulty::Error => FaultyRows::Error,
            Faulty::Drop => FaultyRows::Drop,
        };
        Ok(RowPolicy { max_length: Some(max_length), long_rows, faulty_rows })
    }
}

fn in_batches<T>(
    rows: &[T],
    size: usize,
    progress: Progress,
    score: impl Fn(&[T]) -> Outcome<Vec<Value>>,
) -> Outcome<Vec<Value>> {
    let mut scores = Vec::with_capacity(rows.len());
    for batch in rows.chunks(size) {
        scores.append(&mut score(batch)?);
        progress.set(scores.len() as u64);
    }
    progress.finish();
    Ok(scores)
}

fn score_pairs(model: &TextModel, pairs: &[TokenizedPair]) -> Outcome<Vec<Value>> {
    let chosen = pairs.iter().map(|pair| (&*pair.prompt_ids, &*pair.chosen_ids));
    let rejected = pairs.iter().map(|pair| (&*pair.prompt_ids, &*pair.rejected_ids));
    let logps = summed_logps(&model.network, &chosen.chain(rejected).collect::<Vec<_>>())?;
    let (chosen, rejected) = logps.split_at(pairs.len());
    let row = |((pair, chosen), rejected): ((&TokenizedPair, &f64), &f64)| {
        json!({
            "row": pair.row,
            "chosen_logps": chosen,
            "rejected_logps": rejected,
            "chosen_tokens": pair.chosen_ids.len(),
            "rejected_tokens": pair.rejected_ids.len(),
        })
    };
    Ok(pairs.iter().zip(chosen).zip(rejected).map(row).collect())
}

fn score_unpaired(model: &TextModel, examples: &[TokenizedUnpaired]) -> Outcome<Vec<Value>> {
    let sequences: Vec<_> = examples.iter().map(|one| (&*one.prompt_ids, &*one.completion_ids)).collect();
    let logps = summed_logps(&model.network, &sequences)?;
    let row = |(one, logps): (&TokenizedUnpaired, f64)| {
        json!({"row": one.row, "logps": logps, "tokens": one.completion_ids.len(), "label": one.label})
    };
    Ok(examples.iter().zip(logps).map(row).collect())
}

/// Log-probability of each completion after its prompt, summed over its tokens, nats.
fn summed_logps(network: &dyn CausalLm, sequences: &[(&[u32], &[u32])]) -> Outcome<Vec<f64>> {
    let rows = sequences.iter().map(|(prompt, completion)| [*prompt, *completion].concat()).collect();
    let places = |(row, (prompt, completion)): (usize, &(&[u32], &[u32]))| {
        (prompt.len()..prompt.len() + completion.len()).map(move |at| (row, at))
    };
    let batch = TokenBatch::new(rows, sequences.iter().enumerate().flat_map(places).collect())?;
    let logps = network.log_probs(&batch, None)?.to_vec1::<f32>()?;
    let mut sums = vec![0.0; sequences.len()];
    for (&(row, _), logp) in batch.wanted().iter().zip(logps) {
        sums[row] += f64::from(logp);
    }
    Ok(sums)
}
