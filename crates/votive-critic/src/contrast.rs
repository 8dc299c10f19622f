//! From a judge's own answers to pairs that it can learn from: what was right against what was wrong.
//!
//! # Source
//! Con-J (its authors' code): of several answers to one question, right verdicts are preferred to wrong ones, up to three pairs,
//! and one right verdict to an answer that is none. GenRM's STaR-DPO takes the same pairs.

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
}
