//! Judges around judges, that make of answers something to be trusted: one file a protocol.

mod both_orders;
mod by_grade;
mod calibrated;
mod debate;
mod jury;
mod majority;
mod remembering;

pub use both_orders::BothOrders;
pub use by_grade::ByGrade;
pub use calibrated::{Calibrated, fit_temperature};
pub use debate::Debate;
pub use jury::Jury;
pub use majority::Majority;
pub use remembering::Remembering;

use crate::judgment::{Abstention, Finding, Judgment, Winner};
use std::collections::BTreeSet;

/// What several judgments of a pair say together, abstentions aside: the probability is the first candidate's share of votes,
/// of which a tie gives half.
///
/// As many votes for either candidate are no tie but no majority, unless most votes are ties.
fn vote(judgments: Vec<Judgment>) -> Judgment {
    let winners: Vec<Winner> = judgments.iter().filter_map(|judgment| judgment.finding.winner()).collect();
    let count = |winner: Winner| winners.iter().filter(|other| **other == winner).count();
    let (first, second, ties) = (count(Winner::First), count(Winner::Second), count(Winner::Tie));
    let finding = if 2 * ties > winners.len() {
        Finding::Preference(0.5)
    } else if first == second {
        Finding::Abstention(Abstention::NoMajority)
    } else {
        Finding::Preference((first as f64 + 0.5 * ties as f64) / winners.len() as f64)
    };
    Judgment { finding, evidence: judgments.into_iter().flat_map(|judgment| judgment.evidence).collect() }
}

/// The marks of several judges, each once.
fn all_marks(of_each: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    of_each.flatten().collect::<BTreeSet<_>>().into_iter().collect()
}

/// log p/(1 − p)
fn log_odds(probability: f64) -> f64 {
    (probability / (1.0 - probability)).ln()
}

/// 1/(1 + e^−x)
fn sigmoid(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

#[cfg(test)]
mod tests {
    use crate::candidate::Candidate;
    use crate::error::Result;
    use crate::judge::{Forms, Judge};
    use crate::judgment::{Evidence, Finding, Judgment};
    use crate::question::{Form, Question};

    pub(super) fn pair(first: &str, second: &str) -> Question {
        Question::pair("p", Candidate::Text(first.to_owned()), Candidate::Text(second.to_owned()))
    }

    type Script = Box<dyn Fn(&Question, u64) -> Finding + Send + Sync>;

    /// A judge that finds what a function finds.
    pub(super) struct Scripted {
        form: Form,
        script: Script,
    }

    impl Scripted {
        pub(super) fn new(script: impl Fn(&Question) -> Finding + Send + Sync + 'static) -> Self {
            Self::drawn(move |question, _| script(question))
        }

        pub(super) fn drawn(script: impl Fn(&Question, u64) -> Finding + Send + Sync + 'static) -> Self {
            Self { form: Form::Pair, script: Box::new(script) }
        }

        pub(super) fn grading(script: impl Fn(&Question) -> Finding + Send + Sync + 'static) -> Self {
            Self { form: Form::Grade, script: Box::new(move |question, _| script(question)) }
        }
    }

    impl Judge for Scripted {
        fn name(&self) -> &str {
            "scripted"
        }

        fn forms(&self) -> Forms {
            Forms::only(self.form)
        }

        fn judge(&self, question: &Question, draw: u64) -> Result<Judgment> {
            let finding = (self.script)(question, draw);
            Ok(Judgment::of(Evidence::new(self.name(), question, draw, finding)))
        }
    }
}
