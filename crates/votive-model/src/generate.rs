//! Text from a language model, token by token, for many prompts at once.
//!
//! Rows that end leave the batch; equal prompts are read once. What a row gets depends on its prompt and its number, not
//! on the rows beside it.

use crate::causal_lm::{CausalLm, check_ids};
use crate::error::{ModelError, Result};
use crate::image_tokens::ImageInput;
use crate::language::KvCache;
use crate::sampling::SamplingPolicy;
use candle_core::Tensor;
use rayon::prelude::*;
use std::ops::ControlFlow;
use votive_tensor::random::{Draws, Stream};

/// How tokens are chosen, and when to stop.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Most new tokens of a row.
    pub max_new_tokens: usize,
    /// Ids that end a row; the one that does is part of the result.
    pub stop: Vec<u32>,
    /// From logits to a token.
    pub policy: SamplingPolicy,
    /// Key of the draws.
    pub seed: u64,
    /// Number of the first prompt among all that are drawn with this seed, so that prompts may come in batches of any
    /// size. Only [`generate`] reads it.
    pub first_sample: u64,
}

impl GenerateOptions {
    /// The most probable token each time.
    #[must_use]
    pub fn greedy(max_new_tokens: usize, stop: Vec<u32>) -> Self {
        Self::sampled(max_new_tokens, stop, 0.0, 0)
    }

    /// Draws from the model's whole distribution at a temperature.
    #[must_use]
    pub fn sampled(max_new_tokens: usize, stop: Vec<u32>, temperature: f64, seed: u64) -> Self {
        Self { max_new_tokens, stop, policy: SamplingPolicy::at(temperature), seed, first_sample: 0 }
    }
}

/// What a model wrote after a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The new tokens, with the stop id if there is one.
    pub token_ids: Vec<u32>,
    /// Whether a stop id or the watcher ended it, and not the limit of tokens.
    pub finished: bool,
}

/// A prompt, and the number that keys its draws.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The prompt's tokens.
    pub prompt: &'a [u32],
    /// The images that its placeholders stand for, in their order.
    pub images: &'a [ImageInput],
    /// Number of the row among all that are drawn with the same seed, below 2⁴⁸.
    pub sample: u64,
}

/// Continues every prompt; the result of a prompt does not depend on the others.
///
/// Build the model on [`Params::untracked`](crate::Params::untracked): gradients of a generation are of no use.
///
/// # Errors
/// If a prompt is empty, has an id outside the vocabulary or leaves no room below the model's positions, an option is
/// out of range, or the model's logits are not numbers.
pub fn generate(
    model: &dyn CausalLm,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Generated>> {
    let requests: Vec<Request> = (options.first_sample..)
        .zip(prompts)
        .map(|(sample, prompt)| Request { prompt, images: &[], sample })
        .collect();
    generate_watched(model, &requests, options, &mut |_, _| Ok::<_, ModelError>(ControlFlow::Continue(())))
}

/// What is told of every new token, as (place of its request, id), and says whether that row goes on.
pub type Watcher<'a, E> = dyn FnMut(usize, u32) -> Result<ControlFlow<()>, E> + Send + 'a;

/// Continues every request, and tells `watch` of each token as it comes.
///
/// # Errors
/// Those of [`generate`], and those of `watch`.
pub fn generate_watched<E: From<ModelError> + Send>(
    model: &dyn CausalLm,
    requests: &[Request],
    options: &GenerateOptions,
    watch: &mut Watcher<E>,
) -> Result<Vec<Generated>, E> {
    options.policy.check()?;
    let rows = rows(model, requests, options)?;
    if requests.is_empty() || options.max_new_tokens == 0 {
        return Ok(rows.into_iter().map(|row| row.generated).collect());
    }
    // Within the pool of threads, so that not every operation of every token has to wake it from outside.
    rayon::scope(|_| run(model, rows, options, watch))
}

/// Logits of the token that follows each request's prompt, over the vocabulary.
///
/// # Errors
/// Those of [`generate`].
pub fn next_token_logits(model: &dyn CausalLm, requests: &[Request]) -> Result<Vec<Vec<f32>>> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let rows = rows(model, requests, &GenerateOptions::greedy(1, Vec::new()))?;
    Ok(prefill(model, &rows)?.1)
}

/// The state of every request before its first token.
fn rows<'a>(
    model: &dyn CausalLm,
    requests: &[Request<'a>],
    options: &GenerateOptions,
) -> Result<Vec<Row<'a>>> {
    let most = model.max_positions();
    let row = |(index, request): (usize, &Request<'a>)| {
        let room = most.saturating_sub(request.prompt.len());
        if request.prompt.is_empty() || room == 0 {
            return Err(ModelError::Tokens(format!(
                "prompt {index} has {} tokens; a model of {most} positions can continue 1 to {}",
                request.prompt.len(),
                most.saturating_sub(1)
            )));
        }
        let generated = Generated { token_ids: Vec::new(), finished: false };
        Ok(Row { index, request: *request, limit: options.max_new_tokens.min(room), generated })
    };
    let rows = requests.iter().enumerate().map(row).collect::<Result<Vec<_>>>()?;
    check_ids(requests.iter().map(|request| request.prompt), model.vocabulary())?;
    Ok(rows)
}

struct Row<'a> {
    index: usize,
    request: Request<'a>,
    limit: usize,
    generated: Generated,
}

impl Row<'_> {
    /// Chooses the next token.
    fn extend(&mut self, logits: &[f32], options: &GenerateOptions) -> Result<()> {
        let step = self.generated.token_ids.len();
        let mut draws = Draws::new(options.seed, Stream::Sampling, step as u64, self.request.sample);
        let seen = match options.policy.repetition_penalty == 1.0 {
            true => Vec::new(),
            false => [self.request.prompt, &self.generated.token_ids].concat(),
        };
        let what = || format!("logits of prompt {}, new token {step}", self.index);
        let id = options.policy.choose(logits, &seen, &mut draws, what)?;
        self.generated.token_ids.push(id);
        self.generated.finished = options.stop.contains(&id);
        Ok(())
    }

    fn last(&self) -> u32 {
        self.generated.token_ids.last().copied().unwrap_or_default()
    }

    fn is_done(&self) -> bool {
        self.generated.finished || self.generated.token_ids.len() >= self.limit
    }
}

/// The decoding loop: the cache holds exactly the rows in `active`, in that order.
fn run<E: From<ModelError>>(
    model: &dyn CausalLm,
    mut active: Vec<Row>,
    options: &GenerateOptions,
    watch: &mut Watcher<E>,
) -> Result<Vec<Generated>, E> {
    let (mut cache, mut logits) = prefill(model, &active)?;
    let mut done = Vec::with_capacity(active.len());
    loop {
        let chosen =
            active.par_iter_mut().zip(&logits).try_for_each(|(row, logits)| row.extend(logits, options));
        chosen.map_err(E::from)?;
        for row in &mut active {
            row.generated.finished |= watch(row.index, row.last())?.is_break();
        }
        let going: Vec<u32> =
            (0..).zip(&active).filter(|(_, row)| !row.is_done()).map(|(place, _)| place).collect();
        if going.len() < active.len() {
            let (ended, left) = active.into_iter().partition(Row::is_done);
            done.extend::<Vec<Row>>(ended);
            active = left;
            if active.is_empty() {
                break;
            }
            cache.keep_rows(&going)?;
        }
        logits = next(model, active.iter().map(Row::last).collect(), &mut cache)?;
    }
    done.sort_unstable_by_key(|row| row.index);
    Ok(done.into_iter().map(|row| row.generated).collect())
}

/// Reads the prompts, each distinct one once: a cache with a row for each of `rows`, and their first logits.
fn prefill(model: &dyn CausalLm, rows: &[Row]) -> Result<(KvCache, Vec<Vec<f32>>)> {
    let prompts: Vec<Vec<u32>> = rows.iter().map(|row| row.request.prompt.to_vec()).collect();
    let images: Vec<Vec<ImageInput>> = rows.iter().map(|row| row.request.images.to_vec()).collect();
    let seen = model.see(&prompts, &images)?;
    let mut distinct: Vec<&[u32]> = Vec::new();
    let mut places: Vec<u32> = Vec::with_capacity(rows.len());
    for prompt in &seen.rows {
        let known = distinct.iter().position(|other| *other == prompt);
        places.push(known.unwrap_or(distinct.len()) as u32);
        if known.is_none() {
            distinct.push(prompt);
        }
    }
    let longest = distinct.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    let steps = rows.iter().map(|row| row.limit).max().unwrap_or(0);
    let padding: Vec<usize> = distinct.iter().map(|prompt| longest - prompt.len()).collect();
    let padded = |(prompt, padding): (&&[u32], &usize)| [&vec![0; *padding], *prompt].concat();
    let ids: Vec<u32> = distinct.iter().zip(&padding).flat_map(padded).collect();
    let ids = Tensor::from_vec(ids, (distinct.len(), longest), model.device())?;
    // The last new token is never read.
    let mut cache = model.cache(padding, longest + steps - 1)?.with_images(seen.images);
    let logits = model.next_logits(&ids, &mut cache)?.to_vec2()?;
    if distinct.len() < rows.len() {
        cache.keep_rows(&places)?;
    }
    Ok((cache, places.into_iter().map(|place| logits[place as usize].clone()).collect()))
}

/// Logits after one more token of every row.
fn next(model: &dyn CausalLm, last: Vec<u32>, cache: &mut KvCache) -> Result<Vec<Vec<f32>>> {
    let rows = last.len();
    let ids = Tensor::from_vec(last, (rows, 1), model.device())?;
    Ok(model.next_logits(&ids, cache)?.to_vec2()?)
}
