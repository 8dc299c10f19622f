//! The one trait behind which all judges stand.

use crate::error::{CriticError, Result};
use crate::judgment::Judgment;
use crate::question::{Form, Question};

/// What a judge answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forms {
    /// Grades of single candidates.
    pub grade: bool,
    /// Preferences between two.
    pub pair: bool,
    /// Rankings of more.
    pub rank: bool,
}

impl Forms {
    /// One form and no other.
    #[must_use]
    pub fn only(form: Form) -> Self {
        Self { grade: form == Form::Grade, pair: form == Form::Pair, rank: form == Form::Rank }
    }

    /// Whether a form is among them.
    #[must_use]
    pub fn contains(self, form: Form) -> bool {
        match form {
            Form::Grade => self.grade,
            Form::Pair => self.pair,
            Form::Rank => self.rank,
        }
    }

    /// Refuses a judge that does not answer a form.
    ///
    /// # Errors
    /// [`CriticError::Form`].
    pub(crate) fn require(self, form: Form, judge: &str) -> Result<()> {
        if self.contains(form) {
            return Ok(());
        }
        Err(CriticError::Form { judge: judge.to_owned(), gives: self.describe(), form: form.answer() })
    }

    /// The forms in words.
    fn describe(self) -> String {
        let given: Vec<&str> =
            Form::ALL.into_iter().filter(|form| self.contains(*form)).map(Form::answer).collect();
        if given.is_empty() { "nothing".to_owned() } else { given.join(" and ") }
    }
}

/// Somebody who judges candidates.
pub trait Judge: Send + Sync {
    /// Who it is, the version of its model and protocol included: equal names give equal judgments of equal draws.
    fn name(&self) -> &str;

    /// What it answers.
    fn forms(&self) -> Forms;

    /// Marks that have a meaning of their own in what it reads, or in what is read of its answer, and that are taken out of
    /// whatever is judged; none for a judge who reads no words.
    fn reserved_marks(&self) -> Vec<String> {
        Vec::new()
    }

    /// Answers a question. `draw` keys what is drawn at random: equal draws of equal questions get equal answers, as far as
    /// the judge can promise that.
    ///
    /// What keeps one question from being answered is an abstention.
    ///
    /// # Errors
    /// If the judge does not answer this form at all, or nobody can be asked any more.
    fn judge(&self, question: &Question, draw: u64) -> Result<Judgment>;
}

/// Refuses what a judge does not answer.
///
/// # Errors
/// [`CriticError::Form`].
pub(crate) fn check_form(judge: &dyn Judge, question: &Question) -> Result<()> {
    judge.forms().require(question.form(), judge.name())
}
