//! What a network predicts, and how latents and noise follow from it.
//!
//! With `z_t = α z₀ + σ ε` and `α² + σ² = 1`, both z₀ and ε are linear in (z_t, prediction), so each conversion is
//! just a pair of weights. Source: Salimans & Ho 2022, arXiv:2202.00512, section 4 and appendix D for `v`.

/// What the network's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictionType {
    /// The noise ε.
    Epsilon,
    /// The velocity `v = α ε − σ z₀`.
    VPrediction,
    /// The clean latents z₀.
    Sample,
}

impl PredictionType {
    /// The values of `prediction_type` in `scheduler_config.json`.
    pub(crate) const NAMES: &[(&'static str, PredictionType)] =
        &[("epsilon", Self::Epsilon), ("v_prediction", Self::VPrediction), ("sample", Self::Sample)];

    /// Weights of (noisy latents, prediction) in the clean latents.
    pub(crate) fn clean_weights(self, alpha: f64, sigma: f64) -> (f64, f64) {
        match self {
            Self::Epsilon => (1.0 / alpha, -sigma / alpha),
            Self::VPrediction => (alpha, -sigma),
            Self::Sample => (0.0, 1.0),
        }
    }

    /// Weights of (noisy latents, prediction) in the noise.
    pub(crate) fn noise_weights(self, alpha: f64, sigma: f64) -> (f64, f64) {
        match self {
            Self::Epsilon => (0.0, 1.0),
            Self::VPrediction => (sigma, alpha),
            Self::Sample => (1.0 / sigma, -alpha / sigma),
        }
    }

    /// Weights of (clean latents, noise) in the training target.
    pub(crate) fn target_weights(self, alpha: f64, sigma: f64) -> (f64, f64) {
        match self {
            Self::Epsilon => (0.0, 1.0),
            Self::VPrediction => (-sigma, alpha),
            Self::Sample => (1.0, 0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The target, seen as the network's output, gives back the latents and the noise it was made of.
    #[test]
    fn conversions_invert_the_target() {
        let (alpha, sigma, clean, noise) = (0.8, 0.6, 1.25, -0.5);
        let noisy = alpha * clean + sigma * noise;
        for (name, kind) in PredictionType::NAMES {
            let dot = |weights: (f64, f64), left: f64, right: f64| weights.0 * left + weights.1 * right;
            let output = dot(kind.target_weights(alpha, sigma), clean, noise);
            assert!((dot(kind.clean_weights(alpha, sigma), noisy, output) - clean).abs() < 1e-12, "{name}");
            assert!((dot(kind.noise_weights(alpha, sigma), noisy, output) - noise).abs() < 1e-12, "{name}");
        }
    }
}
