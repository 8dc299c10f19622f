//! Which of the training timesteps a sampler visits.
//!
//! Source: Lin et al. 2023, arXiv:2305.08891, table 2. Checked against: diffusers 0.42.1.
//! Departures: for some step counts (61 of 1000, say) rounding gives diffusers one timestep too many under
//! `trailing`, namely −1, with which it indexes the table from its end; that step is left out here.

/// The values of `timestep_spacing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimestepSpacing {
    /// Evenly from the last timestep to 0, both included.
    Linspace,
    /// Multiples of T/N from 0 upwards: never the last timestep.
    Leading,
    /// Multiples of T/N from T downwards: never timestep 0.
    Trailing,
}

impl TimestepSpacing {
    pub(crate) const NAMES: &[(&'static str, TimestepSpacing)] =
        &[("linspace", Self::Linspace), ("leading", Self::Leading), ("trailing", Self::Trailing)];

    /// `steps` whole timesteps of 0..`count`, falling; `offset` (`steps_offset`) is added under `leading`.
    pub(crate) fn timesteps(self, count: usize, steps: usize, offset: usize) -> Vec<f64> {
        match self {
            Self::Linspace => {
                linspace((count - 1) as f64, steps).into_iter().map(f64::round_ties_even).collect()
            }
            Self::Leading => leading(count / steps, steps, offset),
            Self::Trailing => trailing(count as f64, count as f64 / steps as f64),
        }
    }
}

/// `n` values from `last` down to 0, both included; the single value is 0, as in numpy.
pub(crate) fn linspace(last: f64, n: usize) -> Vec<f64> {
    let width = last / (n.max(2) - 1) as f64;
    (0..n).rev().map(|i| if i > 0 && i + 1 == n { last } else { i as f64 * width }).collect()
}

/// `n` multiples of `ratio`, falling to 0, plus `offset`.
pub(crate) fn leading(ratio: usize, n: usize, offset: usize) -> Vec<f64> {
    (0..n).rev().map(|i| (i * ratio + offset) as f64).collect()
}

/// `last`, `last − ratio`, … rounded, less one, while not negative.
pub(crate) fn trailing(last: f64, ratio: f64) -> Vec<f64> {
    let n = (last / ratio).ceil() as usize;
    (0..n).map(|i| (last - i as f64 * ratio).round_ties_even() - 1.0).filter(|t| *t >= 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spacing: TimestepSpacing, offset: usize, first: &[f64], last: &[f64]) {
        let timesteps = spacing.timesteps(1000, 20, offset);
        assert_eq!(timesteps.len(), 20);
        assert_eq!(&timesteps[..first.len()], first);
        assert_eq!(&timesteps[20 - last.len()..], last);
    }

    #[test]
    fn twenty_of_a_thousand() {
        check(TimestepSpacing::Leading, 1, &[951., 901., 851., 801.], &[101., 51., 1.]);
        check(TimestepSpacing::Trailing, 1, &[999., 949.], &[99., 49.]);
        check(TimestepSpacing::Linspace, 1, &[999., 946., 894., 841.], &[105., 53., 0.]);
    }

    #[test]
    fn every_number_of_steps_falls_strictly_and_has_its_length() {
        for (_, spacing) in TimestepSpacing::NAMES {
            for steps in 1..=1000 {
                let timesteps = spacing.timesteps(1000, steps, 0);
                assert_eq!(timesteps.len(), steps, "{spacing:?}");
                assert!(timesteps.windows(2).all(|pair| pair[0] > pair[1]), "{spacing:?} {steps}");
                assert!(timesteps.iter().all(|t| (0.0..1000.0).contains(t)), "{spacing:?} {steps}");
            }
        }
    }
}
