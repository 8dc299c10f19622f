//! A language model with the rows that it scores.

use crate::cli::{Code, Context, Failure, Outcome};
use clap::ValueEnum;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use votive_data::{DataReport, FaultyRows, LongRows, RowPolicy, TextRecords, TextTokenizer, read_text};
use votive_model::{Lora, Params};
use votive_train::front_end::{FrontEnd, Sample, TextFrontEnd};

/// Which rows are scored, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct RowArgs {
    /// Preference pairs or completions with labels: a file or a folder of shards in any layout that `votive data` reads.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: PathBuf,
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

impl RowArgs {
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
}

/// One completion of a row, as it is scored.
pub(crate) struct ScoredCompletion {
    /// Σ log π over its trained tokens, in nats.
    pub(crate) logp: f64,
    /// Its trained tokens.
    pub(crate) ids: Vec<u32>,
    /// log π of each, in nats, if they were asked for.
    pub(crate) token_logps: Vec<f32>,
}

/// A row with its completions: chosen and rejected, or one with a label.
pub(crate) struct ScoredRow {
    /// Its number in the data, counted from 1.
    pub(crate) row: usize,
    pub(crate) prompt_ids: Vec<u32>,
    pub(crate) completions: Vec<ScoredCompletion>,
    /// Of a single completion: whether it is desirable.
    pub(crate) label: Option<bool>,
}

/// The tokens of a row before it is scored.
struct Tokens {
    row: usize,
    prompt_ids: Vec<u32>,
    completions: Vec<Vec<u32>>,
    label: Option<bool>,
}

/// A model, and rows as it reads them.
pub(crate) struct Scorer<'a> {
    args: &'a RowArgs,
    front: TextFrontEnd,
    params: Params,
    rows: Vec<Tokens>,
    /// What became of the rows of the data.
    pub(crate) report: DataReport,
}

impl<'a> Scorer<'a> {
    /// Opens a model with an adapter, if there is one, and tokenizes the rows for it.
    pub(crate) fn open(
        model: &Path,
        adapter: Option<&Path>,
        args: &'a RowArgs,
        ctx: &Context,
    ) -> Outcome<Self> {
        let device = ctx.device()?;
        let (front, mut params) = TextFrontEnd::open(model, &device)?;
        if let Some(adapter) = adapter {
            params = params.with_lora(Lora::load(adapter, &device)?)?;
        }
        let positions = front.max_positions();
        let max_length = args.max_length.map_or(positions, NonZeroUsize::get);
        if max_length > positions {
            let message = format!("--max-length {max_length}: {} has {positions} positions", model.display());
            return Err(Failure::usage(message));
        }
        let policy = args.policy(max_length);
        let (front, rows, report) = match read_text(&args.data)? {
            TextRecords::Pairs(records) => {
                let (pairs, report) = front.tokenizer().tokenize_pairs(&records, policy)?;
                let rows = pairs.iter().map(|pair| Tokens {
                    row: pair.row,
                    prompt_ids: pair.prompt_ids.clone(),
                    completions: vec![
                        trained(&pair.chosen_ids, &pair.chosen_untrained),
                        trained(&pair.rejected_ids, &pair.rejected_untrained),
                    ],
                    label: None,
                });
                let rows = rows.collect();
                (front.with_pairs(pairs), rows, report)
            }
            TextRecords::Unpaired(records) => {
                let (examples, report) = front.tokenizer().tokenize_unpaired(&records, policy)?;
                let rows = examples.iter().map(|one| Tokens {
                    row: one.row,
                    prompt_ids: one.prompt_ids.clone(),
                    completions: vec![trained(&one.completion_ids, &one.untrained)],
                    label: Some(one.label),
                });
                let rows = rows.collect();
                (front.with_unpaired(examples, max_length), rows, report)
            }
        };
        Ok(Self { args, front, params, rows, report })
    }

    pub(crate) fn tokenizer(&self) -> &TextTokenizer {
        self.front.tokenizer()
    }

    /// Refuses a model whose tokens are not those of another one, so that their log-probabilities cannot be compared.
    pub(crate) fn require_same_tokens(&self, other: &Self, folder: &Path, other_folder: &Path) -> Outcome {
        match self.tokenizer().difference(other.tokenizer()) {
            None => Ok(()),
            Some(difference) => {
                let (folder, other) = (folder.display(), other_folder.display());
                let message = format!("{folder} and {other} have different tokens: {difference}");
                Err(Failure::data(message)
                    .hint("the reference is the model that the policy was trained from"))
            }
        }
    }

    /// Every row in the order of the data; `per_token` says whether single tokens are read, too.
    pub(crate) fn score(&self, per_token: bool, ctx: &Context) -> Outcome<Vec<ScoredRow>> {
        let network = self.front.network(&self.params)?;
        let samples: Vec<Sample> = (0..self.rows.len()).map(|row| Sample { row, position: row }).collect();
        let progress = ctx.output.progress("scoring", "rows", samples.len() as u64);
        let mut scored = Vec::with_capacity(samples.len());
        for samples in samples.chunks(self.args.batch.get()) {
            let batch = self.front.batch(0, samples)?;
            let likelihood = self.front.likelihood(&network, &batch, None)?;
            let logps = likelihood.logps.to_vec1::<f32>()?;
            if let Some(i) = logps.iter().position(|logp| !logp.is_finite()) {
                return Err(self.not_finite(self.rows[samples[i % samples.len()].row].row, logps[i]));
            }
            let token_logps = match likelihood.tokens.as_ref().filter(|_| per_token) {
                Some(tokens) => split(&tokens.scores.log_probs()?.to_vec1::<f32>()?, &tokens.counts),
                None => vec![Vec::new(); logps.len()],
            };
            let mut completions: Vec<_> = token_logps.into_iter().zip(logps).map(Some).collect();
            for (i, sample) in samples.iter().enumerate() {
                let tokens = &self.rows[sample.row];
                let sides = tokens.completions.iter().enumerate().map(|(side, ids)| {
                    let (token_logps, logp) =
                        completions[side * samples.len() + i].take().unwrap_or_default();
                    ScoredCompletion { logp: f64::from(logp), ids: ids.clone(), token_logps }
                });
                scored.push(ScoredRow {
                    row: tokens.row,
                    prompt_ids: tokens.prompt_ids.clone(),
                    completions: sides.collect(),
                    label: tokens.label,
                });
            }
            progress.add(samples.len() as u64);
        }
        progress.finish();
        Ok(scored)
    }

    fn not_finite(&self, row: usize, logp: f32) -> Failure {
        let data = self.args.data.display();
        Failure::new(Code::Numbers, format!("{data}: row {row}: its log-probability is {logp}"))
            .hint("the weights of the model or its adapter are damaged")
    }
}

/// One list for each count, from the front.
fn split(numbers: &[f32], counts: &[usize]) -> Vec<Vec<f32>> {
    let mut rest = numbers;
    counts
        .iter()
        .map(|count| {
            let (these, others) = rest.split_at((*count).min(rest.len()));
            rest = others;
            these.to_vec()
        })
        .collect()
}

/// The tokens outside of spans that are not trained.
fn trained(ids: &[u32], untrained: &[Range<usize>]) -> Vec<u32> {
    let outside = |at: &usize| !untrained.iter().any(|span| span.contains(at));
    ids.iter().enumerate().filter(|(at, _)| outside(at)).map(|(_, id)| *id).collect()
}
