//! How the next token is chosen: a pure function of logits, of the tokens so far, and of one random number.
//!
//! The steps, their order and their arithmetic are those of transformers' logits processors (5.23): repetition penalty,
//! temperature, top-k, top-p, min-p. Source: repetition penalty: Keskar et al., arXiv:1909.05858; top-p: Holtzman et al.,
//! arXiv:1904.09751; min-p: Nguyen et al., arXiv:2407.01082.
//!
//! Departure: what lies exactly on top-p's border is decided in f64, and of equal logits there the lowest ids are kept.

use crate::error::{ModelError, Result};
use votive_tensor::random::Draws;

/// From logits to a token.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingPolicy {
    /// 0 takes the most probable token (of several the lowest id); otherwise logits are divided by it.
    pub temperature: f64,
    /// Draws only from that many most probable tokens, and from those that equal the last of them.
    pub top_k: Option<usize>,
    /// Draws only from the fewest most probable tokens that together reach this probability.
    pub top_p: Option<f64>,
    /// Draws only from tokens that have at least this share of the most probable token's probability.
    pub min_p: Option<f64>,
    /// Divides positive logits of tokens that occurred already, and multiplies negative ones; 1 changes nothing.
    pub repetition_penalty: f64,
}

impl SamplingPolicy {
    /// The most probable token.
    #[must_use]
    pub fn greedy() -> Self {
        Self::at(0.0)
    }

    /// Draws from the model's whole distribution at a temperature.
    #[must_use]
    pub fn at(temperature: f64) -> Self {
        Self { temperature, top_k: None, top_p: None, min_p: None, repetition_penalty: 1.0 }
    }

    /// Whether nothing is drawn.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// The first option that is out of its range, and what was expected.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let is_share = |p: f64| p > 0.0 && p <= 1.0;
        let rules = [
            ("temperature", "0 or more", (0.0..f64::INFINITY).contains(&self.temperature)),
            ("top_k", "1 or more", self.top_k != Some(0)),
            ("top_p", "more than 0 and at most 1", self.top_p.is_none_or(is_share)),
            ("min_p", "0 to 1", self.min_p.is_none_or(|p| (0.0..=1.0).contains(&p))),
            (
                "repetition_penalty",
                "more than 0",
                self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite(),
            ),
        ];
        rules.into_iter().find(|(_, _, fits)| !fits).map(|(option, expected, _)| (option, expected))
    }

    /// Checks that every number is in its range.
    ///
    /// # Errors
    /// If one is not, with its name.
    pub fn check(&self) -> Result<()> {
        match self.problem() {
            Some((option, expected)) => Err(ModelError::Tokens(format!("{option}: expected {expected}"))),
            None => Ok(()),
        }
    }

    /// What is drawn from: the logits after every step, −∞ where a token is ruled out.
    ///
    /// `seen` are the tokens of the row so far, prompt included.
    #[must_use]
    pub fn process(&self, logits: &[f32], seen: &[u32]) -> Vec<f32> {
        let mut scores = logits.to_vec();
        self.penalize(&mut scores, seen);
        if self.is_greedy() {
            return scores;
        }
        if self.temperature != 1.0 {
            let temperature = self.temperature as f32;
            scores.iter_mut().for_each(|score| *score /= temperature);
        }
        self.keep_top_k(&mut scores);
        self.keep_top_p(&mut scores);
        self.keep_min_p(&mut scores);
        scores
    }

    /// Chooses a token; `draws` is used once, and only if something is drawn.
    ///
    /// # Errors
    /// If no token is possible: a logit is NaN, or infinite where it decides. `what` says whose they are.
    pub fn choose(
        &self,
        logits: &[f32],
        seen: &[u32],
        draws: &mut Draws,
        what: impl Fn() -> String,
    ) -> Result<u32> {
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(ModelError::NotANumber { what: what() });
        }
        if self.is_greedy() && self.repetition_penalty == 1.0 {
            return Ok(largest(logits) as u32);
        }
        let scores = self.process(logits, seen);
        let best = largest(&scores);
        if self.is_greedy() {
            return Ok(best as u32);
        }
        let most = f64::from(scores[best]);
        let weights: Vec<f64> = scores.iter().map(|score| (f64::from(*score) - most).exp()).collect();
        match weights.iter().sum::<f64>().is_finite() {
            true => Ok(draws.weighted(&weights) as u32),
            false => Err(ModelError::NotANumber { what: what() }),
        }
    }

    fn penalize(&self, scores: &mut [f32], seen: &[u32]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let penalty = self.repetition_penalty as f32;
        let mut distinct = seen.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        for id in distinct {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
            }
        }
    }

    fn keep_top_k(&self, scores: &mut [f32]) {
        let Some(k) = self.top_k.filter(|k| (1..scores.len()).contains(k)) else { return };
        let mut sorted = scores.to_vec();
        let (_, last, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        let last = *last;
        rule_out(scores, |score| score < last);
    }

    fn keep_top_p(&self, scores: &mut [f32]) {
        let Some(p) = self.top_p.filter(|p| *p < 1.0) else { return };
        let most = f64::from(scores[largest(scores)]);
        let weight = |score: f32| (f64::from(score) - most).exp();
        let mut order: Vec<usize> = (0..scores.len()).filter(|id| scores[*id] > f32::NEG_INFINITY).collect();
        order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        let total: f64 = order.iter().map(|id| weight(scores[*id])).sum();
        let mut before = 0.0;
        for (place, id) in order.into_iter().enumerate() {
            let own = weight(scores[id]);
            if place > 0 && before >= p * total {
                scores[id] = f32::NEG_INFINITY;
            }
            before += own;
        }
    }

    fn keep_min_p(&self, scores: &mut [f32]) {
        let Some(p) = self.min_p else { return };
        let best = largest(scores);
        let most = f64::from(scores[best]);
        rule_out(scores, |score| (f64::from(score) - most).exp() < p);
    }
}

fn rule_out(scores: &mut [f32], condition: impl Fn(f32) -> bool) {
    scores.iter_mut().filter(|score| condition(**score)).for_each(|score| *score = f32::NEG_INFINITY);
}

/// Index of the largest number, of several the lowest.
fn largest(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (index, value)| if *value > values[best] { index } else { best })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use votive_tensor::random::Stream;

    fn choose(policy: &SamplingPolicy, logits: &[f32], step: u64) -> u32 {
        let mut draws = Draws::new(7, Stream::Sampling, step, 3);
        policy.choose(logits, &[], &mut draws, String::new).unwrap()
    }

    /// How often each token is chosen in many draws.
    fn shares(policy: &SamplingPolicy, logits: &[f32]) -> Vec<f64> {
        const DRAWS: u64 = 20_000;
        let mut counts = vec![0usize; logits.len()];
        (0..DRAWS).for_each(|step| counts[choose(policy, logits, step) as usize] += 1);
        counts.into_iter().map(|n| n as f64 / DRAWS as f64).collect()
    }

    #[track_caller]
    fn check(policy: &SamplingPolicy, logits: &[f32], expected: &[f64]) {
        let found = shares(policy, logits);
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 0.015, "{found:?}, expected {expected:?}");
    }

    fn filters(top_k: Option<usize>, top_p: Option<f64>, min_p: Option<f64>) -> SamplingPolicy {
        SamplingPolicy { top_k, top_p, min_p, ..SamplingPolicy::at(1.0) }
    }

    #[test]
    fn the_most_probable_token_of_several_the_first() {
        assert_eq!(choose(&SamplingPolicy::greedy(), &[1.0, 3.0, 3.0, -1.0], 0), 1);
    }

    #[test]
    fn filters_keep_what_they_say() {
        // Probabilities 0.1, 0.5, 0.1, 0.3.
        let logits = [0.1f32, 0.5, 0.1, 0.3].map(f32::ln);
        check(&filters(None, None, None), &logits, &[0.1, 0.5, 0.1, 0.3]);
        check(&filters(Some(2), None, None), &logits, &[0.0, 0.625, 0.0, 0.375]);
        // The third most probable has an equal, which stays with it.
        check(&filters(Some(3), None, None), &logits, &[0.1, 0.5, 0.1, 0.3]);
        check(&filters(None, Some(0.4), None), &logits, &[0.0, 1.0, 0.0, 0.0]);
        check(&filters(None, Some(0.6), None), &logits, &[0.0, 0.625, 0.0, 0.375]);
        // Of two equal tokens on the border the first one is kept.
        check(&filters(None, Some(0.85), None), &logits, &[1.0 / 9.0, 5.0 / 9.0, 0.0, 3.0 / 9.0]);
        check(&filters(None, None, Some(0.5)), &logits, &[0.0, 0.625, 0.0, 0.375]);
        check(&filters(None, None, Some(1.0)), &logits, &[0.0, 1.0, 0.0, 0.0]);
        // Temperature ½ squares probabilities; top-k comes before top-p, which sees what is left.
        check(&SamplingPolicy::at(0.5), &logits, &[1.0 / 36.0, 25.0 / 36.0, 1.0 / 36.0, 9.0 / 36.0]);
        check(&filters(Some(2), Some(0.6), None), &logits, &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn what_occurred_already_becomes_less_probable_once_however_often_it_occurred() {
        let policy = SamplingPolicy { repetition_penalty: 2.0, ..SamplingPolicy::greedy() };
        assert_eq!(policy.process(&[3.0, -1.0, 2.0, 0.5], &[0, 1, 0, 0, 9]), [1.5, -2.0, 2.0, 0.5]);
        let mut draws = Draws::new(0, Stream::Sampling, 0, 0);
        assert_eq!(policy.choose(&[3.0, -1.0, 2.0, 0.5], &[0], &mut draws, String::new).unwrap(), 2);
    }

    /// Laws of every policy: some token is always left, the most probable one is among them, stricter options keep a
    /// part of what laxer ones keep, and adding a constant to all logits changes nothing that is kept.
    #[test]
    fn laws() {
        for salt in 0..40 {
            let logits: Vec<f32> =
                Draws::new(salt, Stream::World, 0, 0).normals(50).iter().map(|x| x * 3.0).collect();
            let kept = |policy: &SamplingPolicy, logits: &[f32]| -> Vec<bool> {
                policy.process(logits, &[]).iter().map(|score| score.is_finite()).collect()
            };
            let steps = [
                [0.05, 0.3, 0.9].map(|p| filters(None, Some(p), None)),
                [40, 9, 1].map(|k| filters(Some(51 - k), None, None)),
                [0.9, 0.2, 0.01].map(|p| filters(None, None, Some(p))),
                [1.0, 2.0, 4.0].map(|t| SamplingPolicy { temperature: t, ..filters(None, Some(0.8), None) }),
            ];
            for [strict, middle, lax] in &steps {
                let [a, b, c] = [strict, middle, lax].map(|policy| kept(policy, &logits));
                assert!(a[largest(&logits)]);
                assert!((0..50).all(|id| (!a[id] || b[id]) && (!b[id] || c[id])), "{strict:?}, {lax:?}");
                let shifted: Vec<f32> = logits.iter().map(|logit| logit + 8.0).collect();
                assert_eq!(kept(middle, &shifted), b);
            }
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        let refused = |policy: SamplingPolicy, name: &str| {
            assert!(policy.check().unwrap_err().to_string().contains(name), "{policy:?}");
        };
        refused(SamplingPolicy::at(-1.0), "temperature");
        refused(SamplingPolicy::at(f64::NAN), "temperature");
        refused(SamplingPolicy::at(f64::INFINITY), "temperature");
        refused(filters(Some(0), None, None), "top_k");
        refused(filters(None, Some(0.0), None), "top_p");
        refused(filters(None, None, Some(1.5)), "min_p");
        refused(SamplingPolicy { repetition_penalty: 0.0, ..SamplingPolicy::greedy() }, "repetition_penalty");
        filters(Some(1), Some(1.0), Some(0.0)).check().unwrap();
    }

    #[test]
    fn logits_that_are_no_numbers_are_no_tokens() {
        let policy = SamplingPolicy::at(1.0);
        let mut draws = Draws::new(0, Stream::Sampling, 0, 0);
        for logits in [[1.0, f32::NAN], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
            let message = policy.choose(&logits, &[], &mut draws, || "prompt 3".to_owned()).unwrap_err();
            assert!(message.to_string().contains("prompt 3"), "{message}");
        }
    }
}
