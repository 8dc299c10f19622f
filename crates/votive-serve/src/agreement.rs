//! How far two judges agree.

use votive_critic::Winner;

/// How often two judges name the same winner, and how far that is beyond chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Agreement {
    /// Pairs that both have judged.
    pub(crate) n: u64,
    /// Of those, the pairs on which they agree.
    pub(crate) agreed: u64,
    /// Cohen's κ = (p − p_e)/(1 − p_e), p the share of agreement and p_e what two judges with these shares of first, second
    /// and tie would agree on by chance (Cohen 1960). None if there is nothing to compare, or p_e = 1: both always say
    /// the same one thing.
    pub(crate) kappa: Option<f64>,
}

impl Agreement {
    /// Of what two judges say of the same pairs.
    pub(crate) fn of(both: &[(Winner, Winner)]) -> Self {
        let n = both.len() as f64;
        let agreed = both.iter().filter(|(one, other)| one == other).count();
        let share = |side: fn(&(Winner, Winner)) -> Winner, winner: Winner| {
            both.iter().filter(|pair| side(pair) == winner).count() as f64 / n
        };
        let chance: f64 = [Winner::First, Winner::Second, Winner::Tie]
            .into_iter()
            .map(|winner| share(|pair| pair.0, winner) * share(|pair| pair.1, winner))
            .sum();
        let kappa = (agreed as f64 / n - chance) / (1.0 - chance);
        Self { n: both.len() as u64, agreed: agreed as u64, kappa: kappa.is_finite().then_some(kappa) }
    }
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
        let found = Agreement::of(&both);
        assert_eq!((found.n, found.agreed), (50, 35));
        assert!((found.kappa.unwrap_or(f64::NAN) - 0.4).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn kappa_is_not_made_up() {
        assert_eq!(Agreement::of(&[]).kappa, None);
        assert_eq!(Agreement::of(&[(Tie, Tie), (Tie, Tie)]).kappa, None);
        assert_eq!(Agreement::of(&[(First, Second), (Second, First)]).kappa, Some(-1.0));
    }
}
