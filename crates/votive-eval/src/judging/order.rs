//! What the order of the candidates does to a judge.

use crate::gain::{Share, share};
use serde::Serialize;
use votive_critic::Winner;

/// Effects of the order, over pairs that were judged in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OrderEffects {
    /// Pairs on which the verdict changed with the order.
    pub flip_rate: Share,
    /// Verdicts for whichever was shown first, among those that are no ties; 50 without a bias.
    pub first_slot: Share,
}

/// Compares verdicts on pairs with those on the same pairs shown the other way round, each as it was shown. `None` is an
/// abstention; pairs with one are left out.
///
/// # Source
/// The swap test of "Large language models are not fair evaluators" and of studies of position bias after it.
#[must_use]
pub fn order_effects(forth: &[Option<Winner>], back: &[Option<Winner>]) -> OrderEffects {
    let both: Vec<(Winner, Winner)> =
        forth.iter().zip(back).filter_map(|(one, other)| Some(((*one)?, (*other)?))).collect();
    let flips: Vec<bool> = both.iter().map(|(one, other)| *one != other.reversed()).collect();
    let firsts: Vec<bool> = both
        .iter()
        .flat_map(|(one, other)| [*one, *other])
        .filter(|verdict| *verdict != Winner::Tie)
        .map(|verdict| verdict == Winner::First)
        .collect();
    OrderEffects { flip_rate: share(&flips), first_slot: share(&firsts) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use votive_critic::Winner::{First, Second, Tie};

    #[test]
    fn whoever_always_says_first_flips_always() {
        let always = [Some(First); 6];
        let found = order_effects(&always, &always);
        assert_eq!((found.flip_rate.value, found.first_slot.value), (100.0, 100.0));
    }

    #[test]
    fn whoever_looks_at_the_candidates_does_not() {
        let forth = [Some(First), Some(Second), Some(Tie), None];
        let back = [Some(Second), Some(First), Some(Tie), Some(First)];
        let found = order_effects(&forth, &back);
        assert_eq!((found.flip_rate.value, found.flip_rate.n), (0.0, 3));
        assert_eq!((found.first_slot.value, found.first_slot.n), (50.0, 4));
        assert_eq!(order_effects(&[Some(Tie)], &[Some(First)]).flip_rate.value, 100.0);
    }
}
