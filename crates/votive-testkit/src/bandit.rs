//! One prompt, a few completions, a reward for each, and people who compare them as Bradley and Terry say.

use crate::simplex::{kl, logistic, mean, tilted};

/// A prompt's completions: what the reference makes of them and what they are worth.
#[derive(Clone, Debug)]
pub struct Bandit {
    /// π_ref.
    pub reference: Vec<f64>,
    /// r, nats of preference.
    pub rewards: Vec<f64>,
}

impl Bandit {
    /// P(i ≻ j) = σ(r_i − r_j).
    #[must_use]
    pub fn prefers(&self, i: usize, j: usize) -> f64 {
        logistic(self.rewards[i] - self.rewards[j])
    }

    /// The policy that maximises `E r − β·KL(π ‖ π_ref)`: `π_ref·exp(r/β)/Z`.
    #[must_use]
    pub fn gibbs(&self, beta: f64) -> Vec<f64> {
        tilted(&self.reference, &self.rewards.iter().map(|reward| reward / beta).collect::<Vec<_>>())
    }

    /// What it maximises.
    #[must_use]
    pub fn value(&self, policy: &[f64], beta: f64) -> f64 {
        mean(policy, &self.rewards) - beta * kl(policy, &self.reference)
    }

    /// The mean probability that each completion beats a uniform one, itself included as a tie.
    #[must_use]
    pub fn mean_wins(&self) -> Vec<f64> {
        let n = self.rewards.len();
        (0..n).map(|i| (0..n).map(|j| self.prefers(i, j)).sum::<f64>() / n as f64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_policy_near_the_gibbs_policy_is_worth_more() {
        let bandit = Bandit { reference: vec![0.2, 0.5, 0.3], rewards: vec![1.0, -0.5, 0.25] };
        let (best, beta) = (bandit.gibbs(0.5), 0.5);
        let log_sum = |x: &[f64]| mean(&bandit.reference, x).ln() * beta;
        let free = log_sum(&bandit.rewards.iter().map(|r| (r / beta).exp()).collect::<Vec<_>>());
        assert!((bandit.value(&best, beta) - free).abs() < 1e-14, "the value is β·log E_ref exp(r/β)");
        for (i, j) in [(0, 1), (1, 2), (2, 0)] {
            let mut other = best.clone();
            other[i] -= 0.01;
            other[j] += 0.01;
            assert!(bandit.value(&other, beta) < bandit.value(&best, beta));
        }
    }
}
