//! Preferences and rankings from grades: each candidate is graded alone, so that there is no order to be misled by.
//!
//! `P(first) = σ((grade of first − grade of second) / scale)`, Bradley-Terry with grades as strengths.

use super::sigmoid;
use crate::error::{CriticError, Result};
use crate::judge::{Forms, Judge};
use crate::judgment::{Finding, Judgment};
use crate::question::{Form, Question};
use std::sync::Arc;

/// Compares candidates by their grades.
pub struct ByGrade {
    name: String,
    judge: Arc<dyn Judge>,
    scale: f64,
}

impl ByGrade {
    /// Around a judge that grades; `scale` is the difference of grades that makes the odds e to 1, in the judge's units.
    ///
    /// # Errors
    /// If it grades nothing, or the scale is not positive.
    pub fn new(judge: Arc<dyn Judge>, scale: f64) -> Result<Self> {
        judge.forms().require(Form::Grade, judge.name())?;
        if !(scale.is_finite() && scale > 0.0) {
            return Err(CriticError::Setting(format!(
                "the scale of grades is {scale}, expected a positive number"
            )));
        }
        Ok(Self { name: format!("{}, by grades in {scale}", judge.name()), judge, scale })
    }
}

impl Judge for ByGrade {
    fn name(&self) -> &str {
        &self.name
    }

    fn forms(&self) -> Forms {
        Forms { grade: true, pair: true, rank: true }
    }

    fn reserved_marks(&self) -> Vec<String> {
        self.judge.reserved_marks()
    }

    fn judge(&self, question: &Question, draw: u64) -> Result<Judgment> {
        if question.form() == Form::Grade {
            return self.judge.judge(question, draw);
        }
        let mut grades = Vec::new();
        let mut evidence = Vec::new();
        let mut silent = None;
        for candidate in question.candidates() {
            let judgment = self.judge.judge(&question.of(candidate), draw)?;
            evidence.extend(judgment.evidence);
            match judgment.finding {
                Finding::Grade(grade) => grades.push(grade),
                other => silent = silent.or(Some(other)),
            }
        }
        let finding = match (silent, grades.as_slice()) {
            (Some(silent), _) => silent,
            (None, [first, second]) => Finding::Preference(sigmoid((first - second) / self.scale)),
            (None, grades) => {
                let mut order: Vec<usize> = (0..grades.len()).collect();
                // Equal grades keep their order.
                order.sort_by(|a, b| grades[*b].total_cmp(&grades[*a]));
                Finding::Ranking(order)
            }
        };
        Ok(Judgment { finding, evidence })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::candidate::Candidate;
    use crate::judgment::Abstention;
    use crate::protocol::tests::{Scripted, pair};

    /// Grades a text by its length; it cannot read the empty one.
    fn by_length() -> Arc<dyn Judge> {
        Arc::new(Scripted::grading(|question| match &question.candidates()[0] {
            Candidate::Text(text) if !text.is_empty() => Finding::Grade(text.len() as f64),
            _ => Finding::Abstention(Abstention::Unreadable("nothing".into())),
        }))
    }

    #[test]
    fn the_order_of_candidates_only_turns_the_preference() {
        let judge = ByGrade::new(by_length(), 2.0).unwrap();
        let found = judge.judge(&pair("four", "onetwo"), 0).unwrap().finding;
        assert_eq!(found, Finding::Preference(sigmoid(-1.0)));
        assert_eq!(
            judge.judge(&pair("onetwo", "four"), 0).unwrap().finding,
            Finding::Preference(sigmoid(1.0))
        );
        assert_eq!(judge.judge(&pair("same", "size"), 0).unwrap().finding, Finding::Preference(0.5));
    }

    #[test]
    fn rankings_follow_the_grades_and_equals_keep_their_order() {
        let texts = ["aa", "b", "cc", "dddd"].map(|text| Candidate::Text(text.into()));
        let question = Question::rank("p", texts.to_vec()).unwrap();
        let judge = ByGrade::new(by_length(), 1.0).unwrap();
        assert_eq!(judge.judge(&question, 0).unwrap().finding, Finding::Ranking(vec![3, 0, 2, 1]));
    }

    #[test]
    fn one_candidate_that_cannot_be_graded_leaves_no_preference() {
        let judge = ByGrade::new(by_length(), 1.0).unwrap();
        let judgment = judge.judge(&pair("a", ""), 0).unwrap();
        assert!(matches!(judgment.finding, Finding::Abstention(Abstention::Unreadable(_))));
        assert_eq!(judgment.evidence.len(), 2);
        assert!(ByGrade::new(by_length(), 0.0).is_err());
    }
}
