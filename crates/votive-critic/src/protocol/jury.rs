//! A jury: several judges vote, each once.
//!
//! # Source
//! "The Fellowship of the LLMs" compares one judge, a jury by majority, and a debate.

use super::{all_marks, vote};
use crate::error::{CriticError, Result};
use crate::judge::{Forms, Judge, check_form};
use crate::judgment::Judgment;
use crate::question::{Form, Question};
use std::sync::Arc;

/// Judges who vote.
pub struct Jury {
    name: String,
    judges: Vec<Arc<dyn Judge>>,
}

impl Jury {
    /// A jury of judges of pairs.
    ///
    /// # Errors
    /// If one of them judges no pairs, or there are none.
    pub fn new(judges: Vec<Arc<dyn Judge>>) -> Result<Self> {
        if judges.is_empty() {
            return Err(CriticError::Setting("a jury needs judges".to_owned()));
        }
        judges.iter().try_for_each(|judge| judge.forms().require(Form::Pair, judge.name()))?;
        let names: Vec<&str> = judges.iter().map(|judge| judge.name()).collect();
        Ok(Self { name: format!("a jury of ({})", names.join("; ")), judges })
    }
}

impl Judge for Jury {
    fn name(&self) -> &str {
        &self.name
    }

    fn forms(&self) -> Forms {
        Forms::only(Form::Pair)
    }

    fn reserved_marks(&self) -> Vec<String> {
        all_marks(self.judges.iter().map(|judge| judge.reserved_marks()))
    }

    fn judge(&self, question: &Question, draw: u64) -> Result<Judgment> {
        check_form(self, question)?;
        let judgments = self.judges.iter().map(|judge| judge.judge(question, draw));
        Ok(vote(judgments.collect::<Result<_>>()?))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::judgment::Finding;
    use crate::protocol::tests::{Scripted, pair};

    /// A judge that is right where `draw`, hashed with its own number, says so: in `share` of all questions.
    fn right_in(share: f64, number: u64) -> Arc<dyn Judge> {
        Arc::new(Scripted::drawn(move |_, draw| {
            let hash = (draw * 3 + number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let hash = (hash ^ (hash >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let uniform = (hash >> 11) as f64 / (1_u64 << 53) as f64;
            Finding::Preference(if uniform < share { 1.0 } else { 0.0 })
        }))
    }

    #[test]
    fn three_judges_of_70_percent_make_one_of_78() {
        let jury = Jury::new((0..3).map(|number| right_in(0.7, number)).collect()).unwrap();
        let n = 20_000_u64;
        let right = (0..n).filter(|draw| {
            jury.judge(&pair("x", "y"), *draw).unwrap().finding.winner() == Some(crate::Winner::First)
        });
        // 0.7³ + 3·0.7²·0.3
        let share = right.count() as f64 / n as f64;
        assert!((share - 0.784).abs() < 0.01, "{share}");
    }

    #[test]
    fn a_jury_needs_judges_of_pairs() {
        assert!(Jury::new(Vec::new()).is_err());
        let grader: Arc<dyn Judge> = Arc::new(Scripted::grading(|_| Finding::Grade(1.0)));
        assert!(Jury::new(vec![grader]).is_err());
    }
}
