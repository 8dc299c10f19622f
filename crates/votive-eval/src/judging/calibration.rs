//! Whether probabilities mean what they say.

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
    /// Share of right verdicts.
    pub accuracy: f64,
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
    let mut gathered = vec![(0.0, 0.0, 0_usize); bins.max(1)];
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
        let bin = &mut gathered[place];
        *bin = (bin.0 + confidence, bin.1 + hit, bin.2 + 1);
    }
    let of = |(confidence, hits, count): &(f64, f64, usize)| Bin {
        confidence: confidence / *count as f64,
        accuracy: hits / *count as f64,
        n: *count,
    };
    let bins: Vec<Bin> = gathered.iter().filter(|bin| bin.2 > 0).map(of).collect();
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
    }

    #[test]
    fn whoever_is_right_and_sure_has_no_error() {
        let found = calibration(&[(1.0, true), (0.0, false)], 10);
        assert_eq!((found.ece, found.brier, found.nll), (0.0, 0.0, 0.0));
        assert_eq!(calibration(&[(0.5, true), (0.5, false)], 10).ece, 0.0);
        assert_eq!(calibration(&[], 10).ece, 0.0);
    }
}
