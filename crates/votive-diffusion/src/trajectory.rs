//! A step of DDIM as a probability distribution: what step-wise preference methods compare.
//!
//! With η > 0, `z_p` given `z_t` and the prediction is normal with the mean and the standard deviation of `ddim.rs`. The
//! log-density is averaged over C, H and W and not summed, as in DDPO (Black et al. 2023, arXiv:2305.13301), D3PO (Yang et
//! al. 2023, arXiv:2311.13231) and SPO (Liang et al. 2024, arXiv:2406.04314); their β are written for that.
//! Checked against: DDPO's formula on diffusers 0.42.1, `DDIMScheduler`.

use candle_core::{D, Tensor};
use votive_tensor::random::{Draws, Stream};

use crate::error::{DiffusionError, Result};
use crate::linear::{same_dims, weighted_sum};

/// `ln √(2π)`.
const LN_ROOT_OF_TAU: f64 = 0.918_938_533_204_672_7;

/// Where a step may lead, for each row of a batch.
#[derive(Clone, Debug)]
pub struct StepDistribution {
    /// Means `(B,C,H,W)`; their gradient is the prediction's.
    pub mean: Tensor,
    /// Standard deviation, the same for all; 0 for a step without noise.
    pub std: f64,
    /// The clean latents ẑ₀ `(B,C,H,W)` that the prediction implies, within `clip_sample`'s bounds if these are on.
    pub clean: Tensor,
    /// The sampler's step, which keys what is drawn.
    pub(crate) step_idx: usize,
}

impl StepDistribution {
    /// The log-density of each row of `latents`, a mean over C, H and W, in nats.
    ///
    /// # Shapes
    /// `latents (B,C,H,W)` → `(B,)`
    /// # Gradient
    /// Flows to the prediction, and to `latents`: detach what was drawn.
    /// # Errors
    /// [`DiffusionError::Setting`] for a step without noise, which has no density; [`DiffusionError::Shape`].
    pub fn log_density(&self, latents: &Tensor) -> Result<Tensor> {
        if self.std == 0.0 {
            let reason = format!(
                "step {} has no noise, and so no density; use an eta above 0, and leave out a last step to clean latents",
                self.step_idx
            );
            return Err(DiffusionError::Setting { setting: "eta", reason });
        }
        same_dims("latents after the step, shaped like its mean", &self.mean, latents)?;
        let distance = (latents - &self.mean)?.sqr()?.flatten_from(1)?.mean(D::Minus1)?;
        Ok(distance.affine(-0.5 / (self.std * self.std), -self.std.ln() - LN_ROOT_OF_TAU)?)
    }

    /// `candidates` draws for each row, without gradient. Row b's are functions of `seeds[b]`, the step and the
    /// candidate's number; candidate 0 is what the sampler itself draws from the same seed.
    ///
    /// # Shapes
    /// → as many tensors `(B,C,H,W)`
    /// # Errors
    /// [`DiffusionError::Shape`] if there is not one seed per row.
    pub fn draw(&self, seeds: &[u64], candidates: usize) -> Result<Vec<Tensor>> {
        let rows = self.mean.dims().first().copied().unwrap_or(0);
        if rows != seeds.len() {
            return Err(DiffusionError::shape("seeds, one per image", rows, seeds.len()));
        }
        (0..candidates as u64).map(|candidate| self.draw_one(seeds, candidate)).collect()
    }

    fn draw_one(&self, seeds: &[u64], candidate: u64) -> Result<Tensor> {
        let per_row = self.mean.dims().iter().skip(1).product();
        let step = self.step_idx as u64 + 1;
        let normals = |seed: &u64| Draws::new(*seed, Stream::Sampling, step, candidate).normals(per_row);
        let values: Vec<f32> = seeds.iter().flat_map(normals).collect();
        let noise = Tensor::from_vec(values, self.mean.shape(), self.mean.device())?;
        self.at(&noise.to_dtype(self.mean.dtype())?).map(|latents| latents.detach())
    }

    /// `mean + std · noise`.
    pub(crate) fn at(&self, noise: &Tensor) -> Result<Tensor> {
        same_dims("the given noise, shaped like the latents", &self.mean, noise)?;
        weighted_sum(&[(1.0, &self.mean), (self.std, noise)])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;
    use votive_tensor::gradcheck::{gradient_error, sample_tensor};

    use crate::config::SchedulerConfig;
    use crate::sampler::{Ddim, Sampler, StepNoise};

    fn ddim(kind: &str, eta: f64) -> Ddim {
        let text = format!(
            r#"{{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": false,
                "prediction_type": "{kind}"}}"#
        );
        Ddim::new(&SchedulerConfig::parse(&text, "test").unwrap(), 20, eta).unwrap()
    }

    fn values(tensor: &candle_core::Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_log_density_has_the_gradient_of_its_value() {
        let inputs = [1, 2, 3].map(|salt| sample_tensor(&[2, 2, 3, 3], salt).unwrap());
        for kind in ["epsilon", "v_prediction"] {
            let error = gradient_error(&inputs, |inputs| {
                let step = ddim(kind, 0.7).distribution(&inputs[0], 9, &inputs[1]).unwrap();
                Ok(step.log_density(&inputs[2]).unwrap())
            });
            assert!(error.unwrap() < 1e-6, "{kind}");
        }
    }

    #[test]
    fn candidates_are_drawn_around_the_mean_and_the_first_is_the_samplers() {
        let [pred, latents] = [1, 2].map(|salt| sample_tensor(&[2, 4, 8, 8], salt).unwrap());
        let mut ddim = ddim("epsilon", 1.0);
        let step = ddim.distribution(&pred, 9, &latents).unwrap();
        let candidates = step.draw(&[5, 6], 20).unwrap();
        let own = ddim.step(&pred, 9, &latents, &StepNoise::Seeded(vec![5, 6])).unwrap();
        assert_eq!(values(&candidates[0]), values(&own));
        let alone = ddim.distribution(&pred.narrow(0, 1, 1).unwrap(), 9, &latents.narrow(0, 1, 1).unwrap());
        let alone = alone.unwrap().draw(&[6], 3).unwrap();
        assert_eq!(values(&alone[2]), values(&candidates[2].narrow(0, 1, 1).unwrap()));
        let distance = |x: &candle_core::Tensor| values(&((x - &step.mean).unwrap() / step.std).unwrap());
        let all: Vec<f64> = candidates.iter().flat_map(distance).collect();
        let (n, mean) = (all.len() as f64, all.iter().sum::<f64>() / all.len() as f64);
        let variance = all.iter().map(|x| x * x).sum::<f64>() / n;
        // Four standard deviations of the two estimates.
        assert!(mean.abs() < 4.0 / n.sqrt() && (variance - 1.0).abs() < 4.0 * (2.0 / n).sqrt());
        // The entropy of a standard normal number is ½ ln 2πe, whatever its scale but for ln std.
        let mut nats = Vec::new();
        for candidate in &candidates {
            nats.extend(values(&step.log_density(candidate).unwrap()));
        }
        let mean = nats.iter().sum::<f64>() / nats.len() as f64;
        let expected = -0.5 * (std::f64::consts::TAU * std::f64::consts::E).ln() - step.std.ln();
        assert!((mean - expected).abs() < 0.05, "{mean} against {expected}");
    }

    #[test]
    fn from_one_start_the_gradient_points_from_the_loser_to_the_winner() {
        let [pred, latents] = [1, 2].map(|salt| sample_tensor(&[1, 1, 2, 2], salt).unwrap());
        let mean = candle_core::Var::from_tensor(&latents).unwrap();
        let mut step = ddim("epsilon", 1.0).distribution(&pred, 9, &latents).unwrap();
        step.mean = mean.as_tensor().clone();
        let drawn = step.draw(&[5], 2).unwrap();
        let (winner, loser) = (&drawn[0], &drawn[1]);
        let margin = (step.log_density(winner).unwrap() - step.log_density(loser).unwrap()).unwrap();
        let gradient = margin.sum_all().unwrap().backward().unwrap();
        let expected = ((winner - loser).unwrap() / (step.std * step.std * 4.0)).unwrap();
        for (found, expected) in values(gradient.get(&mean).unwrap()).iter().zip(values(&expected)) {
            assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0));
        }
    }

    #[test]
    fn a_step_without_noise_has_no_density_and_seeds_are_counted() {
        let [pred, latents] = [1, 2].map(|salt| sample_tensor(&[2, 1, 2, 2], salt).unwrap());
        let step = ddim("epsilon", 0.0).distribution(&pred, 9, &latents).unwrap();
        let error = step.log_density(&latents).unwrap_err().to_string();
        assert!(error.starts_with("eta: step 9 has no noise"), "{error}");
        // The last step to clean latents, whatever η.
        let step = ddim("epsilon", 1.0).distribution(&pred, 19, &latents).unwrap();
        assert_eq!(step.std, 0.0);
        assert_eq!(step.draw(&[1], 1).unwrap_err().to_string(), "seeds, one per image: expected 2, found 1");
        let other = candle_core::Tensor::zeros((2, 1, 2, 3), candle_core::DType::F64, &Device::Cpu).unwrap();
        let step = ddim("epsilon", 1.0).distribution(&pred, 9, &latents).unwrap();
        assert!(step.log_density(&other).unwrap_err().to_string().starts_with("latents after the step"));
    }
}
