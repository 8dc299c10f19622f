//! A language model or a reward model with the rows that it scores.

use crate::cli::{Code, Context, Failure, Outcome};
use clap::ValueEnum;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use votive_data::{
    DataReport, FaultyRows, ImageLimits, LongRows, RowPolicy, TextRecords, TextTokenizer, read_text,
};
use votive_model::{CausalLmConfig, Lora, Params, RewardModelConfig, SCORE};
use votive_train::front_end::{FrontEnd, RewardFrontEnd, Sample, TextFrontEnd, TextModel};

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
    /// Σ log π over its trained tokens, in nats; of a reward model its reward.
    pub(crate) score: f64,
    /// Its trained tokens.
    pub(crate) ids: Vec<u32>,
    /// log π of each, in nats, if they were asked for; a reward model has none.
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
pub(crate) struct Scorer<'a, M = CausalLmConfig> {
    args: &'a RowArgs,
    front: TextFrontEnd<M>,
    params: Params,
    rows: Vec<Tokens>,
    /// What became of the rows of the data.
    pub(crate) report: DataReport,
}

/// Whether a model says how good texts are: a reward model's folder, or an adapter that brings a reward model's head.
pub(crate) fn is_reward_model(model: &Path, adapter: Option<&Path>, ctx: &Context) -> Outcome<bool> {
    if RewardModelConfig::is_in(model)? {
        return Ok(true);
    }
    let adapter = adapter.map(|path| Ok::<_, Failure>(Lora::load(path, &ctx.device()?)?)).transpose()?;
    Ok(adapter.is_some_and(|lora| lora.has_whole(SCORE)))
}

/// A reward model: a folder, or an adapter over a language model's.
pub(crate) fn open_reward_model(
    model: &Path,
    adapter: Option<&Path>,
    ctx: &Context,
) -> Outcome<(RewardFrontEnd, Params)> {
    let device = ctx.device()?;
    // The head that a language model gets here is not used: the adapter brings its own.
    let (front, params) = RewardFrontEnd::open_reward_model(model, &device, None, 0)?;
    Ok((front, adapted(params, adapter, ctx)?))
}

fn adapted(params: Params, adapter: Option<&Path>, ctx: &Context) -> Outcome<Params> {
    Ok(match adapter {
        Some(adapter) => params.with_lora(Lora::load(adapter, &ctx.device()?)?)?,
        None => params,
    })
}

impl<'a> Scorer<'a> {
    /// Opens a language model with an adapter, if there is one, and tokenizes the rows for it.
    pub(crate) fn open(
        model: &Path,
        adapter: Option<&Path>,
        args: &'a RowArgs,
        ctx: &Context,
    ) -> Outcome<Self> {
        let (front, params) = TextFrontEnd::open(model, &ctx.device()?)?;
        Self::with_rows(front, adapted(params, adapter, ctx)?, model, args)
    }
}

impl<'a> Scorer<'a, RewardModelConfig> {
    /// Opens a reward model with an adapter, if there is one, and tokenizes the rows for it.
    pub(crate) fn open_reward_model(
        model: &Path,
        adapter: Option<&Path>,
        args: &'a RowArgs,
        ctx: &Context,
    ) -> Outcome<Self> {
        let (front, params) = open_reward_model(model, adapter, ctx)?;
        Self::with_rows(front, params, model, args)
    }
}

impl<'a, M: TextModel> Scorer<'a, M> {
    fn with_rows(front: TextFrontEnd<M>, params: Params, model: &Path, args: &'a RowArgs) -> Outcome<Self> {
        let positions = front.max_positions();
        let max_length = args.max_length.map_or(positions, NonZeroUsize::get);
        if max_length > positions {
            let message = format!("--max-length {max_length}: {} has {positions} positions", model.display());
            return Err(Failure::usage(message));
        }
        let policy = args.policy(max_length);
        let records = read_text(&args.data)?.screened(policy.faulty_rows, &ImageLimits::default())?;
        let (front, rows, report) = match records {
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
            let scores = likelihood.logps.to_vec1::<f32>()?;
            if let Some(i) = scores.iter().position(|score| !score.is_finite()) {
                return Err(self.not_finite(self.rows[samples[i % samples.len()].row].row, scores[i]));
            }
            let token_logps = match likelihood.tokens.as_ref().filter(|_| per_token) {
                Some(tokens) => split(&tokens.scores.log_probs()?.to_vec1::<f32>()?, &tokens.counts),
                None => vec![Vec::new(); scores.len()],
            };
            let mut completions: Vec<_> = token_logps.into_iter().zip(scores).map(Some).collect();
            for (i, sample) in samples.iter().enumerate() {
                let tokens = &self.rows[sample.row];
                let sides = tokens.completions.iter().enumerate().map(|(side, ids)| {
                    let (token_logps, score) =
                        completions[side * samples.len() + i].take().unwrap_or_default();
                    ScoredCompletion { score: f64::from(score), ids: ids.clone(), token_logps }
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

    fn not_finite(&self, row: usize, score: f32) -> Failure {
        let (data, what) = (self.args.data.display(), M::SCORE);
        Failure::new(Code::Numbers, format!("{data}: row {row}: its {what} is {score}"))
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
