//! Text from a language model, token by token, for many prompts at once.
//!
//! Source of the filters: top-p is Holtzman et al., arXiv:1904.09751; order and ties as in transformers' `generate`:
//! temperature, then top-k, then top-p.

use crate::causal_lm::{CausalLm, check_ids};
use crate::error::{ModelError, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use votive_tensor::random::{Draws, Stream};

/// How tokens are chosen, and when to stop.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Most new tokens of a row.
    pub max_new_tokens: usize,
    /// Ids that end a row; the one that does is part of the result.
    pub stop: Vec<u32>,
    /// 0 takes the most probable token (of several the lowest id); otherwise logits are divided by it.
    pub temperature: f64,
    /// Draws only from that many most probable tokens.
    pub top_k: Option<usize>,
    /// Draws only from the fewest most probable tokens that together reach this probability.
    pub top_p: Option<f64>,
    /// Key of the draws.
    pub seed: u64,
    /// Number of the first prompt among all that are drawn with this seed, so that prompts may come in batches of any
    /// size.
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
        Self { max_new_tokens, stop, temperature, top_k: None, top_p: None, seed, first_sample: 0 }
    }

    fn check(&self) -> Result<()> {
        let wrong = |option: &str, expected: &str, found: String| {
            Err(ModelError::Tokens(format!("{option}: expected {expected}, found {found}")))
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong("temperature", "0 or more", self.temperature.to_string());
        }
        if self.top_k == Some(0) {
            return wrong("top_k", "1 or more", "0".to_owned());
        }
        match self.top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => wrong("top_p", "above 0 and at most 1", p.to_string()),
            _ => Ok(()),
        }
    }

    /// Chooses the new token with number `step` of a prompt.
    fn choose(&self, logits: &[f32], step: usize, prompt: usize) -> Result<u32> {
        if logits.iter().any(|logit| logit.is_nan()) {
            let what = format!("logits of prompt {prompt}, new token {step}");
            return Err(ModelError::NotANumber { what });
        }
        if self.temperature == 0.0 {
            return Ok(largest(logits) as u32);
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        if let Some(k) = self.top_k.filter(|k| *k < logits.len()) {
            order.select_nth_unstable_by(k, |a, b| by_logit(logits, *a, *b));
            order.truncate(k);
        }
        let most = f64::from(logits[largest(logits)]);
        let weight = |id: &usize| ((f64::from(logits[*id]) - most) / self.temperature).exp();
        if let Some(p) = self.top_p.filter(|p| *p < 1.0) {
            order.sort_unstable_by(|a, b| by_logit(logits, *a, *b));
            let total: f64 = order.iter().map(weight).sum();
            let mut before = 0.0;
            let enough = order.iter().take_while(|id| {
                let needed = before < p * total;
                before += weight(id);
                needed
            });
            let enough = enough.count().max(1);
            order.truncate(enough);
        } else {
            order.sort_unstable();
        }
        let weights: Vec<f64> = order.iter().map(weight).collect();
        let sample = self.first_sample + prompt as u64;
        let mut draws = Draws::new(self.seed, Stream::Sampling, step as u64, sample);
        Ok(order[draws.weighted(&weights)] as u32)
    }
}

/// Larger logits first; equal ones by id, so that the order does not depend on the sort.
fn by_logit(logits: &[f32], a: usize, b: usize) -> std::cmp::Ordering {
    logits[b].total_cmp(&logits[a]).then(a.cmp(&b))
}

/// Index of the largest number, of several the lowest.
fn largest(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (index, value)| if *value > values[best] { index } else { best })
}

/// What a model wrote after a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The new tokens, with the stop id if there is one.
    pub token_ids: Vec<u32>,
    /// Whether a stop id ended it, and not the limit of tokens.
    pub finished: bool,
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
    options.check()?;
    check_ids(prompts, model.vocabulary())?;
    let mut rows = Vec::with_capacity(prompts.len());
    for (row, prompt) in prompts.iter().enumerate() {
        let room = model.max_positions().saturating_sub(prompt.len());
        if prompt.is_empty() || room == 0 {
            return Err(ModelError::Tokens(format!(
                "prompt {row} has {} tokens; a model of {} positions can continue 1 to {}",
                prompt.len(),
                model.max_positions(),
                model.max_positions().saturating_sub(1)
            )));
        }
        let limit = options.max_new_tokens.min(room);
        rows.push(Row { index: row, limit, generated: Generated { token_ids: Vec::new(), finished: false } });
    }
    if prompts.is_empty() || options.max_new_tokens == 0 {
        return Ok(rows.into_iter().map(|row| row.generated).collect());
    }
    run(model, prompts, rows, options)
}

struct Row {
    index: usize,
    limit: usize,
    generated: Generated,
}

impl Row {
    fn push(&mut self, id: u32, stop: &[u32]) {
        self.generated.token_ids.push(id);
        self.generated.finished = stop.contains(&id);
    }

    fn is_done(&self) -> bool {
        self.generated.finished || self.generated.token_ids.len() >= self.limit
    }
}

/// The decoding loop: the cache holds exactly the rows in `active`, in that order.
fn run(
    model: &dyn CausalLm,
    prompts: &[Vec<u32>],
    mut active: Vec<Row>,
    options: &GenerateOptions,
) -> Result<Vec<Generated>> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let padding: Vec<usize> = prompts.iter().map(|prompt| longest - prompt.len()).collect();
    let padded = |(prompt, padding): (&Vec<u32>, &usize)| [vec![0; *padding], prompt.clone()].concat();
    let padded: Vec<u32> = prompts.iter().zip(&padding).flat_map(padded).collect();
    let mut ids = Tensor::from_vec(padded, (prompts.len(), longest), model.device())?;
    let steps = active.iter().map(|row| row.limit).max().unwrap_or(0);
    // The last new token is never read.
    let mut cache = model.cache(padding, longest + steps - 1)?;
    let mut done = Vec::with_capacity(prompts.len());
    for step in 0..steps {
        let logits = model.next_logits(&ids, &mut cache)?.to_vec2::<f32>()?;
        active.par_iter_mut().zip(&logits).try_for_each(|(row, logits)| {
            row.push(options.choose(logits, step, row.index)?, &options.stop);
            Ok::<_, ModelError>(())
        })?;
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
        let last: Vec<u32> =
            active.iter().filter_map(|row| row.generated.token_ids.last().copied()).collect();
        ids = Tensor::from_vec(last, (active.len(), 1), model.device())?;
    }
    done.sort_unstable_by_key(|row| row.index);
    Ok(done.into_iter().map(|row| row.generated).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn options(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> GenerateOptions {
        GenerateOptions { top_k, top_p, ..GenerateOptions::sampled(1, vec![], temperature, 7) }
    }

    /// How often each token is chosen in many draws.
    fn shares(logits: &[f32], options: &GenerateOptions) -> Vec<f64> {
        const DRAWS: usize = 20_000;
        let mut counts = vec![0usize; logits.len()];
        (0..DRAWS).for_each(|step| counts[options.choose(logits, step, 3).unwrap() as usize] += 1);
        counts.into_iter().map(|n| n as f64 / DRAWS as f64).collect()
    }

    #[track_caller]
    fn check(logits: &[f32], options: &GenerateOptions, expected: &[f64]) {
        let found = shares(logits, options);
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 0.015, "{found:?}, expected {expected:?}");
    }

    #[test]
    fn the_most_probable_token_of_several_the_first() {
        assert_eq!(options(0.0, None, None).choose(&[1.0, 3.0, 3.0, -1.0], 0, 0).unwrap(), 1);
        assert!(options(1.0, None, None).choose(&[1.0, f32::NAN], 0, 0).is_err());
    }

    #[test]
    fn filters_keep_what_they_say() {
        // Probabilities 0.1, 0.5, 0.1, 0.3.
        let logits = [0.1f32, 0.5, 0.1, 0.3].map(f32::ln);
        check(&logits, &options(1.0, None, None), &[0.1, 0.5, 0.1, 0.3]);
        check(&logits, &options(1.0, Some(2), None), &[0.0, 0.625, 0.0, 0.375]);
        check(&logits, &options(1.0, None, Some(0.4)), &[0.0, 1.0, 0.0, 0.0]);
        check(&logits, &options(1.0, None, Some(0.6)), &[0.0, 0.625, 0.0, 0.375]);
        // Of two equal tokens the first one is kept.
        check(&logits, &options(1.0, None, Some(0.85)), &[1.0 / 9.0, 5.0 / 9.0, 0.0, 3.0 / 9.0]);
        // Temperature ½ squares probabilities; top-k comes before top-p, which sees what is left.
        check(&logits, &options(0.5, None, None), &[1.0 / 36.0, 25.0 / 36.0, 1.0 / 36.0, 9.0 / 36.0]);
        check(&logits, &options(1.0, Some(2), Some(0.6)), &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for bad in [options(-1.0, None, None), options(f64::NAN, None, None), options(1.0, Some(0), None)] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(options(1.0, None, Some(0.0)).check().is_err());
    }
}
