//! What judges have in common that give a candidate a number and say nothing: the question, the answer and its cost.

use std::time::Instant;
use votive_critic::{
    Abstention, Candidate, Cost, CriticError, Evidence, Finding, Form, Forms, Judge, Judgment, Question,
};

/// Gives one candidate of a prompt a number.
pub(super) trait Grade: Send + Sync {
    /// The number, larger for what is better, in units of its own.
    ///
    /// # Errors
    /// If this candidate cannot be graded, or nothing can.
    fn grade(&self, prompt: &str, candidate: &Candidate) -> Result<Graded, Ungraded>;
}

/// A grade.
pub(super) struct Graded {
    pub(super) value: f64,
    /// What is said of it.
    pub(super) words: String,
    /// Tokens that were read.
    pub(super) input_tokens: u64,
}

impl Graded {
    /// A number alone.
    pub(super) fn number(value: f64) -> Self {
        Self { value, words: String::new(), input_tokens: 0 }
    }
}

/// Why there is no grade.
pub(super) enum Ungraded {
    /// This candidate has none, for a reason of its own.
    Unreadable(String),
    /// Nothing can be graded any more.
    Failed(String),
}

impl Ungraded {
    /// A reason of the candidate's own.
    pub(super) fn unreadable(why: impl ToString) -> Self {
        Self::Unreadable(why.to_string())
    }

    /// A reason of the judge's.
    pub(super) fn failed(why: impl ToString) -> Self {
        Self::Failed(why.to_string())
    }
}

/// A judge by such grades.
pub(super) struct Grading<G> {
    name: String,
    by: G,
}

impl<G: Grade> Grading<G> {
    /// Under the name that commands know it by.
    pub(super) fn new(name: impl Into<String>, by: G) -> Self {
        Self { name: name.into(), by }
    }
}

impl<G: Grade> Judge for Grading<G> {
    fn name(&self) -> &str {
        &self.name
    }

    fn forms(&self) -> Forms {
        Forms::only(Form::Grade)
    }

    fn judge(&self, question: &Question, draw: u64) -> votive_critic::Result<Judgment> {
        let started = Instant::now();
        let graded = match question.candidates() {
            [candidate] => self.by.grade(question.prompt(), candidate),
            several => Err(Ungraded::Unreadable(format!("{} candidates at once", several.len()))),
        };
        let unreadable = |why: String| Finding::Abstention(Abstention::Unreadable(why));
        let (finding, words, input_tokens) = match graded {
            Ok(Graded { value, words, input_tokens }) if value.is_finite() => {
                (Finding::Grade(value), words, input_tokens)
            }
            Ok(_) => (unreadable("the grade is not a number".to_owned()), String::new(), 0),
            Err(Ungraded::Unreadable(why)) => (unreadable(why), String::new(), 0),
            Err(Ungraded::Failed(message)) => {
                return Err(CriticError::Judge { judge: self.name.clone(), message });
            }
        };
        let cost =
            Cost { calls: 1, input_tokens, seconds: started.elapsed().as_secs_f64(), output_tokens: 0 };
        Ok(Judgment::of(Evidence { words, cost, ..Evidence::new(&self.name, question, draw, finding) }))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// Grades a text by its length, `?` by no number, and fails at `!`.
    struct Length;

    impl Grade for Length {
        fn grade(&self, _: &str, candidate: &Candidate) -> Result<Graded, Ungraded> {
            match candidate {
                Candidate::Text(text) if text == "?" => Ok(Graded::number(f64::NAN)),
                Candidate::Text(text) if text == "!" => Err(Ungraded::failed("out of paper")),
                Candidate::Text(text) => Ok(Graded {
                    value: text.len() as f64,
                    words: "long".to_owned(),
                    input_tokens: text.len() as u64,
                }),
                Candidate::Image(_) => Err(Ungraded::unreadable("it is an image")),
            }
        }
    }

    #[test]
    fn a_grade_is_a_number_or_a_reason() {
        let judge = Grading::new("length", Length);
        let ask = |text: &str| judge.judge(&Question::grade("p", Candidate::Text(text.to_owned())), 3);
        let judgment = ask("four").unwrap();
        let evidence = &judgment.evidence[0];
        assert_eq!(judgment.finding, Finding::Grade(4.0));
        assert_eq!((evidence.words.as_str(), evidence.draw, evidence.cost.input_tokens), ("long", 3, 4));
        assert_eq!((evidence.cost.calls, evidence.judge.as_str()), (1, "length"));
        let reason = |judgment: Judgment| match judgment.finding {
            Finding::Abstention(Abstention::Unreadable(why)) => why,
            other => format!("{other:?}"),
        };
        assert_eq!(reason(ask("?").unwrap()), "the grade is not a number");
        assert!(ask("!").unwrap_err().to_string().contains("out of paper"));
        let text = |text: &str| Candidate::Text(text.to_owned());
        let pair = Question::pair("p", text("a"), text("b"));
        assert_eq!(reason(judge.judge(&pair, 0).unwrap()), "2 candidates at once");
    }
}
