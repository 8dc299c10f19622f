//! Whether a judge's preferences fit into an order.

use crate::gain::{Share, share};
use serde::Serialize;
use std::collections::BTreeMap;
use votive_critic::Winner;

/// Violations of transitivity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transitivity {
    /// Triples that go round in a circle, among those with three verdicts that are no ties.
    pub violations: Share,
}

/// Looks at all triples among candidates that were compared: `(a, b, verdict on a against b)`; later verdicts on a pair replace
/// earlier ones. Candidates of different prompts need different numbers.
///
/// Triples of a prompt share comparisons, so the interval, which takes them for independent, is rather too narrow. Verdicts by
/// coin make circles of a quarter of all triples.
#[must_use]
pub fn transitivity(comparisons: &[(usize, usize, Winner)]) -> Transitivity {
    let mut beats: BTreeMap<(usize, usize), bool> = BTreeMap::new();
    for (a, b, verdict) in comparisons {
        if *verdict == Winner::Tie {
            beats.remove(&(*a, *b));
            beats.remove(&(*b, *a));
        } else {
            beats.insert((*a, *b), *verdict == Winner::First);
            beats.insert((*b, *a), *verdict == Winner::Second);
        }
    }
    let mut circles = Vec::new();
    for ((a, b), one) in beats.iter().filter(|((a, b), _)| a < b) {
        for ((_, c), two) in beats.range((*b, b + 1)..=(*b, usize::MAX)) {
            if let Some(three) = beats.get(&(*c, *a)) {
                circles.push(one == two && two == three);
            }
        }
    }
    Transitivity { violations: share(&circles) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use votive_critic::Winner::{First, Second, Tie};

    #[test]
    fn a_circle_is_found_and_an_order_is_none() {
        let circle = [(0, 1, First), (1, 2, First), (2, 0, First)];
        assert_eq!(transitivity(&circle).violations.value, 100.0);
        let order = [(0, 1, First), (2, 1, Second), (0, 2, First)];
        assert_eq!((transitivity(&order).violations.value, transitivity(&order).violations.n), (0.0, 1));
        // 3, 4 and 5 are of another prompt.
        let two = [&circle[..], &order.map(|(a, b, verdict)| (a + 3, b + 3, verdict))].concat();
        assert_eq!((transitivity(&two).violations.value, transitivity(&two).violations.n), (50.0, 2));
        let tie = [(0, 1, First), (1, 2, First), (2, 0, Tie)];
        assert_eq!(transitivity(&tie).violations.n, 0);
    }

    #[test]
    fn chance_makes_a_quarter_of_all_triples_circles() {
        let n = 40_usize;
        let coin = |a: usize, b: usize| ((a * n + b) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 1;
        let comparisons: Vec<_> = (0..n)
            .flat_map(|a| (a + 1..n).map(move |b| (a, b)))
            .map(|(a, b)| (a, b, if coin(a, b) { First } else { Second }))
            .collect();
        let found = transitivity(&comparisons).violations;
        assert!((found.value - 25.0).abs() < 4.0 && found.n == 9880, "{found:?}");
    }
}
