//! Whether probabilities mean what they say.

use crate::gain::{Share, proportion};
use serde::Serialize;

/// A judge's probabilities against the truth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error: the mean over pairs of |confidence − accuracy| of their bin, 0 to 1.
    pub ece: f64,
    /// Mean of (P(first) − whether the first is better)².
    pub brier: f64,
    /// Mean of −log P(what is right), nats; probabilities below 1e-12 count as that.
    pub nll: f64,
    /// The bins of a reliability diagram, those with pairs in them.
    pub bins: Vec<Bin>,
}

/// Pairs of like confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// Mean probability of the verdict.
    pub confidence: f64,
    /// Share of right verdicts, a tie being half a one.
    pub accuracy: f64,
    /// Lower end of its 95 % interval, Wilson's.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Pairs.
    pub n: usize,
}

/// Compares probabilities with the truth: `(P(first), whether the first is better)` of each pair. Confidence goes from ½ to 1
/// in `bins` bins of equal width.
///
/// # Source
/// Guo et al. 2017, "On calibration of modern neural networks", Equation 3.
#[must_use]
pub fn calibration(labelled: &[(f64, bool)], bins: usize) -> Calibration {
    let n = labelled.len().max(1) as f64;
    // The sum of confidences, and every hit.
    let mut gathered = vec![(0.0, Vec::new()); bins.max(1)];
    let (mut brier, mut nll) = (0.0, 0.0);
    for (probability, is_first) in labelled {
        let right = if *is_first { *probability } else { 1.0 - probability };
        brier += (1.0 - right) * (1.0 - right) / n;
        nll -= right.max(1e-12).ln() / n;
        let confidence = probability.max(1.0 - probability);
        // A tie is half a hit.
        let hit =
            if *probability == 0.5 { 0.5 } else { f64::from(u8::from((*probability > 0.5) == *is_first)) };
        let place = (((confidence - 0.5) * 2.0 * gathered.len() as f64) as usize).min(gathered.len() - 1);
        gathered[place].0 += confidence;
        gathered[place].1.push(hit);
    }
    let of = |(confidence, hits): &(f64, Vec<f64>)| {
        let Share { value, low, high, n } = proportion(hits);
        let [accuracy, low, high] = [value, low, high].map(|points| points / 100.0);
        Bin { confidence: confidence / n as f64, accuracy, low, high, n }
    };
    let bins: Vec<Bin> = gathered.iter().filter(|(_, hits)| !hits.is_empty()).map(of).collect();
    let ece =
        bins.iter().fold(0.0, |sum, bin| sum + bin.n as f64 / n * (bin.confidence - bin.accuracy).abs());
    Calibration { ece, brier, nll, bins }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // At 0.9 (and 0.1) three of four right, at 0.6 one of two.
        let labelled = [(0.9, true), (0.9, true), (0.1, false), (0.9, false), (0.6, true), (0.6, false)];
        let found = calibration(&labelled, 5);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(found.ece, (4.0 * 0.15 + 2.0 * 0.1) / 6.0);
        near(found.brier, (3.0 * 0.01 + 0.81 + 0.16 + 0.36) / 6.0);
        near(found.nll, -(3.0 * 0.9_f64.ln() + 0.1_f64.ln() + 0.6_f64.ln() + 0.4_f64.ln()) / 6.0);
        assert_eq!(found.bins.iter().map(|bin| bin.n).collect::<Vec<_>>(), [2, 4]);
        near(found.bins[1].accuracy, 0.75);
        // Wilson's interval of 3 in 4: centre (0.75 + 0.480182)/1.960365, half width 0.999796·√(0.046875 + 0.060023).
        assert!((found.bins[1].low - 0.30064).abs() < 1e-4, "{found:?}");
        assert!((found.bins[1].high - 0.95441).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn whoever_is_right_and_sure_has_no_error() {
        let found = calibration(&[(1.0, true), (0.0, false)], 10);
        assert_eq!((found.ece, found.brier, found.nll), (0.0, 0.0, 0.0));
        assert_eq!(calibration(&[(0.5, true), (0.5, false)], 10).ece, 0.0);
        assert_eq!(calibration(&[], 10).ece, 0.0);
    }
}
