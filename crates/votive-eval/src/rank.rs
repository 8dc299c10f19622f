//! Ranking accuracy: how often a model finds the chosen completion likelier than the rejected one.
//!
//! Chen et al., "Preference learning algorithms do not learn preference rankings" (arXiv:2405.19534): models trained on preferences
//! rank few of their pairs rightly, even where the optimum of their objective would. What the optimum ranks rightly is the
//! idealised accuracy (Section 3), and the difference the alignment gap.

use crate::gain::{Share, share};
use serde::Serialize;

/// What policy and reference say of a pair, chosen first.
#[derive(Clone, Copy, Debug)]
pub struct RankedPair {
    /// Σ log π, in nats.
    pub policy: [f64; 2],
    /// Σ log π_ref, in nats.
    pub reference: [f64; 2],
    /// Tokens.
    pub lengths: [usize; 2],
}

impl RankedPair {
    /// Log-probability per token of both sides.
    fn per_token(&self, logps: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|side| logps[side] / self.lengths[side].max(1) as f64)
    }

    /// `log π*(y_w) − log π*(y_l)` of the optimum of RLHF and DPO, where a share α of people prefers y_w.
    ///
    /// `π*(y_w)/π*(y_l) = π_ref(y_w)/π_ref(y_l) · (α/(1 − α))^(1/β)`: Chen et al., Proposition 3.1.
    fn ideal(&self, beta: f64, label_share: f64) -> f64 {
        self.reference[0] - self.reference[1] + (label_share / (1.0 - label_share)).ln() / beta
    }
}

/// Ranking accuracies over pairs, in points of 100 with 95 % intervals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RankAccuracy {
    /// `log π(y_w) > log π(y_l)`.
    pub policy: Share,
    /// The same per token.
    pub policy_per_token: Share,
    /// Of the reference.
    pub reference: Share,
    /// The same per token.
    pub reference_per_token: Share,
    /// `log π(y_w)/π_ref(y_w) > log π(y_l)/π_ref(y_l)`: what training logs as `rewards/accuracies`.
    pub rewards: Share,
    /// Pairs that the reference ranks wrongly and the policy rightly.
    pub learnt: usize,
    /// The other way round.
    pub lost: usize,
    /// What the optimum ranks rightly, if the share of people behind a label is known.
    pub idealised: Option<Share>,
    /// Idealised accuracy minus the policy's, in points of 100.
    pub alignment_gap: Option<f64>,
}

/// Ranks pairs; `label_share` is the share of people, above ½, that prefers what is labelled chosen, β that of training.
#[must_use]
pub fn rank_accuracy(pairs: &[RankedPair], beta: f64, label_share: Option<f64>) -> RankAccuracy {
    let of = |is_right: &dyn Fn(&RankedPair) -> bool| share(&pairs.iter().map(is_right).collect::<Vec<_>>());
    let is_right = |logps: [f64; 2]| logps[0] > logps[1];
    let count = |change: [bool; 2]| {
        let changes = pairs.iter().filter(|p| [is_right(p.reference), is_right(p.policy)] == change);
        changes.count()
    };
    let policy = of(&|p| is_right(p.policy));
    let idealised = label_share.map(|label_share| of(&|p| p.ideal(beta, label_share) > 0.0));
    RankAccuracy {
        policy,
        policy_per_token: of(&|p| is_right(p.per_token(p.policy))),
        reference: of(&|p| is_right(p.reference)),
        reference_per_token: of(&|p| is_right(p.per_token(p.reference))),
        rewards: of(&|p| p.policy[0] - p.reference[0] > p.policy[1] - p.reference[1]),
        learnt: count([false, true]),
        lost: count([true, false]),
        idealised,
        alignment_gap: idealised.map(|ideal| ideal.value - policy.value),
    }
}

/// How a reward model ranks pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RewardAccuracy {
    /// Pairs whose chosen completion has the greater reward, as RewardBench counts them (Lambert et al., arXiv:2403.13787), in
    /// points of 100 with a 95 % interval.
    pub accuracy: Share,
    /// Pairs with equal rewards, which are not right.
    pub ties: usize,
    /// Mean of the differences, in the model's own unit.
    pub margin: f64,
}

/// Ranks pairs by the rewards of their chosen and rejected completions.
#[must_use]
pub fn reward_accuracy(pairs: &[[f64; 2]]) -> RewardAccuracy {
    let differences: Vec<f64> = pairs.iter().map(|[chosen, rejected]| chosen - rejected).collect();
    RewardAccuracy {
        accuracy: share(&differences.iter().map(|difference| *difference > 0.0).collect::<Vec<_>>()),
        ties: differences.iter().filter(|difference| **difference == 0.0).count(),
        margin: differences.iter().sum::<f64>() / differences.len().max(1) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(policy: [f64; 2], reference: [f64; 2], lengths: [usize; 2]) -> RankedPair {
        RankedPair { policy, reference, lengths }
    }

    #[test]
    fn pairs_done_by_hand() {
        let pairs = [
            // Learnt; longer, and still likelier by token.
            pair([-10.0, -12.0], [-11.0, -10.0], [5, 4]),
            // The margin grew, the ranking is still wrong.
            pair([-20.0, -12.0], [-25.0, -13.0], [10, 4]),
            // Lost.
            pair([-9.0, -8.0], [-5.0, -6.0], [3, 2]),
            // A tie is not right.
            pair([-3.0, -3.0], [-4.0, -3.0], [1, 1]),
        ];
        let found = rank_accuracy(&pairs, 0.1, Some(0.75));
        assert_eq!((found.policy.value, found.reference.value), (25.0, 25.0));
        assert_eq!((found.policy_per_token.value, found.learnt, found.lost), (75.0, 1, 1));
        assert_eq!(found.rewards.value, 75.0);
        // ln 3/0.1 = 10.99 nats: all but the second, which the reference puts 12 apart.
        assert_eq!(found.idealised.map(|ideal| ideal.value), Some(75.0));
        assert_eq!(found.alignment_gap, Some(50.0));
        assert_eq!(rank_accuracy(&pairs, 0.1, None).idealised, None);
    }

    #[test]
    fn a_tie_of_rewards_is_not_right() {
        let found = reward_accuracy(&[[2.0, 1.0], [0.5, 0.5], [-1.0, 3.0], [4.0, 0.5]]);
        assert_eq!((found.accuracy.value, found.ties, found.margin), (50.0, 1, 0.125));
    }

    #[test]
    fn a_ranking_is_right_where_the_loss_is_below_that_of_the_reference_turned_round() {
        // Chen et al., Theorem 4.1: with c = log π_ref(y_l) − log π_ref(y_w), right if and only if L_DPO ≤ −log σ(β·c).
        let loss = |x: f64| (-x).exp().ln_1p();
        for i in 0..200 {
            let at = |k: i32| f64::from((i * 37 + k * 101) % 83) / 7.0 - 6.0;
            let pair = pair([at(1), at(2)], [at(3), at(4)], [1, 1]);
            let margin = (pair.policy[0] - pair.reference[0]) - (pair.policy[1] - pair.reference[1]);
            let bound = loss(0.3 * (pair.reference[1] - pair.reference[0]));
            let is_right = rank_accuracy(&[pair], 0.3, None).policy.value == 100.0;
            if (loss(0.3 * margin) - bound).abs() > 1e-12 {
                assert_eq!(is_right, loss(0.3 * margin) < bound, "{pair:?}");
            }
        }
    }
}
