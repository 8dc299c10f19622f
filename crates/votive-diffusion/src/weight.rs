//! What the denoising error at each timestep counts.
//!
//! Sources: min-SNR-γ, Hang et al. 2023, arXiv:2303.09556; debiased estimation, Yu et al. 2023, arXiv:2310.08442;
//! λ(t), "Rethinking direct preference optimization in diffusion models", arXiv:2505.18736. Departure: implementations
//! of debiased estimation bound SNR by 1000, which only touches the first timesteps; here it is not bounded.
//!
//! Zero terminal SNR: where a formula divides by SNR, an SNR of 0 counts as the smallest one above 0 in the schedule, so
//! that every weight is finite. Where it does not (min-SNR, whose limit is 1 for ε and 0 for v), the limit stands.

use crate::error::{DiffusionError, Result};
use crate::prediction::PredictionType;
use crate::schedule::NoiseSchedule;

/// A factor for the squared error in what the model predicts, at each timestep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossWeight {
    /// 1.
    None,
    /// `min(SNR, γ)/SNR` for ε, `min(SNR, γ)/(SNR+1)` for v: the error in z₀ counts SNR, but γ at most.
    MinSnr {
        /// γ, above 0; 5 in the paper.
        gamma: f64,
    },
    /// `1/√SNR` for ε, `1/(SNR+1)` for v: noisy timesteps count more.
    Debiased,
    /// λ(t) = 1 + 1/√SNR, the latter scaled over the schedule to 0 at its smallest and 1 at its largest: noisy
    /// timesteps count up to twice. The same for every prediction type.
    Rethinking,
}

impl LossWeight {
    /// The factor of every timestep of the schedule, finite and not negative.
    ///
    /// # Errors
    /// As [`LossWeight::check`].
    pub fn factors(self, schedule: &NoiseSchedule) -> Result<Vec<f64>> {
        self.check(schedule)?;
        let count = schedule.num_train_timesteps();
        match self {
            Self::None => Ok(vec![1.0; count]),
            Self::MinSnr { gamma } => {
                (0..count).map(|t| schedule.bounded_snr_weight(t, (0.0, gamma))).collect()
            }
            Self::Debiased if schedule.prediction_type() == PredictionType::VPrediction => {
                (0..count).map(|t| Ok(1.0 / (schedule.snr(t)? + 1.0))).collect()
            }
            Self::Debiased => inverse_roots_of_snr(schedule),
            Self::Rethinking => {
                let roots = inverse_roots_of_snr(schedule)?;
                let least = roots.iter().copied().fold(f64::INFINITY, f64::min);
                let most = roots.iter().copied().fold(0.0, f64::max);
                // A schedule of one timestep has nothing to weigh against.
                let range = if most > least { most - least } else { 1.0 };
                Ok(roots.into_iter().map(|root| 1.0 + (root - least) / range).collect())
            }
        }
    }

    /// Whether the weight exists for this schedule.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`] for a γ that is not above 0, and for the debiased weight of a model that predicts clean
    /// latents, for which there is no formula.
    pub fn check(self, schedule: &NoiseSchedule) -> Result<()> {
        let refuse = |reason| Err(DiffusionError::Setting { setting: "weight", reason });
        match self {
            Self::MinSnr { gamma } if !(gamma.is_finite() && gamma > 0.0) => {
                refuse(format!("gamma is {gamma}, expected a number above 0"))
            }
            Self::Debiased if schedule.prediction_type() == PredictionType::Sample => refuse(
                "the debiased weight is for models that predict noise or velocity, and this one predicts latents"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

/// `1/√SNR` of every timestep.
fn inverse_roots_of_snr(schedule: &NoiseSchedule) -> Result<Vec<f64>> {
    let ratios =
        (0..schedule.num_train_timesteps()).map(|t| schedule.snr(t)).collect::<Result<Vec<f64>>>()?;
    let least = ratios.iter().copied().filter(|snr| *snr > 0.0).fold(f64::INFINITY, f64::min);
    // Without any signal at all, every timestep is alike.
    let least = if least.is_finite() { least } else { 1.0 };
    Ok(ratios.into_iter().map(|snr| snr.max(least).sqrt().recip()).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::SchedulerConfig;

    const KINDS: [&str; 3] = ["epsilon", "v_prediction", "sample"];

    fn schedule(prediction_type: &str, is_rescaled: bool) -> NoiseSchedule {
        let config = format!(
            r#"{{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                "prediction_type": "{prediction_type}", "rescale_betas_zero_snr": {is_rescaled}}}"#
        );
        NoiseSchedule::new(&SchedulerConfig::parse(&config, "test").unwrap()).unwrap()
    }

    #[track_caller]
    fn check(weight: LossWeight, kind: &str, expected: &[(usize, f64)]) {
        let factors = weight.factors(&schedule(kind, false)).unwrap();
        assert_eq!(factors.len(), 1000);
        for (t, expected) in expected {
            let found = factors[*t];
            // 1 − ᾱ_0 is 0.00085 with the rounding of a number near 1 in f32.
            let near = if *t == 0 { 1e-4 } else { 1e-5 };
            assert!((found - expected).abs() < near * expected, "{weight:?} {kind} {t}: {found}");
        }
    }

    #[test]
    fn values_of_stable_diffusion() {
        let min_snr = LossWeight::MinSnr { gamma: 5.0 };
        check(min_snr, "epsilon", &[(0, 0.00425362), (100, 0.591443), (249, 1.0), (999, 1.0)]);
        check(min_snr, "v_prediction", &[(0, 0.00425), (100, 0.528883), (500, 0.276333), (999, 0.0046601)]);
        check(min_snr, "sample", &[(0, 5.0), (249, 2.08102239), (999, 0.00468191671)]);
        // √((1−ᾱ)/ᾱ), which is 1/√SNR, and 1−ᾱ, which is 1/(SNR+1).
        check(LossWeight::Debiased, "epsilon", &[(0, 0.02916716), (500, 1.618279), (999, 14.61464)]);
        check(LossWeight::Debiased, "v_prediction", &[(0, 0.00085), (500, 0.723667316), (999, 0.995339901)]);
        for kind in KINDS {
            let expected = [(0, 1.0), (250, 1.0457052), (500, 1.1089517), (750, 1.2790445), (999, 2.0)];
            check(LossWeight::Rethinking, kind, &expected);
            check(LossWeight::None, kind, &[(0, 1.0), (999, 1.0)]);
        }
    }

    #[test]
    fn every_weight_is_finite_without_terminal_signal() {
        let weights = [
            LossWeight::None,
            LossWeight::MinSnr { gamma: 5.0 },
            LossWeight::Debiased,
            LossWeight::Rethinking,
        ];
        for weight in weights {
            for kind in ["epsilon", "v_prediction"] {
                let factors = weight.factors(&schedule(kind, true)).unwrap();
                assert!(factors.iter().all(|w| w.is_finite() && *w >= 0.0), "{weight:?} {kind}");
            }
        }
        let last = |weight: LossWeight, kind| weight.factors(&schedule(kind, true)).unwrap()[998..].to_vec();
        assert_eq!(last(LossWeight::MinSnr { gamma: 5.0 }, "epsilon"), [1.0; 2]);
        assert_eq!(last(LossWeight::MinSnr { gamma: 5.0 }, "v_prediction")[1], 0.0);
        assert_eq!(last(LossWeight::Debiased, "v_prediction")[1], 1.0);
        assert_eq!(last(LossWeight::Rethinking, "epsilon"), [2.0; 2]);
        let debiased = last(LossWeight::Debiased, "epsilon");
        assert_eq!(debiased[0], debiased[1]);
    }

    #[test]
    fn weights_that_do_not_exist_are_refused() {
        let refused = |weight: LossWeight, kind, part: &str| {
            let error = weight.factors(&schedule(kind, false)).unwrap_err().to_string();
            assert!(error.starts_with("weight: ") && error.contains(part), "{error}");
        };
        refused(LossWeight::MinSnr { gamma: 0.0 }, "epsilon", "gamma is 0");
        refused(LossWeight::MinSnr { gamma: f64::NAN }, "epsilon", "gamma is NaN");
        refused(LossWeight::Debiased, "sample", "predicts latents");
    }
}
