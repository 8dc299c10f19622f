//! Whether a judge's preferences fit into an order.

use super::Verdict;
use crate::gain::{Share, share};
use serde::Serialize;
use std::collections::BTreeMap;

/// Violations of transitivity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transitivity {
    /// Triples that go round in a circle, among those with three verdicts that are no ties.
    pub violations: Share,
}

/// Looks at all triples among candidates that were compared: `(a, b, verdict on a against b)`; later verdicts on a pair replace
/// earlier ones.
#[must_use]
pub fn transitivity(comparisons: &[(usize, usize, Verdict)]) -> Transitivity {
    let mut beats: BTreeMap<(usize, usize), bool> = BTreeMap::new();
    let mut candidates: Vec<usize> = Vec::new();
    for (a, b, verdict) in comparisons {
        candidates.extend([*a, *b]);
        if *verdict == Verdict::Tie {
            beats.remove(&(*a, *b));
            beats.remove(&(*b, *a));
        } else {
            beats.insert((*a, *b), *verdict == Verdict::First);
            beats.insert((*b, *a), *verdict == Verdict::Second);
        }
    }
    candidates.sort_unstable();
    candidates.dedup();
    let mut circles = Vec::new();
    for (i, a) in candidates.iter().enumerate() {
        for (j, b) in candidates.iter().enumerate().skip(i + 1) {
            for c in &candidates[j + 1..] {
                let sides = [(*a, *b), (*b, *c), (*c, *a)].map(|side| beats.get(&side));
                if let [Some(one), Some(two), Some(three)] = sides {
                    circles.push(one == two && two == three);
                }
            }
        }
    }
    Transitivity { violations: share(&circles) }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{First, Second, Tie};
    use super::*;

    #[test]
    fn a_circle_is_found_and_an_order_is_none() {
        let circle = [(0, 1, First), (1, 2, First), (2, 0, First)];
        assert_eq!(transitivity(&circle).violations.value, 100.0);
        let order = [(0, 1, First), (2, 1, Second), (0, 2, First)];
        assert_eq!((transitivity(&order).violations.value, transitivity(&order).violations.n), (0.0, 1));
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
