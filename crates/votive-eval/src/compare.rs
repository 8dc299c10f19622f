//! Two sets of images that were drawn of the same prompts from the same seeds: which is better, how often, by how much.
//!
//! The unit is the prompt: images of one prompt are no independent draws, so they count together.

use crate::gain::{Interval, Share, bootstrap_mean, proportion};
use serde::Serialize;
use std::collections::BTreeMap;

/// A mean over prompts with its 95 % interval, in the units of the score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// Mean over prompts of the means over their images.
    pub value: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Prompts.
    pub n: usize,
}

/// How often one set is better than the other, image by image at the same prompt and seed, in points of 100.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Images with a higher score. A tie is no win.
    pub win: Share,
    /// Images with a lower score.
    pub loss: Share,
    /// Images with an equal score.
    pub tie: Share,
    /// Mean of the differences, first set minus second.
    pub difference: Mean,
}

/// The mean of scores over prompts; `prompts[i]` is the prompt of score i.
///
/// The interval is a percentile bootstrap over prompts.
#[must_use]
pub fn mean_over_prompts<S: AsRef<str>>(prompts: &[S], scores: &[f64], seed: u64) -> Mean {
    let means = by_prompt(prompts, scores);
    let Interval { value, low, high } = bootstrap_mean(&means, seed);
    Mean { value, low, high, n: means.len() }
}

/// Compares scores of the same prompts and seeds; larger is better.
///
/// The intervals of the shares are Wilson's over prompts, of each of which the share of its images counts. With one image a
/// prompt that is the usual interval; with several it is never too narrow, because a share of images varies no more than
/// one image.
#[must_use]
pub fn compare<S: AsRef<str>>(prompts: &[S], scores: &[f64], against: &[f64], seed: u64) -> Comparison {
    let differences: Vec<f64> = scores.iter().zip(against).map(|(a, b)| a - b).collect();
    let share = |counts: fn(f64) -> bool| {
        let hits: Vec<f64> = differences.iter().map(|d| f64::from(u8::from(counts(*d)))).collect();
        proportion(&by_prompt(prompts, &hits))
    };
    Comparison {
        win: share(|difference| difference > 0.0),
        loss: share(|difference| difference < 0.0),
        tie: share(|difference| difference == 0.0),
        difference: mean_over_prompts(prompts, &differences, seed),
    }
}

/// The mean of each prompt's numbers, ordered by prompt.
fn by_prompt<S: AsRef<str>>(prompts: &[S], numbers: &[f64]) -> Vec<f64> {
    let mut groups: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for (prompt, number) in prompts.iter().zip(numbers) {
        let (sum, n) = groups.entry(prompt.as_ref()).or_default();
        *sum += number;
        *n += 1;
    }
    groups.into_values().map(|(sum, n)| sum / n as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wins_ties_and_losses_are_counted_by_prompt() {
        // "a": one win, one loss; "b": two ties. Two prompts, not four images.
        let (prompts, scores) = (["a", "a", "b", "b"], [2.0, 1.0, 5.0, 5.0]);
        let found = compare(&prompts, &scores, &[1.0, 3.0, 5.0, 5.0], 7);
        assert_eq!((found.win.value, found.loss.value, found.tie.value), (25.0, 25.0, 50.0));
        assert_eq!((found.win.n, found.difference.n), (2, 2));
        // Prompt "a" loses half a point on average, "b" none.
        assert_eq!(found.difference.value, -0.25);
        assert!(found.difference.low == -0.5 && found.difference.high == 0.0, "{found:?}");
    }

    #[test]
    fn one_image_a_prompt_has_the_interval_of_counted_prompts() {
        let prompts: Vec<String> = (0..50).map(|i| i.to_string()).collect();
        let scores: Vec<f64> = (0..50).map(|i| f64::from(u8::from(i < 30))).collect();
        let found = compare(&prompts, &scores, &[0.5; 50], 1);
        let hits: Vec<bool> = (0..50).map(|i| i < 30).collect();
        assert_eq!(found.win, crate::share(&hits));
        assert_eq!(found.tie.value, 0.0);
    }

    #[test]
    fn a_mean_counts_every_prompt_once() {
        let mean = mean_over_prompts(&["a", "b", "b", "b"], &[1.0, 3.0, 3.0, 3.0], 1);
        assert_eq!((mean.value, mean.n), (2.0, 2));
        assert!(mean.low == 1.0 && mean.high == 3.0, "{mean:?}");
    }
}
