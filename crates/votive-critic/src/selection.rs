//! From comparisons among the candidates of a prompt to one pair to learn from.

use crate::judgment::Finding;

/// A pair to learn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selected {
    /// Place of the better candidate.
    pub chosen: usize,
    /// Place of the worse one.
    pub rejected: usize,
    /// Probability that the chosen one is better, as they were compared directly.
    pub probability: f64,
    /// Mean probability with which each beats the others that it was compared with: of the chosen, then of the rejected.
    pub scores: [f64; 2],
}

/// Why there is no pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoPair {
    /// No two candidates were compared with a result.
    Undecided,
    /// All candidates are equally good.
    Tied,
    /// The best and the worst by all comparisons were not found so when they were compared directly.
    Contradicted,
    /// They were, but with less than the probability that was asked for.
    Unsure,
}

impl NoPair {
    /// The reason in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecided => "no comparison was decided",
            Self::Tied => "all candidates are equally good",
            Self::Contradicted => "best and worst were not found so when compared directly",
            Self::Unsure => "the judge was not sure enough",
        }
    }
}

/// The best candidate against the worst, by the mean probability of beating another, provided that the two were also
/// compared directly, with at least the probability `least` for the better one.
///
/// `comparisons` are (first, second, what was found of the two in this order); abstentions say nothing.
///
/// # Errors
/// If there is no such pair.
pub fn best_against_worst(comparisons: &[(usize, usize, &Finding)], least: f64) -> Result<Selected, NoPair> {
    let mut sums: Vec<(f64, usize)> = Vec::new();
    let mut directly = Vec::new();
    for (first, second, finding) in comparisons {
        let Finding::Preference(probability) = finding else { continue };
        sums.resize(sums.len().max(first + 1).max(second + 1), (0.0, 0));
        for (place, probability) in [(*first, *probability), (*second, 1.0 - probability)] {
            sums[place] = (sums[place].0 + probability, sums[place].1 + 1);
        }
        directly.push((*first, *second, *probability));
    }
    let compared = sums.iter().enumerate().filter(|(_, (_, n))| *n > 0);
    let scores: Vec<(usize, f64)> = compared.map(|(place, (sum, n))| (place, sum / *n as f64)).collect();
    // Of equals the first: which one it is must not depend on anything but the candidates.
    let best = scores.iter().copied().reduce(|best, other| if other.1 > best.1 { other } else { best });
    let worst = scores.iter().copied().reduce(|worst, other| if other.1 < worst.1 { other } else { worst });
    let (Some(best), Some(worst)) = (best, worst) else { return Err(NoPair::Undecided) };
    if best.1 <= worst.1 {
        return Err(NoPair::Tied);
    }
    let direct = directly.iter().find_map(|(first, second, probability)| match (*first, *second) {
        pair if pair == (best.0, worst.0) => Some(*probability),
        pair if pair == (worst.0, best.0) => Some(1.0 - probability),
        _ => None,
    });
    match direct {
        Some(probability) if probability > 0.5 && probability >= least => {
            Ok(Selected { chosen: best.0, rejected: worst.0, probability, scores: [best.1, worst.1] })
        }
        Some(probability) if probability > 0.5 => Err(NoPair::Unsure),
        _ => Err(NoPair::Contradicted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judgment::Abstention;

    fn select(comparisons: &[(usize, usize, f64)], least: f64) -> Result<(usize, usize), NoPair> {
        let findings: Vec<Finding> = comparisons.iter().map(|(_, _, p)| Finding::Preference(*p)).collect();
        let all: Vec<_> = comparisons.iter().zip(&findings).map(|((a, b, _), f)| (*a, *b, f)).collect();
        best_against_worst(&all, least).map(|selected| (selected.chosen, selected.rejected))
    }

    #[test]
    fn the_best_is_chosen_over_the_worst() {
        let all = [(0, 1, 0.9), (0, 2, 0.6), (1, 2, 0.2)];
        assert_eq!(select(&all, 0.5), Ok((0, 1)));
        assert_eq!(select(&all, 0.95), Err(NoPair::Unsure));
        // The same with every pair named the other way round.
        let turned = all.map(|(a, b, p)| (b, a, 1.0 - p));
        assert_eq!(select(&turned, 0.5), Ok((0, 1)));
    }

    #[test]
    fn where_nothing_is_better_there_is_no_pair() {
        assert_eq!(select(&[], 0.5), Err(NoPair::Undecided));
        assert_eq!(select(&[(0, 1, 0.5)], 0.5), Err(NoPair::Tied));
        assert_eq!(select(&[(0, 1, 0.9), (1, 2, 0.9), (2, 0, 0.9)], 0.5), Err(NoPair::Tied));
        let silent = Finding::Abstention(Abstention::OrderFlip);
        assert_eq!(best_against_worst(&[(0, 1, &silent)], 0.5), Err(NoPair::Undecided));
    }

    #[test]
    fn a_pair_that_was_found_the_other_way_round_is_none() {
        // 0 beats 2 and 3 by far, 1 loses to them, and yet 1 was preferred to 0.
        let all = [(0, 1, 0.4), (0, 2, 1.0), (0, 3, 1.0), (1, 2, 0.0), (1, 3, 0.0)];
        assert_eq!(select(&all, 0.5), Err(NoPair::Contradicted));
        // Never compared directly.
        assert_eq!(select(&[(0, 1, 0.9), (1, 2, 0.6), (3, 2, 0.9)], 0.5).err(), Some(NoPair::Contradicted));
    }
}
