//! Agreement of two judges of the same pairs: how often, and how much more often than by chance.

use crate::gain::{Share, share};
use serde::Serialize;
use votive_critic::{Winner, cohens_kappa};
use votive_tensor::random::{Draws, Stream};

const RESAMPLES: u64 = 2000;

/// How a judge agrees with another, or with the truth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Pairs on which both say the same, among those that the judge decides.
    pub accuracy: Share,
    /// Pairs that the judge decides, among all.
    pub decided: Share,
    /// Cohen's kappa over the pairs that it decides.
    pub kappa: Kappa,
}

/// Cohen's kappa with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Kappa {
    /// (observed − by chance) / (1 − by chance): 1 is perfect, 0 what chance gives, or where there is nothing to compare.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Compares a judge's verdicts with others'; `None` is an abstention of the judge.
///
/// Intervals of shares are Wilson's, that of kappa a percentile bootstrap over pairs.
#[must_use]
pub fn agreement(verdicts: &[Option<Winner>], truth: &[Winner], seed: u64) -> Agreement {
    let pairs = verdicts.iter().zip(truth);
    let decided: Vec<(Winner, Winner)> =
        pairs.filter_map(|(verdict, truth)| Some(((*verdict)?, *truth))).collect();
    let hits: Vec<bool> = decided.iter().map(|(verdict, truth)| verdict == truth).collect();
    let is_decided: Vec<bool> = verdicts.iter().map(Option::is_some).collect();
    let resampled = |i: u64| {
        let mut draws = Draws::new(seed, Stream::Bootstrap, i, 1);
        let pairs: Vec<_> = (0..decided.len()).map(|_| decided[draws.below(decided.len())]).collect();
        kappa(&pairs)
    };
    let mut kappas: Vec<f64> =
        if decided.is_empty() { Vec::new() } else { (0..RESAMPLES).map(resampled).collect() };
    kappas.sort_by(f64::total_cmp);
    let at = |share: f64| kappas.get((share * RESAMPLES as f64) as usize).copied().unwrap_or(0.0);
    Agreement {
        accuracy: share(&hits),
        decided: share(&is_decided),
        kappa: Kappa { value: kappa(&decided), low: at(0.025), high: at(0.975) },
    }
}

/// Kappa as a number: 0 where there is none, of nothing or of two who always say the same one thing.
fn kappa(both: &[(Winner, Winner)]) -> f64 {
    cohens_kappa(both).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use votive_critic::Winner::{First, Second, Tie};

    #[test]
    fn abstentions_are_no_mistakes_and_no_hits() {
        let found = agreement(&[Some(First), None, Some(Second), Some(Tie)], &[First, First, First, Tie], 1);
        assert_eq!((found.accuracy.n, found.decided.value), (3, 75.0));
        assert!((found.accuracy.value - 200.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn the_interval_holds_the_value() {
        let truth: Vec<Winner> = (0..200).map(|i| if i % 2 == 0 { First } else { Second }).collect();
        let verdicts: Vec<_> = truth
            .iter()
            .enumerate()
            .map(|(i, truth)| Some(if i % 10 < 2 { truth.reversed() } else { *truth }))
            .collect();
        let kappa = agreement(&verdicts, &truth, 3).kappa;
        assert!((kappa.value - 0.6).abs() < 1e-12, "{kappa:?}");
        assert!(kappa.low < 0.55 && kappa.low > 0.4 && kappa.high > 0.65 && kappa.high < 0.8, "{kappa:?}");
    }
}
