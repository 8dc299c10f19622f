//! Leanings towards what has nothing to do with the question: a property such as length or brightness, or a judge's own work.

use crate::gain::{Share, share};
use serde::Serialize;
use votive_critic::Winner;

/// A leaning towards candidates with more of a property.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leaning {
    /// Verdicts for the candidate that has more of it, where neither is better in truth; 50 without a leaning.
    pub of_equals: Share,
    /// Right verdicts where the better one has more of it.
    pub right_with: Share,
    /// Right verdicts where the better one has less of it.
    pub right_against: Share,
}

/// How a judge leans: `(verdict, truth, property of the first minus that of the second)` of each pair. Pairs with an equal
/// property, and ties by the judge, are left out.
#[must_use]
pub fn leaning(pairs: &[(Winner, Winner, f64)]) -> Leaning {
    let has_more = |verdict: Winner, difference: f64| (verdict == Winner::First) == (difference > 0.0);
    let decided = || pairs.iter().filter(|(verdict, _, d)| *verdict != Winner::Tie && *d != 0.0);
    let where_truth = |side: Option<bool>| -> Vec<&(Winner, Winner, f64)> {
        let of = |truth: Winner, d: f64| (truth != Winner::Tie).then(|| has_more(truth, d));
        decided().filter(|(_, truth, d)| of(*truth, *d) == side).collect()
    };
    let hits = |pairs: Vec<&(Winner, Winner, f64)>| {
        share(&pairs.iter().map(|(verdict, truth, _)| verdict == truth).collect::<Vec<_>>())
    };
    let more: Vec<bool> = where_truth(None).iter().map(|(verdict, _, d)| has_more(*verdict, *d)).collect();
    Leaning {
        of_equals: share(&more),
        right_with: hits(where_truth(Some(true))),
        right_against: hits(where_truth(Some(false))),
    }
}

/// A leaning towards a judge's own work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SelfPreference {
    /// Verdicts for its own candidate where the other is better.
    pub own_though_worse: Share,
    /// Verdicts for the other candidate where its own is better.
    pub other_though_worse: Share,
}

/// How a judge treats its own work: `(verdict, truth)` of pairs whose first candidate is its own.
#[must_use]
pub fn self_preference(pairs: &[(Winner, Winner)]) -> SelfPreference {
    let picks = |truth: Winner, picked: Winner| {
        let of = pairs.iter().filter(|(_, other)| *other == truth);
        share(&of.map(|(verdict, _)| *verdict == picked).collect::<Vec<_>>())
    };
    SelfPreference {
        own_though_worse: picks(Winner::Second, Winner::First),
        other_though_worse: picks(Winner::First, Winner::Second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use votive_critic::Winner::{First, Second, Tie};

    #[test]
    fn whoever_takes_the_longer_one_is_right_where_that_is_right() {
        // The longer one is always taken.
        let pairs = [
            (First, First, 3.0),
            (Second, First, -2.0),
            (First, Tie, 1.0),
            (Second, Tie, -1.0),
            (First, First, 0.0),
        ];
        let found = leaning(&pairs);
        assert_eq!((found.of_equals.value, found.of_equals.n), (100.0, 2));
        assert_eq!((found.right_with.value, found.right_with.n), (100.0, 1));
        assert_eq!((found.right_against.value, found.right_against.n), (0.0, 1));
    }

    #[test]
    fn own_work_is_counted_where_it_is_worse() {
        let found = self_preference(&[
            (First, Second),
            (First, Second),
            (Second, Second),
            (First, First),
            (First, Tie),
        ]);
        assert!((found.own_though_worse.value - 200.0 / 3.0).abs() < 1e-9 && found.own_though_worse.n == 3);
        assert_eq!((found.other_though_worse.value, found.other_though_worse.n), (0.0, 1));
    }
}
