//! `votive score`: log-probabilities of the completions of a data set.

use crate::cli::{Code, Context, Failure, Outcome};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use votive_data::{DataReport, FaultyRows, LongRows, RowPolicy, TextRecords, read_text, write_jsonl};
use votive_model::{Lora, Params};
use votive_train::front_end::{FrontEnd, Sample, TextFrontEnd};

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
    /// Preference pairs or completions with labels: a file or a folder of shards in any layout that `votive data` reads.
    #[arg(long, value_name = "DATA")]
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
    let device = ctx.device()?;
    let (front, mut params) = TextFrontEnd::open(&args.model, &device)?;
    if let Some(adapter) = &args.adapter {
        params = params.with_lora(Lora::load(adapter, &device)?)?;
    }
    let (front, report) = args.with_rows(front, records)?;
    ctx.output.note(&report);
    let scores = args.scores(&front, &params, ctx)?;
    write_jsonl(&args.out, &scores)?;
    if ctx.output.wants_json() {
        return ctx.output.json(&json!({"out": args.out, "rows": scores.len(), "data": report}));
    }
    ctx.output.line(format!("{} rows written to {}", scores.len(), args.out.display()))
}

impl Args {
    fn with_rows(&self, front: TextFrontEnd, records: TextRecords) -> Outcome<(TextFrontEnd, DataReport)> {
        let positions = front.max_positions();
        let max_length = self.max_length.map_or(positions, NonZeroUsize::get);
        if max_length > positions {
            return Err(Failure::usage(format!(
                "--max-length {max_length}: the model has {positions} positions"
            )));
        }
        let policy = self.policy(max_length);
        Ok(match records {
            TextRecords::Pairs(records) => {
                let (pairs, report) = front.tokenizer().tokenize_pairs(&records, policy)?;
                (front.with_pairs(pairs), report)
            }
            TextRecords::Unpaired(records) => {
                let (examples, report) = front.tokenizer().tokenize_unpaired(&records, policy)?;
                (front.with_unpaired(examples, max_length), report)
            }
        })
    }

    fn policy(&self, max_length: usize) -> RowPolicy {
        let long_rows = match self.long_rows {
            Long::Error => LongRows::Error,
            Long::Drop => LongRows::Drop,
            Long::Truncate => LongRows::Truncate,
        };
        let faulty_rows = match self.faulty_rows {
            Faulty::Error => FaultyRows::Error,
            Faulty::Drop => FaultyRows::Drop,
        };
        RowPolicy { max_length: Some(max_length), long_rows, faulty_rows, ..RowPolicy::default() }
    }

    /// One JSON object for each row, in the order of the data.
    fn scores(&self, front: &TextFrontEnd, params: &Params, ctx: &Context) -> Outcome<Vec<Value>> {
        let network = front.network(params)?;
        let samples: Vec<Sample> = (0..front.rows()).map(|row| Sample { row, position: row }).collect();
        let progress = ctx.output.progress("scoring", "rows", samples.len() as u64);
        let mut scores = Vec::with_capacity(samples.len());
        for samples in samples.chunks(self.batch.get()) {
            let batch = front.batch(0, samples)?;
            let logps = front.logps(&network, &batch)?.to_vec1::<f32>()?;
            if let Some(i) = logps.iter().position(|logp| !logp.is_finite()) {
                let row = front.source_row(samples[i % samples.len()].row);
                return Err(self.not_finite(row, logps[i]));
            }
            for (i, sample) in samples.iter().enumerate() {
                let (row, completions) = (front.source_row(sample.row), front.completions(sample.row));
                let tokens = |place: usize| completions[place].tokens as usize;
                scores.push(if completions.len() == 2 {
                    json!({
                        "row": row,
                        "chosen_logps": logps[i],
                        "rejected_logps": logps[samples.len() + i],
                        "chosen_tokens": tokens(0),
                        "rejected_tokens": tokens(1),
                    })
                } else {
                    let label = completions[0].is_desirable;
                    json!({"row": row, "logps": logps[i], "tokens": tokens(0), "label": label})
                });
            }
            progress.add(samples.len() as u64);
        }
        progress.finish();
        Ok(scores)
    }

    fn not_finite(&self, row: usize, logp: f32) -> Failure {
        let data = self.data.display();
        Failure::new(Code::Numbers, format!("{data}: row {row}: its log-probability is {logp}"))
            .hint("the weights of the model or its adapter are damaged")
    }
}
