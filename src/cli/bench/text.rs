//! The work on language models.

use super::laps::Laps;
use super::update::{RANK, Sides, Update};
use super::{GenerateArgs, Measured, TextStepArgs};
use crate::cli::prompts;
use crate::cli::text_model::TextModel;
use crate::cli::{Context, Failure, Outcome};
use serde_json::json;
use std::path::Path;
use votive_data::{DataOrder, RowPolicy, TextTokenizer, TokenizedPair, Traversal, read_pairs};
use votive_model::{GenerateOptions, LoraConfig};
use votive_tensor::random::{Draws, Stream};
use votive_train::front_end::{FrontEnd, Sample, TextFrontEnd};

const BETA: f64 = 0.1;
const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// DPO steps over the pairs of a file, in its order.
pub(super) fn step(args: &TextStepArgs, ctx: &Context) -> Outcome<Measured> {
    let TextStepArgs { step: args, data, prompt_tokens, completion_tokens } = args;
    let (front, params) = TextFrontEnd::open(&args.model, &ctx.device()?)?;
    let pairs = match data {
        Some(file) => read(&front, file)?,
        None => {
            let (lengths, vocabulary) =
                ([prompt_tokens.get(), completion_tokens.get()], front.config().vocab_size());
            (0..args.batch.get() as u64).map(|row| random_pair(row, lengths, vocabulary)).collect()
        }
    };
    let front = front.with_pairs(pairs);

    let targets = TARGETS.map(str::to_owned).to_vec();
    let sides = Sides::new(params, args.mode, LoraConfig::new(RANK, 2.0 * RANK as f64, targets))?;
    let (policy, reference) = (front.network(&sides.policy)?, front.network(&sides.reference)?);
    let mut update = Update::new(&sides.policy, BETA, 0.0);

    let order = DataOrder::new(0, front.rows(), args.batch.get(), Traversal::Sequential);
    let progress = ctx.output.progress("measuring", "steps", args.steps.get() as u64);
    let (mut laps, mut losses, mut tokens) = (Laps::default(), Vec::new(), Vec::new());
    for step in 0..args.steps.get() as u64 {
        let rows = order.indices(step).into_iter().enumerate();
        let samples: Vec<Sample> = rows.map(|(position, row)| Sample { row, position }).collect();
        losses.push(laps.lap(|| -> Outcome<f64> {
            let batch = front.batch(step, &samples)?;
            tokens.push(batch.tokens().lengths.iter().sum::<usize>());
            let reference_logps = front.logps(&reference, &batch)?.detach();
            let loss = update.add(&front.logps(&policy, &batch)?, &reference_logps, samples.len())?;
            update.finish()?;
            Ok(loss)
        })?);
        progress.set(step + 1);
    }
    progress.finish();
    let details = json!({
        "mode": args.mode.name(),
        "batch": args.batch,
        "trainable_params": update.count(),
        "tokens": tokens,
        "losses": losses,
    });
    Ok(Measured { bench: "text-step", laps, details })
}

fn read(front: &TextFrontEnd, file: &Path) -> Outcome<Vec<TokenizedPair>> {
    let policy = RowPolicy { max_length: Some(front.max_positions()), ..RowPolicy::default() };
    Ok(front.tokenizer().tokenize_pairs(&read_pairs(file)?, policy)?.0)
}

/// Tokens of a random prompt that is completed: the mean of the peers' data, and the default of a step's.
const PROMPT: usize = 128;

fn random_pair(row: u64, [prompt, completion]: [usize; 2], vocabulary: usize) -> TokenizedPair {
    let ids = |part, n| random_ids(row, part, n, vocabulary);
    let (chosen_ids, rejected_ids) = (ids(1, completion), ids(2, completion));
    TokenizedPair {
        prompt_ids: ids(0, prompt),
        chosen_ids,
        rejected_ids,
        row: row as usize + 1,
        ..TokenizedPair::default()
    }
}

fn random_ids(row: u64, part: u64, n: usize, vocabulary: usize) -> Vec<u32> {
    let mut draws = Draws::new(0, Stream::World, part, row);
    (0..n).map(|_| draws.below(vocabulary) as u32).collect()
}

fn first_prompts(tokenizer: &TextTokenizer, file: &Path, n: usize) -> Outcome<Vec<Vec<u32>>> {
    let prompts = prompts::read_file(file)?;
    let Some(prompts) = prompts.get(..n) else {
        let found = prompts.len();
        return Err(Failure::data(format!("{}: {found} prompts, expected at least {n}", file.display())));
    };
    prompts.iter().map(|prompt| Ok(tokenizer.encode(prompt, true)?)).collect()
}

/// Greedy completions, with every token that was asked for.
pub(super) fn generate(args: &GenerateArgs, ctx: &Context) -> Outcome<Measured> {
    let model = TextModel::load(&args.model, None, &ctx.device()?)?;
    let ids = match &args.data {
        Some(file) => first_prompts(&model.tokenizer, file, args.batch.get())?,
        None => (0..args.batch.get() as u64)
            .map(|row| random_ids(row, 0, PROMPT, model.tokenizer.vocab_size()))
            .collect(),
    };
    let options = GenerateOptions::greedy(args.new_tokens.get(), Vec::new());
    let progress = ctx.output.progress("measuring", "steps", args.steps.get() as u64);
    let (mut laps, mut n_new) = (Laps::default(), 0);
    for step in 0..args.steps.get() as u64 {
        let completions = laps.lap(|| votive_model::generate(&model.network, &ids, &options))?;
        n_new = completions.iter().map(|completion| completion.token_ids.len()).sum();
        progress.set(step + 1);
    }
    progress.finish();
    let details = json!({
        "batch": args.batch,
        "prompt_width": ids.iter().map(Vec::len).max(),
        "new_tokens": n_new,
    });
    Ok(Measured { bench: "generate", laps, details })
}
