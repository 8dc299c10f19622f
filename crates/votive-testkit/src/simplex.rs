//! Probabilities: softmax, tilts, distances.

/// σ(x).
#[must_use]
pub fn logistic(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x > 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// The softmax of logits.
#[must_use]
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    normalised(logits.iter().map(|logit| (logit - most).exp()).collect())
}

/// Weights divided by their sum.
#[must_use]
pub fn normalised(weights: Vec<f64>) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// `π ∝ base·exp(exponents)`.
#[must_use]
pub fn tilted(base: &[f64], exponents: &[f64]) -> Vec<f64> {
    softmax(&base.iter().zip(exponents).map(|(p, x)| p.ln() + x).collect::<Vec<_>>())
}

/// The mean of some values.
#[must_use]
pub fn mean(policy: &[f64], values: &[f64]) -> f64 {
    policy.iter().zip(values).map(|(p, x)| p * x).sum()
}

/// KL(p ‖ q), nats.
#[must_use]
pub fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| if *p > 0.0 { p * (p / q).ln() } else { 0.0 }).sum()
}

/// The largest difference of two probabilities.
#[must_use]
pub fn distance(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| (p - q).abs()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilt_and_its_divergence() {
        let p = tilted(&[0.5, 0.25, 0.25], &[0.0, 2f64.ln(), 0.0]);
        assert!(distance(&p, &[0.4, 0.4, 0.2]) < 1e-15);
        assert!((kl(&p, &[0.4, 0.2, 0.4]) - 0.2 * 2f64.ln()).abs() < 1e-15);
        assert!((mean(&p, &[1.0, 2.0, 3.0]) - 1.8).abs() < 1e-15);
        assert!((logistic(3f64.ln()) - 0.75).abs() < 1e-15 && (logistic(-3f64.ln()) - 0.25).abs() < 1e-15);
    }
}
