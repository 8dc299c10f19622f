//! Both orders: every pair is judged twice, the second time with its candidates the other way round.
//!
//! A verdict that turns with the order is about the order, and becomes an abstention. Otherwise the log-odds of both are
//! averaged, from which a preference for a place, which adds to one and is taken from the other, falls out.

use super::{log_odds, sigmoid};
use crate::error::Result;
use crate::judge::{Forms, Judge, check_form};
use crate::judgment::{Abstention, Finding, Judgment, Winner};
use crate::question::{Form, Question};
use std::sync::Arc;

/// Judges pairs in both orders.
pub struct BothOrders {
    name: String,
    judge: Arc<dyn Judge>,
}

impl BothOrders {
    /// Around a judge of pairs.
    ///
    /// # Errors
    /// If it judges no pairs.
    pub fn new(judge: Arc<dyn Judge>) -> Result<Self> {
        judge.forms().require(Form::Pair, judge.name())?;
        Ok(Self { name: format!("{}, both orders", judge.name()), judge })
    }
}

impl Judge for BothOrders {
    fn name(&self) -> &str {
        &self.name
    }

    fn forms(&self) -> Forms {
        Forms::only(Form::Pair)
    }

    fn reserved_marks(&self) -> Vec<String> {
        self.judge.reserved_marks()
    }

    fn judge(&self, question: &Question, draw: u64) -> Result<Judgment> {
        check_form(self, question)?;
        let forth = self.judge.judge(question, draw)?;
        let back = self.judge.judge(&question.reversed(), draw)?.reversed(2);
        let finding = together(&forth.finding, &back.finding);
        Ok(Judgment { finding, evidence: forth.evidence.into_iter().chain(back.evidence).collect() })
    }
}

/// Two findings about the same order.
fn together(forth: &Finding, back: &Finding) -> Finding {
    let (Finding::Preference(one), Finding::Preference(other)) = (forth, back) else {
        // Whichever said why it says nothing.
        let silent = [forth, back].into_iter().find(|finding| matches!(finding, Finding::Abstention(_)));
        return silent.unwrap_or(forth).clone();
    };
    match [forth.winner(), back.winner()] {
        [Some(Winner::First), Some(Winner::Second)] | [Some(Winner::Second), Some(Winner::First)] => {
            Finding::Abstention(Abstention::OrderFlip)
        }
        _ => Finding::Preference(mean(*one, *other)),
    }
}

/// The mean of two probabilities, by their log-odds where both have any.
fn mean(one: f64, other: f64) -> f64 {
    let is_sure = |probability: f64| probability <= 0.0 || probability >= 1.0;
    if is_sure(one) || is_sure(other) {
        return f64::midpoint(one, other);
    }
    sigmoid(f64::midpoint(log_odds(one), log_odds(other)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::protocol::tests::{Scripted, pair};

    #[test]
    fn a_liking_for_a_place_falls_out() {
        // Candidate "good" is worth 1.5 in log-odds, the first place 1.0.
        let biased = Scripted::new(|question| {
            let worth =
                if question.candidates()[0] == crate::Candidate::Text("good".into()) { 1.5 } else { -1.5 };
            Finding::Preference(sigmoid(worth + 1.0))
        });
        let judge = BothOrders::new(Arc::new(biased)).unwrap();
        let finding = |question: &Question| judge.judge(question, 0).unwrap().finding;
        for (question, expected) in [(pair("good", "bad"), 1.5), (pair("bad", "good"), -1.5)] {
            let Finding::Preference(found) = finding(&question) else { panic!() };
            assert!((found - sigmoid(expected)).abs() < 1e-12);
        }
    }

    #[test]
    fn whoever_always_says_a_says_nothing() {
        let judge = BothOrders::new(Arc::new(Scripted::new(|_| Finding::Preference(0.9)))).unwrap();
        let judgment = judge.judge(&pair("x", "y"), 3).unwrap();
        assert_eq!(judgment.finding, Finding::Abstention(Abstention::OrderFlip));
        let shown: Vec<bool> = judgment.evidence.iter().map(|evidence| evidence.is_reversed).collect();
        assert_eq!(shown, [false, true]);
        assert_eq!(judgment.cost().calls, 2);
    }

    #[test]
    fn silence_keeps_its_reason() {
        let silent = Finding::Abstention(Abstention::NoAnswer("timed out".into()));
        for findings in
            [[Finding::Preference(0.9), silent.clone()], [silent.clone(), Finding::Preference(0.9)]]
        {
            assert_eq!(together(&findings[0], &findings[1]), silent);
        }
        assert_eq!(together(&Finding::Preference(1.0), &Finding::Preference(0.5)), Finding::Preference(0.75));
    }
}
