//! A linear scale from data to pixels, with round ticks.

use crate::html::{Html, number};

/// Maps `[low, high]` of the data to `[start, end]` in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// A scale over `[low, high]`; an empty or unbounded range is widened or cut so that every position is finite.
    pub(super) fn new(low: f64, high: f64, start: f64, end: f64) -> Self {
        // A quarter of the largest float keeps `high − low` finite.
        let bound = f64::MAX / 4.0;
        let (low, high) = (low.clamp(-bound, bound), high.clamp(-bound, bound));
        if high > low {
            Self { low, high, start, end }
        } else {
            let half = low.abs().max(1.0) / 2.0;
            Self { low: low - half, high: low + half, start, end }
        }
    }

    /// Position of `value` in pixels, kept inside the plot.
    pub(super) fn position(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.start + share * (self.end - self.start)
    }

    /// Three to six round values inside the range, and the decimals that tell them apart.
    pub(super) fn ticks(&self) -> (Vec<f64>, usize) {
        let span = self.high - self.low;
        let magnitude = 10f64.powf((span / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * magnitude)
            .find(|step| span / step <= 5.0)
            .unwrap_or(span);
        let first = (self.low / step).ceil();
        let ticks =
            (0..=5).map(|n| (first + f64::from(n)) * step).filter(|tick| *tick <= self.high + step * 1e-9);
        // 1e-9 against a magnitude such as 0.1, whose logarithm may fall just short of −1.
        let decimals = (-(step.log10() + 1e-9).floor()).clamp(0.0, 6.0) as usize;
        (ticks.collect(), decimals)
    }
}

/// Rules and ticks of a plot, `x` below it and `y` on its left.
pub(super) fn axes(x: &Scale, y: &Scale) -> Html {
    let mut svg = Html::default();
    let (ticks, decimals) = y.ticks();
    for tick in ticks {
        let at = y.position(tick);
        svg.put("<path class=\"rule\" d=\"M{} {}H{}\"/>", &[&x.start, &number(at, 1), &x.end]);
        svg.put(
            "<text class=\"tick end\" x=\"{}\" y=\"{}\">{}</text>",
            &[&(x.start - 6.0), &number(at + 4.0, 1), &number(tick, decimals)],
        );
    }
    let (ticks, decimals) = x.ticks();
    for tick in ticks {
        svg.put(
            "<text class=\"tick middle\" x=\"{}\" y=\"{}\">{}</text>",
            &[&number(x.position(tick), 1), &(y.start + 18.0), &number(tick, decimals)],
        );
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(low: f64, high: f64, expected: &[f64], decimals: usize) {
        let (ticks, found) = Scale::new(low, high, 0.0, 100.0).ticks();
        assert_eq!(ticks.len(), expected.len(), "{ticks:?}");
        assert!(ticks.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{ticks:?}");
        assert_eq!(found, decimals);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        check(0.0, 1.0, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0], 1);
        check(-12.0, 31.0, &[-10.0, 0.0, 10.0, 20.0, 30.0], 0);
        check(0.1, 0.7, &[0.2, 0.4, 0.6], 1);
    }

    #[test]
    fn degenerate_ranges_stay_finite() {
        for (low, high) in [(3.0, 3.0), (0.0, 0.0), (f64::MIN, f64::MAX), (2.0, 1.0)] {
            let scale = Scale::new(low, high, 0.0, 100.0);
            assert!(scale.position(low).is_finite());
            assert!(scale.ticks().0.len() <= 6);
        }
    }
}
