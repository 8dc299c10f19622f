//! Two policies answer, and a preference that may run in circles decides who wins.

use crate::simplex::{kl, mean, tilted};

/// A symmetric game: `wins[i][j]` is P(i ≻ j), and `wins[j][i] = 1 − wins[i][j]`.
#[derive(Clone, Debug)]
pub struct Game {
    /// P(i ≻ j).
    pub wins: Vec<Vec<f64>>,
}

impl Game {
    /// The game of some completions by the probabilities above the diagonal, row by row.
    #[must_use]
    pub fn new(completions: usize, above: &[f64]) -> Self {
        let mut wins = vec![vec![0.5; completions]; completions];
        let pairs = (0..completions).flat_map(|i| (i + 1..completions).map(move |j| (i, j)));
        for ((i, j), p) in pairs.zip(above) {
            (wins[i][j], wins[j][i]) = (*p, 1.0 - p);
        }
        Self { wins }
    }

    /// Rock, paper, scissors, where the better one wins with this probability.
    #[must_use]
    pub fn cycle(better: f64) -> Self {
        Self::new(3, &[better, 1.0 - better, better])
    }

    /// P(i ≻ π) of every completion.
    #[must_use]
    pub fn against(&self, policy: &[f64]) -> Vec<f64> {
        self.wins.iter().map(|row| mean(policy, row)).collect()
    }

    /// The policy that does best against `opponent` and pays β a nat of divergence from `reference`.
    #[must_use]
    pub fn best_response(&self, opponent: &[f64], reference: &[f64], beta: f64) -> Vec<f64> {
        tilted(reference, &self.against(opponent).iter().map(|p| p / beta).collect::<Vec<_>>())
    }

    /// How much more the best responses to a policy get than it gets against itself, both players together, in the game
    /// that pays β a nat: 0 at its equilibrium alone.
    #[must_use]
    pub fn dual_gap(&self, policy: &[f64], reference: &[f64], beta: f64) -> f64 {
        let best = self.best_response(policy, reference, beta);
        let payoff = |p: &[f64]| mean(p, &self.against(policy)) - beta * kl(p, reference);
        2.0 * (payoff(&best) - payoff(policy))
    }

    /// The same without a price: how far the worst case is below an even chance, twice.
    #[must_use]
    pub fn exploitability(&self, policy: &[f64]) -> f64 {
        let most = self.against(policy).into_iter().fold(0.0, f64::max);
        2.0 * (most - 0.5)
    }

    /// One step of online mirror descent: `π ∝ exp(P(· ≻ current)/η)·reference^(τ/η)·current^(1 − τ/η)`.
    #[must_use]
    pub fn mirror_step(&self, current: &[f64], reference: &[f64], (eta, tau): (f64, f64)) -> Vec<f64> {
        let share = tau / eta;
        let wins = self.against(current);
        let exponents: Vec<f64> = (0..current.len())
            .map(|i| wins[i] / eta + share * (reference[i].ln() - current[i].ln()))
            .collect();
        tilted(current, &exponents)
    }

    /// The equilibrium of the game that pays τ a nat, by mirror descent that is damped until it settles.
    #[must_use]
    pub fn equilibrium(&self, reference: &[f64], tau: f64) -> Vec<f64> {
        let eta = (3.0 * tau).max(1.0);
        let steps = (60.0 * eta / tau) as usize;
        (0..steps).fold(reference.to_vec(), |policy, _| self.mirror_step(&policy, reference, (eta, tau)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simplex::distance;

    #[test]
    fn an_equilibrium_is_its_own_best_response() {
        let (game, reference) = (Game::new(3, &[0.9, 0.2, 0.8]), [4.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0]);
        let nash = game.equilibrium(&reference, 0.1);
        assert!(distance(&nash, &game.best_response(&nash, &reference, 0.1)) < 1e-9);
        assert!(game.dual_gap(&nash, &reference, 0.1).abs() < 1e-9);
        assert!(game.dual_gap(&reference, &reference, 0.1) > 0.08);
        assert!(distance(&nash, &[0.405_856, 0.153_043, 0.441_101]) < 1e-6);
    }

    #[test]
    fn the_even_mixture_of_a_cycle_cannot_be_exploited() {
        let game = Game::cycle(0.9);
        assert!(game.exploitability(&[1.0 / 3.0; 3]).abs() < 1e-15);
        assert!((game.exploitability(&[1.0, 0.0, 0.0]) - 0.8).abs() < 1e-15);
    }
}
