//! Counter-based random numbers: every draw is a function of `(seed, stream, step, sample)`.
//!
//! There is no generator state, so nothing has to be saved for a resume, and noise, timesteps and data order are
//! equal on every device and for every number of threads. The generator is Philox4x32-10.
//!
//! Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the known-answer
//! vectors in the tests are those of the authors' Random123 library.

/// What a random number is for. Two streams of one seed are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Initial values of parameters.
    Init = 1,
    /// Order of the training rows.
    DataOrder = 2,
    /// Noise that is added to latents.
    Noise = 3,
    /// Diffusion timesteps.
    Timestep = 4,
    /// Dropout masks.
    Dropout = 5,
    /// Tokens or images drawn from a model.
    Sampling = 6,
    /// Scenes, instructions and other content of a procedural world.
    World = 7,
    /// Flaws that are planted in a procedural world.
    Flaw = 8,
    /// Preference labels that are flipped on purpose.
    LabelFlip = 9,
    /// Bootstrap resamples.
    Bootstrap = 10,
    /// Captions that are dropped for classifier-free guidance.
    CaptionDropout = 11,
    /// Draws from the VAE's posterior.
    Posterior = 12,
    /// Noise that perturbs an inversion from latents to noise.
    Inversion = 13,
    /// Seeds and steps of what a policy draws while it is trained.
    Rollout = 14,
    /// Flips and crops of images.
    Augmentation = 15,
    /// Completions of a list that a loss draws by itself.
    Negatives = 16,
    /// What is taken out of copies of completions.
    Removal = 17,
}

/// The draws that belong to one `(seed, stream, step, sample)`.
#[derive(Clone, Debug)]
pub struct Draws {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
    spare_normal: Option<f64>,
}

impl Draws {
    /// The draws of `sample` in `step`.
    ///
    /// `step` and `sample` must be below 2⁴⁸; both are counters of work, never data.
    #[must_use]
    pub fn new(seed: u64, stream: Stream, step: u64, sample: u64) -> Self {
        // The stream is mixed into the key and the block index keeps one counter word for itself: 2³² blocks of
        // four words each before a draw could repeat.
        let mixed = splitmix(seed ^ splitmix(stream as u64));
        Self {
            key: [mixed as u32, (mixed >> 32) as u32],
            counter: [
                0,
                step as u32,
                sample as u32,
                ((step >> 32) as u32) ^ ((sample >> 32) as u32).rotate_left(16),
            ],
            block: [0; 4],
            used: 4,
            spare_normal: None,
        }
    }

    /// The next 32 uniform bits.
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox4x32(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        let high = u64::from(self.bits() >> 5);
        let low = u64::from(self.bits() >> 6);
        ((high << 26) | low) as f64 / (1u64 << 53) as f64
    }

    /// A number in `[low, high)`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// An index in `0..n`; `n` must be at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from((u64::from(self.bits()) << 32) | u64::from(self.bits())) * n as u128) >> 64) as usize
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// An index drawn with probability proportional to `weights`, which must not all be zero.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.uniform() * weights.iter().sum::<f64>();
        for (index, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        weights.len() - 1
    }

    /// A draw from the standard normal distribution (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        if let Some(value) = self.spare_normal.take() {
            return value;
        }
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.uniform();
        self.spare_normal = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// `n` standard normal draws.
    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal() as f32).collect()
    }

    /// Puts `items` into a random order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

fn splitmix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let left = u64::from(counter[0]) * 0xD251_1F53;
        let right = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (right >> 32) as u32 ^ counter[1] ^ key[0],
            right as u32,
            (left >> 32) as u32 ^ counter[3] ^ key[1],
            left as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn normal_draws_have_mean_zero_and_variance_one() {
        let values = Draws::new(7, Stream::Noise, 3, 1).normals(100_000);
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 1e5;
        let square = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((square - 1.0).abs() < 0.02, "{square}");
    }

    #[test]
    fn step_sample_stream_and_seed_each_change_the_draws() {
        let first = |seed, stream, step, sample| Draws::new(seed, stream, step, sample).bits();
        let base = first(1, Stream::Noise, 2, 3);
        assert_eq!(base, first(1, Stream::Noise, 2, 3));
        assert_ne!(base, first(2, Stream::Noise, 2, 3));
        assert_ne!(base, first(1, Stream::Timestep, 2, 3));
        assert_ne!(base, first(1, Stream::Noise, 3, 3));
        assert_ne!(base, first(1, Stream::Noise, 2, 4));
    }

    #[test]
    fn below_is_uniform_and_in_range() {
        let mut draws = Draws::new(5, Stream::World, 0, 0);
        let mut counts = [0usize; 7];
        for _ in 0..70_000 {
            counts[draws.below(7)] += 1;
        }
        assert!(counts.iter().all(|c| (9_500..10_500).contains(c)), "{counts:?}");
    }
}
