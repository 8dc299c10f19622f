//! How far two judges agree beyond chance.

use crate::judgment::Winner;

/// Cohen's κ = (p − p_e)/(1 − p_e) of what two judges say of the same pairs: p is the share on which they agree, and p_e what two
/// judges with these shares of first, second and tie would agree on by chance.
///
/// None if there is nothing to compare, or p_e = 1: both always say the same one thing.
///
/// # Source
/// Cohen 1960, "A coefficient of agreement for nominal scales".
#[must_use]
pub fn cohens_kappa(both: &[(Winner, Winner)]) -> Option<f64> {
    let n = both.len() as f64;
    let agreed = both.iter().filter(|(one, other)| one == other).count() as f64 / n;
    let share = |side: fn(&(Winner, Winner)) -> Winner, winner: Winner| {
        both.iter().filter(|pair| side(pair) == winner).count() as f64 / n
    };
    let by_chance: f64 = [Winner::First, Winner::Second, Winner::Tie]
        .into_iter()
        .map(|winner| share(|pair| pair.0, winner) * share(|pair| pair.1, winner))
        .sum();
    let kappa = (agreed - by_chance) / (1.0 - by_chance);
    kappa.is_finite().then_some(kappa)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Winner::{First, Second, Tie};

    #[test]
    fn kappa_by_hand() {
        // 20 first and 15 second alike, 5 and 10 apart: p = 0.7, p_e = 0.5·0.6 + 0.5·0.4 = 0.5.
        let times = |n: usize, pair| std::iter::repeat_n(pair, n);
        let both: Vec<_> = times(20, (First, First))
            .chain(times(5, (First, Second)))
            .chain(times(10, (Second, First)))
            .chain(times(15, (Second, Second)))
            .collect();
        assert!(cohens_kappa(&both).is_some_and(|kappa| (kappa - 0.4).abs() < 1e-12));
        // As often alike as apart, and each says either as often: what chance gives.
        let chance = [(First, First), (First, Second), (Second, First), (Second, Second)];
        assert_eq!(cohens_kappa(&chance), Some(0.0));
        assert_eq!(cohens_kappa(&[(First, First), (Second, Second)]), Some(1.0));
    }

    #[test]
    fn kappa_is_not_made_up() {
        assert_eq!(cohens_kappa(&[]), None);
        assert_eq!(cohens_kappa(&[(Tie, Tie), (Tie, Tie)]), None);
        assert_eq!(cohens_kappa(&[(First, Second), (Second, First)]), Some(-1.0));
    }
}
