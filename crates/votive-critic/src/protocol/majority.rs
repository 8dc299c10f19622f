//! The majority of several draws of one judge; the probability is the share of votes.
//!
//! # Source
//! GenRM: generative verdicts at temperature 1, majority of 32, vote shares as probabilities.

use super::vote;
use crate::error::{CriticError, Result};
use crate::judge::{Forms, Judge, check_form};
use crate::judgment::Judgment;
use crate::question::{Form, Question};
use std::num::NonZeroU64;
use std::sync::Arc;

/// Asks one judge several times.
pub struct Majority {
    name: String,
    judge: Arc<dyn Judge>,
    draws: NonZeroU64,
}

impl Majority {
    /// The majority of `draws` answers.
    ///
    /// # Errors
    /// If the judge judges no pairs.
    pub fn new(judge: Arc<dyn Judge>, draws: NonZeroU64) -> Result<Self> {
        judge.forms().require(Form::Pair, judge.name())?;
        Ok(Self { name: format!("{}, majority of {draws}", judge.name()), judge, draws })
    }
}

impl Judge for Majority {
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
        let first = draw.checked_mul(self.draws.get());
        let first = first.ok_or_else(|| CriticError::Setting(format!("there is no draw {draw}")))?;
        let judgments = (first..first + self.draws.get()).map(|draw| self.judge.judge(question, draw));
        Ok(vote(judgments.collect::<Result<_>>()?))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::judgment::{Abstention, Finding};
    use crate::protocol::tests::{Scripted, pair};

    /// Of every four draws: first, second, first, and one that cannot be read.
    fn fickle() -> Arc<dyn Judge> {
        Arc::new(Scripted::drawn(|_, draw| match draw % 4 {
            3 => Finding::Abstention(Abstention::Malformed("?".into())),
            1 => Finding::Preference(0.1),
            _ => Finding::Preference(0.6),
        }))
    }

    #[test]
    fn votes_are_counted_and_silence_is_no_vote() {
        let of = |draws: u64| Majority::new(fickle(), draws.try_into().unwrap()).unwrap();
        let judgment = of(4).judge(&pair("x", "y"), 5).unwrap();
        assert_eq!(judgment.finding, Finding::Preference(2.0 / 3.0));
        assert_eq!(judgment.evidence.iter().map(|one| one.draw).collect::<Vec<_>>(), [20, 21, 22, 23]);
        assert_eq!(
            of(2).judge(&pair("x", "y"), 0).unwrap().finding,
            Finding::Abstention(Abstention::NoMajority)
        );
    }
}
