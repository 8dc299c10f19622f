//! Ranked lists: several completions of one prompt with scores, and the pairs that are made of them.

use serde::{Deserialize, Serialize};

use super::row::Text;
use crate::record::ChatOptions;

/// Which pairs a ranked list gives. Completions with equal scores give none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairChoice {
    /// The best completion with the worst: one pair a row.
    #[default]
    BestWorst,
    /// Every completion with every worse one.
    All,
    /// Every completion with the next one in rank.
    Adjacent,
}

impl PairChoice {
    /// The choices with their names in a recipe.
    pub const NAMES: [(Self, &'static str); 3] =
        [(Self::BestWorst, "best_worst"), (Self::All, "all"), (Self::Adjacent, "adjacent")];
}

/// A prompt with completions.
pub(super) struct Ranking {
    pub(super) prompt: Text,
    pub(super) options: ChatOptions,
    /// Completions with their scores, if they have one; a higher score is better.
    pub(super) completions: Vec<(Text, Option<f64>)>,
}

/// The pairs of a list of scores.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pairs {
    /// Places of the better and the worse completion, and the difference of their scores.
    pub(super) pairs: Vec<(usize, usize, f64)>,
    /// Places of the completions of pairs that were not made because the scores are equal, in the order of the file.
    pub(super) ties: Vec<(usize, usize)>,
}

/// Chooses pairs among completions by their scores; what has no score is in none.
pub(super) fn choose(scores: &[Option<f64>], choice: PairChoice) -> Pairs {
    let mut order: Vec<(usize, f64)> =
        scores.iter().enumerate().filter_map(|(idx, score)| Some((idx, (*score)?))).collect();
    // Best first; equal scores stay in the order of the file.
    order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut chosen = Pairs::default();
    let mut add = |better: (usize, f64), worse: (usize, f64)| {
        let margin = better.1 - worse.1;
        if margin > 0.0 {
            chosen.pairs.push((better.0, worse.0, margin));
        } else {
            chosen.ties.push((better.0.min(worse.0), better.0.max(worse.0)));
        }
    };
    match (choice, order.as_slice()) {
        (PairChoice::BestWorst, [best, .., worst]) => add(*best, *worst),
        (PairChoice::BestWorst, _) => {}
        (PairChoice::Adjacent, order) => order.windows(2).for_each(|two| add(two[0], two[1])),
        (PairChoice::All, order) => {
            for (rank, better) in order.iter().enumerate() {
                order[rank + 1..].iter().for_each(|worse| add(*better, *worse));
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [Option<f64>; 5] = [Some(3.0), None, Some(5.0), Some(3.0), Some(1.5)];

    #[test]
    fn best_and_worst_are_one_pair() {
        assert_eq!(choose(&SCORES, PairChoice::BestWorst), Pairs { pairs: vec![(2, 4, 3.5)], ties: vec![] });
        let tied = Pairs { pairs: vec![], ties: vec![(0, 2)] };
        assert_eq!(choose(&[Some(2.0), Some(2.0), Some(2.0)], PairChoice::BestWorst), tied);
        assert_eq!(choose(&[Some(2.0), None], PairChoice::BestWorst), Pairs::default());
    }

    #[test]
    fn adjacent_pairs_follow_the_rank_and_leave_ties_out() {
        let pairs = vec![(2, 0, 2.0), (3, 4, 1.5)];
        assert_eq!(choose(&SCORES, PairChoice::Adjacent), Pairs { pairs, ties: vec![(0, 3)] });
    }

    #[test]
    fn all_pairs_are_each_with_every_worse_one() {
        let pairs = vec![(2, 0, 2.0), (2, 3, 2.0), (2, 4, 3.5), (0, 4, 1.5), (3, 4, 1.5)];
        assert_eq!(choose(&SCORES, PairChoice::All), Pairs { pairs, ties: vec![(0, 3)] });
    }
}
