//! How far two judges agree.

use votive_critic::{Winner, cohens_kappa};

/// How often two judges name the same winner, and how far that is beyond chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Agreement {
    /// Pairs that both have judged.
    pub(crate) n: u64,
    /// Of those, the pairs on which they agree.
    pub(crate) agreed: u64,
    /// Cohen's κ; none if there is nothing to compare, or both always say the same one thing.
    pub(crate) kappa: Option<f64>,
}

impl Agreement {
    /// Of what two judges say of the same pairs.
    pub(crate) fn of(both: &[(Winner, Winner)]) -> Self {
        let agreed = both.iter().filter(|(one, other)| one == other).count();
        Self { n: both.len() as u64, agreed: agreed as u64, kappa: cohens_kappa(both) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Winner::{First, Second};

    #[test]
    fn pairs_and_agreements_are_counted() {
        let found = Agreement::of(&[(First, First), (First, Second), (Second, Second)]);
        assert_eq!((found.n, found.agreed), (3, 2));
        // By chance, 2/3·1/3 + 1/3·2/3 agree.
        assert!((found.kappa.unwrap_or(f64::NAN) - 0.4).abs() < 1e-12, "{found:?}");
        assert_eq!(Agreement::of(&[]), Agreement { n: 0, agreed: 0, kappa: None });
    }
}
