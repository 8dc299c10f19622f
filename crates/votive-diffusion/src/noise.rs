//! Which noise a training sample gets.

use candle_core::{Device, Tensor};
use votive_tensor::random::{Draws, Stream};

use crate::error::Result;

/// Whether the two images of a pair get the same noise. The draw is a function of (seed, step, pair), so it does not
/// depend on how a batch is cut into micro-batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoisePolicy {
    /// The same noise for both, as in Diffusion-DPO: what differs is then the images.
    Shared,
    /// Noise of its own for each.
    Independent,
}

impl NoisePolicy {
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
                Self::Shared => noise.clone(),
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
    fn samples_that_are_not_paired_get_the_noise_of_chosen_rows() {
        let unpaired = rows(&noise_for_samples(SHAPE, 11, 2, &[7, 8], &Device::Cpu).unwrap());
        assert_eq!(unpaired, of_pairs(NoisePolicy::Shared, &[7, 8])[..2]);
    }
}
