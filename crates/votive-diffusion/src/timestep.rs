//! Which timestep a training sample is noised to.
//!
//! Sources: uniform and per pair, Wallace et al., "Diffusion model alignment using direct preference optimization",
//! arXiv:2311.12908; a time for each image, Li et al., "Aligning diffusion models by optimizing human utility"
//! (Diffusion-KTO), arXiv:2404.04465; bins, "Rethinking direct preference optimization in diffusion models",
//! arXiv:2505.18736; logit-normal, Esser et al. 2024, arXiv:2403.03206, section 3.1.

use votive_tensor::random::{Draws, Stream};

use crate::error::{DiffusionError, Result};
use crate::schedule::NoiseSchedule;

/// How timesteps are drawn. The draw of a sample is a function of (seed, step, sample), so it does not depend on how
/// a batch is cut into micro-batches.
#[derive(Clone, Debug, PartialEq)]
pub enum TimestepPolicy {
    /// Every timestep of the schedule, equally likely.
    Uniform,
    /// One of a list, equally likely: what a model distilled to few steps is trained on.
    List(Vec<usize>),
    /// A bin k with probability ∝ γ^k, counted from the noisy end where generation starts, and every timestep in the
    /// bin equally likely (Rethinking-DPO, which prefers the noisy end with γ = 0.9). How many timesteps one k stands
    /// for is not said in the paper, so the number of bins is a setting.
    Bins {
        /// Parts of nearly equal length into which the schedule is cut, at most one for each timestep.
        bins: usize,
        /// γ: how likely a bin is, for one of the bin before it; above 0.
        gamma: f64,
    },
    /// `t = ⌊T · sigmoid(x)⌋` with x normal: a mean above 0 prefers the noisy end.
    LogitNormal {
        /// Mean of x.
        mean: f64,
        /// Standard deviation of x, above 0.
        std: f64,
    },
}

/// Whether the two images of a pair are noised to the same timestep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestepSharing {
    /// One timestep for both, as in Diffusion-DPO.
    Pair,
    /// A timestep for each image, as in Diffusion-KTO.
    Independent,
}

impl TimestepPolicy {
    /// One timestep for each sample.
    ///
    /// # Errors
    /// As [`TimestepPolicy::check`].
    pub fn for_samples(
        &self,
        schedule: &NoiseSchedule,
        seed: u64,
        step: u64,
        samples: &[u64],
    ) -> Result<Vec<usize>> {
        let distribution = self.distribution(schedule)?;
        let draw = |sample: &u64| distribution.draw(&mut Draws::new(seed, Stream::Timestep, step, *sample));
        Ok(samples.iter().map(draw).collect())
    }

    /// The timesteps of both rows of each pair. The chosen row's is the same under either sharing, and that of the
    /// sample with the pair's number.
    ///
    /// # Shapes
    /// Length 2B: rows 0..B chosen, B..2B rejected
    /// # Errors
    /// As [`TimestepPolicy::check`].
    pub fn for_pairs(
        &self,
        sharing: TimestepSharing,
        schedule: &NoiseSchedule,
        seed: u64,
        step: u64,
        pairs: &[u64],
    ) -> Result<Vec<usize>> {
        let distribution = self.distribution(schedule)?;
        let draw = |pair: &u64| {
            let mut draws = Draws::new(seed, Stream::Timestep, step, *pair);
            let chosen = distribution.draw(&mut draws);
            match sharing {
                TimestepSharing::Pair => (chosen, chosen),
                TimestepSharing::Independent => (chosen, distribution.draw(&mut draws)),
            }
        };
        let (mut timesteps, rejected): (Vec<usize>, Vec<usize>) = pairs.iter().map(draw).unzip();
        timesteps.extend(rejected);
        Ok(timesteps)
    }

    /// Whether the settings are in range, and every timestep that can be drawn lies in the schedule.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`] for an empty list or a number out of range; [`DiffusionError::Timestep`] for a listed
    /// timestep outside the schedule.
    pub fn check(&self, schedule: &NoiseSchedule) -> Result<()> {
        self.distribution(schedule).map(|_| ())
    }

    fn distribution(&self, schedule: &NoiseSchedule) -> Result<Distribution<'_>> {
        let count = schedule.num_train_timesteps();
        let refuse = |reason| Err(DiffusionError::Setting { setting: "timesteps", reason });
        match self {
            Self::Uniform => Ok(Distribution::Below(count)),
            Self::List(timesteps) if timesteps.is_empty() => {
                refuse("the list is empty; give at least one timestep".to_owned())
            }
            Self::List(timesteps) => match timesteps.iter().find(|timestep| **timestep >= count) {
                Some(found) => Err(DiffusionError::Timestep { found: *found, count }),
                None => Ok(Distribution::Pick(timesteps)),
            },
            Self::Bins { bins, .. } if !(1..=count).contains(bins) => {
                refuse(format!("{bins} bins, expected 1 to {count}, the schedule's timesteps"))
            }
            Self::Bins { gamma, .. } if !(gamma.is_finite() && *gamma > 0.0) => {
                refuse(format!("gamma is {gamma}, expected a number above 0"))
            }
            Self::Bins { bins, gamma } => {
                Ok(Distribution::Bins { count, weights: powers(gamma.ln(), *bins) })
            }
            Self::LogitNormal { mean, std } if !(mean.is_finite() && std.is_finite() && *std > 0.0) => {
                refuse(format!("mean {mean} and std {std}, expected finite numbers and a std above 0"))
            }
            Self::LogitNormal { mean, std } => {
                Ok(Distribution::LogitNormal { count, mean: *mean, std: *std })
            }
        }
    }
}

/// A policy that has been checked against a schedule of `count` timesteps.
enum Distribution<'a> {
    Below(usize),
    Pick(&'a [usize]),
    Bins { count: usize, weights: Vec<f64> },
    LogitNormal { count: usize, mean: f64, std: f64 },
}

impl Distribution<'_> {
    fn draw(&self, draws: &mut Draws) -> usize {
        match self {
            Self::Below(count) => draws.below(*count),
            Self::Pick(timesteps) => *draws.pick(timesteps),
            Self::Bins { count, weights } => {
                // Bin k of n holds the timesteps below T − kT/n, down to T − (k+1)T/n.
                let edge = |k: usize| count - k * count / weights.len();
                let k = draws.weighted(weights);
                edge(k + 1) + draws.below(edge(k) - edge(k + 1))
            }
            Self::LogitNormal { count, mean, std } => {
                let share = 1.0 / (1.0 + (-(mean + std * draws.normal())).exp());
                ((share * *count as f64) as usize).min(count - 1)
            }
        }
    }
}

/// `exp(k · log)` for k = 0..n, but for a factor so that the largest is 1 and nothing overflows.
fn powers(log: f64, n: usize) -> Vec<f64> {
    let largest = (log * (n - 1) as f64).max(0.0);
    (0..n).map(|k| (log * k as f64 - largest).exp()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::SchedulerConfig;

    fn schedule() -> NoiseSchedule {
        NoiseSchedule::new(&SchedulerConfig::stable_diffusion()).unwrap()
    }

    const POLICIES: [TimestepPolicy; 3] = [
        TimestepPolicy::Uniform,
        TimestepPolicy::Bins { bins: 7, gamma: 0.9 },
        TimestepPolicy::LogitNormal { mean: 0.0, std: 1.0 },
    ];

    fn of_pairs(policy: &TimestepPolicy, sharing: TimestepSharing, pairs: &[u64]) -> Vec<usize> {
        policy.for_pairs(sharing, &schedule(), 11, 3, pairs).unwrap()
    }

    #[test]
    fn both_rows_of_a_pair_share_their_timestep_or_do_not() {
        for policy in &POLICIES {
            let shared = of_pairs(policy, TimestepSharing::Pair, &[4, 5, 6]);
            assert_eq!(shared[..3], shared[3..]);
            assert_eq!(shared[..3], policy.for_samples(&schedule(), 11, 3, &[4, 5, 6]).unwrap());
            let independent = of_pairs(policy, TimestepSharing::Independent, &[4, 5, 6]);
            assert_eq!(independent[..3], shared[..3]);
            assert_ne!(independent[3..], shared[3..]);
        }
    }

    #[test]
    fn a_pair_has_its_timesteps_in_any_micro_batch() {
        for policy in &POLICIES {
            for sharing in [TimestepSharing::Pair, TimestepSharing::Independent] {
                let whole = of_pairs(policy, sharing, &[4, 5, 6]);
                for (i, pair) in [4, 5, 6].into_iter().enumerate() {
                    assert_eq!(of_pairs(policy, sharing, &[pair]), [whole[i], whole[i + 3]]);
                }
            }
        }
    }

    /// How many of 20,000 draws fall into each tenth of the schedule.
    fn tenths(policy: &TimestepPolicy) -> [usize; 10] {
        let samples: Vec<u64> = (0..20_000).collect();
        let mut tenths = [0; 10];
        for timestep in policy.for_samples(&schedule(), 1, 0, &samples).unwrap() {
            tenths[timestep / 100] += 1;
        }
        tenths
    }

    #[track_caller]
    fn check_tenths(policy: &TimestepPolicy, expected: impl Fn(usize) -> f64) {
        for (tenth, found) in tenths(policy).into_iter().enumerate() {
            let expected = expected(tenth) * 20_000.0;
            // Four standard deviations of a count.
            let room = 4.0 * expected.sqrt();
            assert!((found as f64 - expected).abs() < room, "{policy:?} {tenth}: {found}, {expected}");
        }
    }

    #[test]
    fn timesteps_are_distributed_as_the_policy_says() {
        check_tenths(&TimestepPolicy::Uniform, |_| 0.1);
        check_tenths(&TimestepPolicy::Bins { bins: 10, gamma: 1.0 }, |_| 0.1);
        let sum: f64 = (0..10).map(|k| 0.7f64.powi(k)).sum();
        check_tenths(&TimestepPolicy::Bins { bins: 10, gamma: 0.7 }, |tenth| {
            0.7f64.powi(9 - tenth as i32) / sum
        });
        // P(t < 500) is the chance of x < 0, 0.8413 at a mean of −1; and tenths 0 and 9 are alike at a mean of 0.
        let low: usize = tenths(&TimestepPolicy::LogitNormal { mean: -1.0, std: 1.0 })[..5].iter().sum();
        assert!((low as f64 / 20_000.0 - 0.8413).abs() < 0.01, "{low}");
        let even = tenths(&TimestepPolicy::LogitNormal { mean: 0.0, std: 1.0 });
        assert!(even[0].abs_diff(even[9]) < 120 && even[4] > 4 * even[0], "{even:?}");
    }

    #[test]
    fn bins_of_any_number_cover_the_schedule_and_nothing_else() {
        for bins in [1, 3, 7, 999, 1000] {
            let policy = TimestepPolicy::Bins { bins, gamma: 1.0 };
            let drawn = policy.for_samples(&schedule(), 2, 0, &(0..20_000).collect::<Vec<u64>>()).unwrap();
            let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
            assert!(*least < 3 && *most > 996 && *most < 1000, "{bins}: {least} to {most}");
        }
        // A γ so small that only the noisiest bin is left, or so large that only the cleanest is.
        for (gamma, range) in [(1e-300, 990..1000), (1e300, 0..10)] {
            let policy = TimestepPolicy::Bins { bins: 100, gamma };
            let drawn = policy.for_samples(&schedule(), 2, 0, &[1, 2, 3, 4, 5]).unwrap();
            assert!(drawn.iter().all(|t| range.contains(t)), "{gamma}: {drawn:?}");
        }
    }

    #[test]
    fn a_list_is_drawn_from_and_checked() {
        let turbo = TimestepPolicy::List(vec![249, 499, 749, 999]);
        let drawn = turbo.for_samples(&schedule(), 1, 0, &[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
        assert!(drawn.iter().all(|t| [249, 499, 749, 999].contains(t)), "{drawn:?}");
        let error = TimestepPolicy::List(vec![10, 1000]).check(&schedule()).unwrap_err();
        assert_eq!(error.to_string(), "timestep 1000 is outside the schedule's 0..1000");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let refused = |policy: TimestepPolicy, part: &str| {
            let error = policy.check(&schedule()).unwrap_err().to_string();
            assert!(error.starts_with("timesteps: ") && error.contains(part), "{error}");
        };
        refused(TimestepPolicy::List(vec![]), "empty");
        refused(TimestepPolicy::Bins { bins: 0, gamma: 0.9 }, "0 bins, expected 1 to 1000");
        refused(TimestepPolicy::Bins { bins: 1001, gamma: 0.9 }, "1001 bins");
        refused(TimestepPolicy::Bins { bins: 10, gamma: 0.0 }, "gamma is 0");
        refused(TimestepPolicy::Bins { bins: 10, gamma: f64::INFINITY }, "gamma is inf");
        refused(TimestepPolicy::LogitNormal { mean: 0.0, std: 0.0 }, "std 0");
        refused(TimestepPolicy::LogitNormal { mean: f64::NAN, std: 1.0 }, "mean NaN");
    }
}
