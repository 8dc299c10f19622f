//! Sequences of a few tokens: every beginning is a state, every token an action, and whole sequences have rewards.

use crate::simplex::{softmax, tilted};

/// All sequences of `depth` tokens out of `width`, with a reference at every beginning and a reward at every end.
///
/// A beginning is the number that its tokens spell in base `width`, among the beginnings of its length.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Tokens of a sequence.
    pub depth: usize,
    /// Tokens to choose from.
    pub width: usize,
    /// π_ref of the next token, by length of the beginning and by beginning.
    pub reference: Vec<Vec<Vec<f64>>>,
    /// r of every sequence, nats.
    pub rewards: Vec<f64>,
}

/// What is best in a tree that pays β a nat: V of every beginning, and the policy at it.
#[derive(Clone, Debug)]
pub struct Solution {
    /// V*, by length and beginning; at full length the rewards.
    pub values: Vec<Vec<f64>>,
    /// π*, by length and beginning.
    pub policy: Vec<Vec<Vec<f64>>>,
}

impl Tree {
    /// A tree of made numbers, each different.
    #[must_use]
    pub fn made(depth: usize, width: usize) -> Self {
        // Irregular, and the same on every machine.
        let number = |i: usize| (1.7 * i as f64).sin() + 0.5 * (0.9 * (i * i) as f64).cos();
        let node = |length: usize, at: usize| -> Vec<f64> {
            softmax(&(0..width).map(|token| number(100 * length + 10 * at + token)).collect::<Vec<_>>())
        };
        let level = |length: usize| (0..width.pow(length as u32)).map(|at| node(length, at)).collect();
        let rewards = (0..width.pow(depth as u32)).map(|leaf| number(1000 + 3 * leaf)).collect();
        Self { depth, width, reference: (0..depth).map(level).collect(), rewards }
    }

    /// The beginnings that a sequence goes through with the token it takes at each.
    pub fn path(&self, leaf: usize) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        (0..self.depth).map(move |length| {
            let rest = self.width.pow((self.depth - length) as u32);
            let below = rest / self.width;
            (length, leaf / rest, leaf % rest / below)
        })
    }

    /// The probability of every sequence under a policy at every beginning.
    #[must_use]
    pub fn sequences(&self, policy: &[Vec<Vec<f64>>]) -> Vec<f64> {
        let probability =
            |leaf| self.path(leaf).map(|(length, at, token)| policy[length][at][token]).product();
        (0..self.rewards.len()).map(probability).collect()
    }

    /// Soft value iteration: `V(s) = β·log Σ_a π_ref(a|s)·exp(V(sa)/β)`, `π*(a|s) = π_ref(a|s)·exp((V(sa) − V(s))/β)`.
    #[must_use]
    pub fn solution(&self, beta: f64) -> Solution {
        let mut values = vec![self.rewards.clone()];
        let mut policy = Vec::new();
        for length in (0..self.depth).rev() {
            let after = &values[0];
            let level = &self.reference[length];
            let gains = |at: usize| -> Vec<f64> {
                (0..self.width).map(|token| after[at * self.width + token] / beta).collect()
            };
            let value = |at: usize| {
                let sum: f64 = level[at].iter().zip(gains(at)).map(|(p, gain)| p * gain.exp()).sum();
                beta * sum.ln()
            };
            let here: Vec<f64> = (0..level.len()).map(value).collect();
            policy.insert(0, (0..level.len()).map(|at| tilted(&level[at], &gains(at))).collect());
            values.insert(0, here);
        }
        Solution { values, policy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simplex::{distance, normalised};

    #[test]
    fn the_best_tokens_make_the_best_sequences() {
        let (tree, beta) = (Tree::made(3, 3), 0.5);
        let found = tree.sequences(&tree.solution(beta).policy);
        let reference = tree.sequences(&tree.reference);
        let gibbs =
            normalised(reference.iter().zip(&tree.rewards).map(|(p, r)| p * (r / beta).exp()).collect());
        assert!(distance(&found, &gibbs) < 1e-15);
    }

    #[test]
    fn a_sequence_goes_from_the_root_to_its_leaf() {
        let tree = Tree::made(3, 2);
        assert_eq!(tree.path(6).collect::<Vec<_>>(), [(0, 0, 1), (1, 1, 1), (2, 3, 0)]);
    }
}
