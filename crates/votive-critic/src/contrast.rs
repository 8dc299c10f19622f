//! From a judge's own answers to pairs that it can learn from: what was right against what was wrong.
//!
//! # Source
//! Con-J (its authors' code): of several answers to one question, right verdicts are preferred to wrong ones, up to three pairs,
//! and one right verdict to an answer that is none. GenRM's STaR-DPO takes the same pairs. Genii needs no label: the answer that
//! agrees most with those of the others is preferred to the one that agrees least.

use crate::judgment::{Finding, Winner};

/// Two answers of which the first is preferred, by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contrast {
    /// Place of the answer whose verdict is right.
    pub chosen: usize,
    /// Place of the other one.
    pub rejected: usize,
}

/// Pairs of the answers to one question whose winner is known: at most `most` of a right verdict against a wrong one, no answer
/// twice on the same side, and one of a right verdict against an answer without a verdict.
///
/// A tie is a wrong verdict. Equal words are one answer. Without a right verdict there is no pair.
#[must_use]
pub fn contrast(answers: &[(&str, &Finding)], truth: Winner, most: usize) -> Vec<Contrast> {
    let is_first_of_its_words =
        |place: &usize| answers[..*place].iter().all(|(words, _)| *words != answers[*place].0);
    let with = |wanted: &dyn Fn(Option<Winner>) -> bool| -> Vec<usize> {
        let places = (0..answers.len()).filter(is_first_of_its_words);
        places.filter(|place| wanted(answers[*place].1.winner())).collect()
    };
    let right = with(&|winner| winner == Some(truth));
    let wrong = with(&|winner| winner.is_some_and(|winner| winner != truth));
    let silent = with(&|winner| winner.is_none());
    let pairs = right.iter().zip(&wrong).take(most);
    let against_silence = right.first().zip(silent.first());
    pairs
        .chain(against_silence)
        .map(|(chosen, rejected)| Contrast { chosen: *chosen, rejected: *rejected })
        .collect()
}

/// The answers that agree most and least with all others: places of the largest and of the smallest mean similarity, as
/// `similarities[i][j]` has them; what an answer has with itself does not count.
///
/// None if all agree alike: there would be nothing to prefer.
///
/// # Source
/// Genii, group-based polling. How similarity is measured was not to be confirmed from the paper's text; it is given here.
#[must_use]
pub fn most_and_least_consistent(similarities: &[Vec<f64>]) -> Option<Contrast> {
    let mean = |(place, row): (usize, &Vec<f64>)| {
        let others: Vec<f64> =
            row.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, value)| *value).collect();
        others.iter().sum::<f64>() / others.len().max(1) as f64
    };
    let means: Vec<f64> = similarities.iter().enumerate().map(mean).collect();
    let place_of = |better: fn(f64, f64) -> bool| {
        (0..means.len()).reduce(|best, other| if better(means[other], means[best]) { other } else { best })
    };
    let (chosen, rejected) = (place_of(|a, b| a > b)?, place_of(|a, b| a < b)?);
    (means[chosen] > means[rejected]).then_some(Contrast { chosen, rejected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judgment::Abstention;

    const FIRST: Finding = Finding::Preference(1.0);
    const SECOND: Finding = Finding::Preference(0.0);
    const TIE: Finding = Finding::Preference(0.5);

    fn silent() -> Finding {
        Finding::Abstention(Abstention::Malformed(String::new()))
    }

    #[test]
    fn right_is_preferred_to_wrong_and_never_to_right() {
        let silent = silent();
        let answers = [
            ("a", &FIRST),
            ("b", &SECOND),
            ("a", &FIRST),
            ("c", &FIRST),
            ("d", &TIE),
            ("e", &silent),
            ("f", &SECOND),
        ];
        let of = |truth, most| -> Vec<(usize, usize)> {
            contrast(&answers, truth, most).iter().map(|pair| (pair.chosen, pair.rejected)).collect()
        };
        assert_eq!(of(Winner::First, 3), [(0, 1), (3, 4), (0, 5)]);
        assert_eq!(of(Winner::First, 1), [(0, 1), (0, 5)]);
        assert_eq!(of(Winner::Second, 3), [(1, 0), (6, 3), (1, 5)]);
    }

    #[test]
    fn without_a_right_verdict_nothing_is_learnt() {
        let silent = silent();
        assert!(contrast(&[("a", &FIRST), ("b", &silent)], Winner::Second, 3).is_empty());
        assert!(contrast(&[("a", &FIRST), ("b", &FIRST)], Winner::First, 3).is_empty());
        assert!(contrast(&[], Winner::First, 3).is_empty());
    }

    #[test]
    fn the_group_decides_who_is_odd() {
        let of = |rows: [[f64; 3]; 3]| most_and_least_consistent(&rows.map(|row| row.to_vec()));
        let odd = of([[1.0, 0.9, 0.2], [0.9, 1.0, 0.3], [0.2, 0.3, 1.0]]);
        assert_eq!(odd, Some(Contrast { chosen: 1, rejected: 2 }));
        assert_eq!(of([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0]]), None);
        assert_eq!(most_and_least_consistent(&[]), None);
    }
}
