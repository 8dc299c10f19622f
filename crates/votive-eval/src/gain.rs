//! Shares and paired differences with 95 % intervals, in points of 100.

use serde::Serialize;
use votive_tensor::random::{Draws, Stream};

/// Resamples of a bootstrap.
const RESAMPLES: usize = 10_000;

/// A share with its interval, in points of 100.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// The share.
    pub value: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How many were counted.
    pub n: usize,
}

/// The share of `true` with Wilson's score interval; an empty list gives 0 in [0, 100].
///
/// # Source
/// Wilson 1927, "Probable inference, the law of succession, and statistical inference".
#[must_use]
pub fn share(hits: &[bool]) -> Share {
    let numbers: Vec<f64> = hits.iter().map(|hit| f64::from(u8::from(*hit))).collect();
    proportion(&numbers)
}

/// The same of units that may each be met in part, from 0 to 1.
pub(crate) fn proportion(units: &[f64]) -> Share {
    const Z: f64 = 1.959_963_984_540_054;
    let n = units.len();
    if n == 0 {
        return Share { value: 0.0, low: 0.0, high: 100.0, n };
    }
    let (size, p) = (n as f64, units.iter().sum::<f64>() / n as f64);
    let centre = (p + Z * Z / (2.0 * size)) / (1.0 + Z * Z / size);
    let half = Z / (1.0 + Z * Z / size) * (p * (1.0 - p) / size + Z * Z / (4.0 * size * size)).sqrt();
    // Of none or all, rounding may leave an end a hair outside.
    let [low, high] = [centre - half, centre + half].map(|end| 100.0 * end.clamp(0.0, 1.0));
    Share { value: 100.0 * p, low, high, n }
}

/// A paired difference of means, in points of 100.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// Mean before.
    pub base: f64,
    /// Mean after.
    pub aligned: f64,
    /// The difference.
    pub gain: f64,
    /// Lower end of its 95 % interval.
    pub gain_low: f64,
    /// Upper end.
    pub gain_high: f64,
    /// Prompts.
    pub n: usize,
}

/// Compares scores in [0, 1] of the same prompts before and after, with a percentile bootstrap over prompts.
///
/// `base` and `aligned` must be of one length; anything beyond the shorter one is left out.
#[must_use]
pub fn paired_gain(base: &[f64], aligned: &[f64], seed: u64) -> Gain {
    let differences: Vec<f64> = base.iter().zip(aligned).map(|(b, a)| 100.0 * (a - b)).collect();
    let n = differences.len();
    let mean = |values: &[f64]| values.iter().take(n).sum::<f64>() / n.max(1) as f64;
    let Interval { value, low, high } = bootstrap_mean(&differences, seed);
    Gain {
        base: 100.0 * mean(base),
        aligned: 100.0 * mean(aligned),
        gain: value,
        gain_low: low,
        gain_high: high,
        n,
    }
}

/// A mean with the ends of its 95 % interval.
pub(crate) struct Interval {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The mean of some values with a percentile bootstrap over them; 0 of none.
pub(crate) fn bootstrap_mean(values: &[f64], seed: u64) -> Interval {
    let n = values.len();
    let mut resampled: Vec<f64> = (0..if n == 0 { 0 } else { RESAMPLES })
        .map(|i| {
            let mut draws = Draws::new(seed, Stream::Bootstrap, i as u64, 0);
            (0..n).map(|_| values[draws.below(n)]).sum::<f64>() / n as f64
        })
        .collect();
    resampled.sort_by(f64::total_cmp);
    let at = |share: f64| resampled.get((share * RESAMPLES as f64) as usize).copied().unwrap_or(0.0);
    let value = values.iter().sum::<f64>() / n.max(1) as f64;
    Interval { value, low: at(0.025), high: at(0.975) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_by_hand() {
        let hits: Vec<bool> = (0..100).map(|i| i < 50).collect();
        let found = share(&hits);
        // z²/n = 0.038415; half width 0.9630·1.95996·√(0.0025 + 0.0000960)…
        assert!((found.value - 50.0).abs() < 1e-12 && (found.low - 40.383).abs() < 0.01, "{found:?}");
        assert!((found.high - 59.617).abs() < 0.01, "{found:?}");
        let none = share(&[false; 20]);
        assert!(none.low.abs() < 1e-9 && none.high > 10.0);
        for n in 1..200 {
            let [none, all] = [false, true].map(|hit| share(&vec![hit; n]));
            assert!(none.low >= 0.0 && all.high <= 100.0, "{none:?} {all:?}");
        }
    }

    #[test]
    fn the_interval_has_the_width_of_the_normal_approximation() {
        // 40 % of the prompts gain, 10 % lose: mean 30 points, deviation √(0.5 − 0.09) of one prompt.
        let base: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i % 10 == 9))).collect();
        let aligned: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i % 10 < 4))).collect();
        let gain = paired_gain(&base, &aligned, 1);
        let half = 1.96 * 100.0 * (0.5f64 - 0.09).sqrt() / 20.0;
        assert!((gain.gain - 30.0).abs() < 1e-9, "{gain:?}");
        assert!(
            (gain.gain_low - (30.0 - half)).abs() < 0.5 && (gain.gain_high - (30.0 + half)).abs() < 0.5,
            "{gain:?}"
        );
    }

    #[test]
    fn no_change_is_no_gain() {
        let scores = [0.0, 1.0, 1.0];
        let gain = paired_gain(&scores, &scores, 3);
        assert_eq!((gain.gain, gain.gain_low, gain.gain_high), (0.0, 0.0, 0.0));
        assert_eq!(paired_gain(&[], &[], 3).n, 0);
    }
}
