//! Which timestep a training sample is noised to.

use votive_tensor::random::{Draws, Stream};

use crate::error::{DiffusionError, Result};
use crate::schedule::NoiseSchedule;

/// How timesteps are drawn. The draw of a sample is a function of (seed, step, sample), so it does not depend on how
/// a batch is cut into micro-batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimestepPolicy {
    /// Every timestep of the schedule, equally likely.
    Uniform,
    /// One of a list, equally likely: what a model distilled to few steps is trained on.
    List(Vec<usize>),
}

impl TimestepPolicy {
    /// One timestep for each sample.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`] for an empty list; [`DiffusionError::Timestep`] for one that leaves the schedule.
    pub fn for_samples(
        &self,
        schedule: &NoiseSchedule,
        seed: u64,
        step: u64,
        samples: &[u64],
    ) -> Result<Vec<usize>> {
        self.check(schedule)?;
        let draw = |sample: &u64| {
            let mut draws = Draws::new(seed, Stream::Timestep, step, *sample);
            match self {
                Self::Uniform => draws.below(schedule.num_train_timesteps()),
                Self::List(timesteps) => *draws.pick(timesteps),
            }
        };
        Ok(samples.iter().map(draw).collect())
    }

    /// One timestep for each pair, for its chosen row and again for its rejected row.
    ///
    /// # Shapes
    /// Length 2B: rows 0..B chosen, B..2B rejected
    /// # Errors
    /// As [`TimestepPolicy::for_samples`].
    pub fn for_pairs(
        &self,
        schedule: &NoiseSchedule,
        seed: u64,
        step: u64,
        pairs: &[u64],
    ) -> Result<Vec<usize>> {
        Ok(self.for_samples(schedule, seed, step, pairs)?.repeat(2))
    }

    /// Whether every timestep that can be drawn lies in the schedule.
    ///
    /// # Errors
    /// As [`TimestepPolicy::for_samples`].
    pub fn check(&self, schedule: &NoiseSchedule) -> Result<()> {
        let Self::List(timesteps) = self else { return Ok(()) };
        if timesteps.is_empty() {
            let reason = "the list is empty; give at least one timestep".to_owned();
            return Err(DiffusionError::Setting { setting: "timesteps", reason });
        }
        let count = schedule.num_train_timesteps();
        let outside = timesteps.iter().find(|timestep| **timestep >= count);
        outside.map_or(Ok(()), |found| Err(DiffusionError::Timestep { found: *found, count }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::SchedulerConfig;

    fn schedule() -> NoiseSchedule {
        NoiseSchedule::new(&SchedulerConfig::stable_diffusion()).unwrap()
    }

    #[test]
    fn both_rows_of_a_pair_get_its_timestep_in_any_micro_batch() {
        let whole = TimestepPolicy::Uniform.for_pairs(&schedule(), 11, 3, &[4, 5, 6]).unwrap();
        assert_eq!(whole[..3], whole[3..]);
        for (i, pair) in [4, 5, 6].into_iter().enumerate() {
            let alone = TimestepPolicy::Uniform.for_pairs(&schedule(), 11, 3, &[pair]).unwrap();
            assert_eq!(alone, [whole[i]; 2]);
        }
    }

    #[test]
    fn uniform_timesteps_cover_the_schedule_evenly() {
        let samples: Vec<u64> = (0..20_000).collect();
        let mut tenths = [0; 10];
        for timestep in TimestepPolicy::Uniform.for_samples(&schedule(), 1, 0, &samples).unwrap() {
            tenths[timestep / 100] += 1;
        }
        assert!(tenths.iter().all(|n| (1_800..2_200).contains(n)), "{tenths:?}");
    }

    #[test]
    fn a_list_is_drawn_from_and_checked() {
        let turbo = TimestepPolicy::List(vec![249, 499, 749, 999]);
        let drawn = turbo.for_samples(&schedule(), 1, 0, &[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
        assert!(drawn.iter().all(|t| [249, 499, 749, 999].contains(t)), "{drawn:?}");
        let error = TimestepPolicy::List(vec![10, 1000]).check(&schedule()).unwrap_err();
        assert_eq!(error.to_string(), "timestep 1000 is outside the schedule's 0..1000");
        assert!(TimestepPolicy::List(vec![]).check(&schedule()).unwrap_err().to_string().contains("empty"));
    }
}
