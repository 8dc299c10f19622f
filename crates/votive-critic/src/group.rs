//! A group decides who is odd: of a judge's answers, the one that agrees most with what all others say against the one that agrees least.
//!
//! # Source
//! Genii, group-based polling: every judge in turn is the client, whose several answers are scored by their consistency with those of
//! the group and become a pair; no label is needed.
//!
//! Departure: consistency there is that of embeddings of the words, here that of the verdicts, which is what is to be learnt, and needs no
//! third model.

use crate::contrast::Contrast;
use crate::judgment::{Finding, Winner};

/// How far two verdicts on one pair agree: 1 if they name the same winner, 1/2 if one of them is a tie, 0 if they contradict each other or
/// one is none.
#[must_use]
pub fn agreement(one: &Finding, other: &Finding) -> f64 {
    match (one.winner(), other.winner()) {
        (Some(one), Some(other)) => 1.0 - (Winner::probability(one) - Winner::probability(other)).abs(),
        _ => 0.0,
    }
}

/// Of `own` answers the places of those with the largest and the smallest mean agreement with all others: one's own and the `views` of
/// the group. Of equals the first one.
///
/// None if all agree alike: there would be nothing to prefer.
#[must_use]
pub fn most_and_least_consistent(own: &[&Finding], views: &[&Finding]) -> Option<Contrast> {
    let agreements = |place: usize| -> f64 {
        let others = own.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, finding)| finding);
        others.chain(views).map(|other| agreement(own[place], other)).sum()
    };
    // Every answer has as many others, so the largest sum is the largest mean.
    let sums: Vec<f64> = (0..own.len()).map(agreements).collect();
    let place_of = |better: fn(f64, f64) -> bool| {
        (0..sums.len()).reduce(|best, other| if better(sums[other], sums[best]) { other } else { best })
    };
    let (chosen, rejected) = (place_of(|a, b| a > b)?, place_of(|a, b| a < b)?);
    (sums[chosen] > sums[rejected]).then_some(Contrast { chosen, rejected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judgment::Abstention;

    const FIRST: Finding = Finding::Preference(0.9);
    const SECOND: Finding = Finding::Preference(0.0);
    const TIE: Finding = Finding::Preference(0.5);
    const SILENT: Finding = Finding::Abstention(Abstention::Undecided);

    fn of(own: &[&Finding], views: &[&Finding]) -> Option<(usize, usize)> {
        most_and_least_consistent(own, views).map(|pair| (pair.chosen, pair.rejected))
    }

    #[test]
    fn the_odd_one_out_is_rejected() {
        assert_eq!(of(&[&SECOND, &FIRST, &FIRST], &[]), Some((1, 0)));
        // Two answers contradict each other, and the group decides.
        assert_eq!(of(&[&SECOND, &FIRST], &[]), None);
        assert_eq!(of(&[&SECOND, &FIRST], &[&SECOND]), Some((0, 1)));
        assert_eq!(of(&[&SECOND, &FIRST], &[&FIRST, &FIRST, &SECOND]), Some((1, 0)));
        assert_eq!(of(&[&TIE, &FIRST, &SILENT], &[&FIRST]), Some((1, 2)));
    }

    #[test]
    fn who_agrees_alike_makes_no_pair() {
        assert_eq!(of(&[&FIRST, &FIRST, &FIRST], &[&FIRST]), None);
        assert_eq!(of(&[&FIRST, &FIRST], &[&SECOND]), None);
        assert_eq!(of(&[&FIRST], &[&SECOND]), None);
        assert_eq!(of(&[], &[]), None);
    }

    /// Three judges who are right 7 times of 10, each by its own dice: what the group prefers is right more often than any of them.
    #[test]
    fn the_group_is_right_more_often_than_its_members() {
        let uniform = |n: u64| {
            let hash = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let hash = (hash ^ (hash >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((hash ^ (hash >> 32)) >> 11) as f64 / (1_u64 << 53) as f64
        };
        let n = 20_000;
        let (mut group, mut members) = (0, [0; 3]);
        for question in 0..n {
            let right = [0, 1, 2].map(|judge| uniform(3 * question + judge) < 0.7);
            let findings = right.map(|right| if right { FIRST } else { SECOND });
            let place = of(&findings.each_ref(), &[]).map_or(0, |(chosen, _)| chosen);
            group += u64::from(right[place]);
            for (count, right) in members.iter_mut().zip(right) {
                *count += u64::from(right);
            }
        }
        // 0.7³ + 3·0.7²·0.3
        let share = group as f64 / n as f64;
        assert!((share - 0.784).abs() < 0.01, "{share}");
        assert!(members.iter().all(|right| *right < group), "{members:?} {group}");
    }
}
