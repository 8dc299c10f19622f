//! Which noise a training sample gets.

use candle_core::{Device, Tensor};
use votive_tensor::random::{Draws, Stream};

use crate::error::{DiffusionError, Result};
use crate::schedule::NoiseSchedule;

/// Whether the two images of a pair get the same noise. The draw is a function of (seed, step, pair), so it does not
/// depend on how a batch is cut into micro-batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoisePolicy {
    /// The same noise for both, as in Diffusion-DPO: what differs is then the images.
    Shared,
    /// Noise of its own for each.
    Independent,
    /// The noise that a network says leads to each image (InPO, SmPO). What is drawn is shared, and stands in until
    /// the network is asked.
    Inversion(InversionPlan),
}

/// How the noise of an image is found by running DDIM backwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InversionPlan {
    /// Whose predictions lead back.
    pub by: InversionBy,
    /// Steps from the image to its timestep, 10 in InPO. With 0 the drawn noise stays, which is Diffusion-DPO.
    pub steps: usize,
    /// Noise that is added after each step, as a share of the standard deviation under η = 1 of the DDIM step that
    /// would come back there; 0.1 in InPO, 0 in SmPO.
    pub perturbation: f64,
    /// Times that a step is taken again with the mean of its last two estimates of the noise (ReNoise): 0 in InPO; 1 in
    /// SmPO, where these are at the step's both ends; with more, the step becomes the exact inverse of DDIM's.
    pub refinements: usize,
}

/// A network that inverts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InversionBy {
    /// The policy, as in InPO's code: the noise follows the training.
    Policy,
    /// The reference: an image's noise stays the same while the reference does.
    Reference,
}

impl InversionPlan {
    /// Whether the settings are in range.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`].
    pub fn check(self, schedule: &NoiseSchedule) -> Result<()> {
        let refuse = |setting, reason| Err(DiffusionError::Setting { setting, reason });
        let count = schedule.num_train_timesteps();
        if self.steps > count {
            let reason = format!("{}, expected 0 to {count}, the schedule's timesteps", self.steps);
            return refuse("inversion_steps", reason);
        }
        if !(self.perturbation.is_finite() && self.perturbation >= 0.0) {
            let reason = format!("{}, expected a number not below 0", self.perturbation);
            return refuse("inversion_perturbation", reason);
        }
        Ok(())
    }
}

impl NoisePolicy {
    /// Whether the settings are in range.
    ///
    /// # Errors
    /// As [`InversionPlan::check`].
    pub fn check(self, schedule: &NoiseSchedule) -> Result<()> {
        match self {
            Self::Shared | Self::Independent => Ok(()),
            Self::Inversion(plan) => plan.check(schedule),
        }
    }

    /// Standard normal noise for pairs of latents.
    ///
    /// # Shapes
    /// `shape` is (C, H, W) → f32 `(2B,C,H,W)`, rows 0..B chosen, B..2B rejected
    /// # Errors
    /// [`DiffusionError::Tensor`](crate::DiffusionError::Tensor) if the device has no room.
    pub fn for_pairs(
        self,
        shape: (usize, usize, usize),
        seed: u64,
        step: u64,
        pairs: &[u64],
        device: &Device,
    ) -> Result<Tensor> {
        let (c, h, w) = shape;
        let mut chosen = Vec::new();
        let mut rejected = Vec::new();
        for pair in pairs {
            let mut draws = Draws::new(seed, Stream::Noise, step, *pair);
            let noise = draws.normals(c * h * w);
            rejected.extend(match self {
                Self::Shared | Self::Inversion(_) => noise.clone(),
                Self::Independent => draws.normals(c * h * w),
            });
            chosen.extend(noise);
        }
        chosen.append(&mut rejected);
        Ok(Tensor::from_vec(chosen, (2 * pairs.len(), c, h, w), device)?)
    }
}

/// Standard normal noise for latents that are not paired; a sample's is that of the chosen row of the pair with its
/// number.
///
/// # Shapes
/// `shape` is (C, H, W) → f32 `(B,C,H,W)`
/// # Errors
/// [`DiffusionError::Tensor`](crate::DiffusionError::Tensor) if the device has no room.
pub fn noise_for_samples(
    (c, h, w): (usize, usize, usize),
    seed: u64,
    step: u64,
    samples: &[u64],
    device: &Device,
) -> Result<Tensor> {
    let draw = |sample: &u64| Draws::new(seed, Stream::Noise, step, *sample).normals(c * h * w);
    Ok(Tensor::from_vec(
        samples.iter().flat_map(draw).collect::<Vec<f32>>(),
        (samples.len(), c, h, w),
        device,
    )?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SHAPE: (usize, usize, usize) = (1, 3, 1);

    fn rows(noise: &Tensor) -> Vec<Vec<f32>> {
        noise.flatten_from(1).unwrap().to_vec2().unwrap()
    }

    fn of_pairs(policy: NoisePolicy, pairs: &[u64]) -> Vec<Vec<f32>> {
        rows(&policy.for_pairs(SHAPE, 11, 2, pairs, &Device::Cpu).unwrap())
    }

    #[test]
    fn shared_noise_is_equal_within_a_pair_and_only_there() {
        let rows = of_pairs(NoisePolicy::Shared, &[7, 8]);
        assert_eq!(rows[0], rows[2]);
        assert_eq!(rows[1], rows[3]);
        assert_ne!(rows[0], rows[1]);
    }

    #[test]
    fn independent_noise_differs_everywhere_and_keeps_the_chosen_rows() {
        let rows = of_pairs(NoisePolicy::Independent, &[7, 8]);
        assert!((0..4).all(|i| (0..i).all(|j| rows[i] != rows[j])));
        assert_eq!(rows[..2], of_pairs(NoisePolicy::Shared, &[7, 8])[..2]);
    }

    #[test]
    fn a_pair_has_its_noise_in_any_micro_batch() {
        for policy in [NoisePolicy::Shared, NoisePolicy::Independent] {
            let whole = of_pairs(policy, &[7, 8]);
            let alone = of_pairs(policy, &[8]);
            assert_eq!([&alone[0], &alone[1]], [&whole[1], &whole[3]]);
        }
    }

    #[test]
    fn an_inversion_starts_from_shared_noise_and_is_checked() {
        let plan = |steps, perturbation| {
            let by = InversionBy::Policy;
            NoisePolicy::Inversion(InversionPlan { by, steps, perturbation, refinements: 0 })
        };
        assert_eq!(of_pairs(plan(10, 0.1), &[7, 8]), of_pairs(NoisePolicy::Shared, &[7, 8]));
        let schedule = NoiseSchedule::new(&crate::SchedulerConfig::stable_diffusion()).unwrap();
        let message = |policy: NoisePolicy| policy.check(&schedule).unwrap_err().to_string();
        assert!(plan(0, 0.0).check(&schedule).is_ok() && NoisePolicy::Shared.check(&schedule).is_ok());
        assert!(message(plan(1001, 0.1)).starts_with("inversion_steps: 1001, expected 0 to 1000"));
        assert!(message(plan(10, -0.1)).starts_with("inversion_perturbation: -0.1"));
    }

    #[test]
    fn samples_that_are_not_paired_get_the_noise_of_chosen_rows() {
        let unpaired = rows(&noise_for_samples(SHAPE, 11, 2, &[7, 8], &Device::Cpu).unwrap());
        assert_eq!(unpaired, of_pairs(NoisePolicy::Shared, &[7, 8])[..2]);
    }
}
