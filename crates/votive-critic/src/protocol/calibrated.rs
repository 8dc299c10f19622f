//! Calibrated probabilities: log-odds divided by a temperature that was fitted on labelled pairs.
//!
//! # Source
//! Guo et al. 2017, "On calibration of modern neural networks": one temperature leaves every verdict as it is.

use super::{log_odds, sigmoid};
use crate::error::{CriticError, Result};
use crate::judge::{Forms, Judge};
use crate::judgment::{Finding, Judgment};
use crate::question::Question;
use std::sync::Arc;

/// A judge whose preferences are made less sure, or surer.
pub struct Calibrated {
    name: String,
    judge: Arc<dyn Judge>,
    temperature: f64,
}

impl Calibrated {
    /// Divides log-odds by a temperature; 1 changes nothing.
    ///
    /// # Errors
    /// If it is not positive.
    pub fn new(judge: Arc<dyn Judge>, temperature: f64) -> Result<Self> {
        if !(temperature.is_finite() && temperature > 0.0) {
            let message = format!("the temperature is {temperature}, expected a positive number");
            return Err(CriticError::Setting(message));
        }
        Ok(Self { name: format!("{}, at temperature {temperature}", judge.name()), judge, temperature })
    }
}

impl Judge for Calibrated {
    fn name(&self) -> &str {
        &self.name
    }

    fn forms(&self) -> Forms {
        self.judge.forms()
    }

    fn reserved_marks(&self) -> Vec<String> {
        self.judge.reserved_marks()
    }

    fn judge(&self, question: &Question, draw: u64) -> Result<Judgment> {
        let judgment = self.judge.judge(question, draw)?;
        let finding = match judgment.finding {
            Finding::Preference(probability) => {
                Finding::Preference(sigmoid(log_odds(probability) / self.temperature))
            }
            other => other,
        };
        Ok(Judgment { finding, ..judgment })
    }
}

/// The temperature under which labelled preferences are most probable: `(P(first), whether the first is better)` of each pair.
///
/// None if every verdict is right or every one is wrong, where no temperature is best, or if there are none.
#[must_use]
pub fn fit_temperature(labelled: &[(f64, bool)]) -> Option<f64> {
    // Log-odds of what is right; its negative log-likelihood is convex in the inverse temperature.
    let odds: Vec<f64> = labelled
        .iter()
        .map(|(probability, is_first)| {
            let odds = log_odds(probability.clamp(1e-12, 1.0 - 1e-12));
            if *is_first { odds } else { -odds }
        })
        .collect();
    let mixed = odds.iter().any(|odds| *odds < 0.0) && odds.iter().any(|odds| *odds > 0.0);
    if !mixed {
        return None;
    }
    // d/ds of −Σ log σ(s·x): rises with s.
    let slope = |inverse: f64| -> f64 { odds.iter().map(|odds| -odds * sigmoid(-inverse * odds)).sum() };
    if slope(0.0) >= 0.0 {
        // Wrong more often than right: no positive temperature is best.
        return None;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while slope(high) < 0.0 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if slope(middle) < 0.0 { low = middle } else { high = middle }
    }
    Some(1.0 / f64::midpoint(low, high))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::protocol::tests::{Scripted, pair};

    #[test]
    fn a_temperature_is_found_again() {
        // Right with the probability that log-odds of half the size give: sharpened by a temperature of ½.
        let labelled: Vec<(f64, bool)> = (1..40)
            .flat_map(|i| {
                let odds = f64::from(i) / 10.0;
                let (n, hits) = (1000, (1000.0 * sigmoid(odds)).round() as usize);
                (0..n).map(move |j| (sigmoid(2.0 * odds), j < hits))
            })
            .collect();
        let found = fit_temperature(&labelled).unwrap();
        assert!((found - 2.0).abs() < 0.01, "{found}");
    }

    #[test]
    fn where_no_temperature_is_best_there_is_none() {
        assert_eq!(fit_temperature(&[]), None);
        assert_eq!(fit_temperature(&[(0.9, true), (0.2, false)]), None);
        assert_eq!(fit_temperature(&[(0.9, false), (0.2, true), (0.6, true)]), None);
    }

    #[test]
    fn verdicts_stay_as_they_are() {
        let at = |p: f64, t: f64| {
            let judge = Calibrated::new(Arc::new(Scripted::new(move |_| Finding::Preference(p))), t).unwrap();
            judge.judge(&pair("x", "y"), 0).unwrap().finding
        };
        for p in [0.0, 0.1, 0.5, 0.8, 1.0] {
            assert_eq!(at(p, 3.0).winner(), Finding::Preference(p).winner());
        }
        let Finding::Preference(found) = at(0.8, 2.0) else { panic!() };
        assert!((found - 2.0 / 3.0).abs() < 1e-12);
        assert!(Calibrated::new(Arc::new(Scripted::new(|_| Finding::Grade(0.0))), -1.0).is_err());
    }
}
