//! Equal questions are asked once: what was answered to a question and a draw is remembered.
//!
//! Several protocols around one judge put the same questions; whoever compares them should pay for each question once. Judges
//! promise equal answers to equal questions of equal draws ([`Judge::judge`]), and this keeps the promise also for one who
//! cannot, such as a server that batches.

use crate::error::Result;
use crate::judge::{Forms, Judge};
use crate::judgment::{Cost, Judgment};
use crate::question::Question;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Remembers what a judge has said.
pub struct Remembering {
    judge: Arc<dyn Judge>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By the question's hash and the draw.
    judgments: BTreeMap<(String, u64), Judgment>,
    cost: Cost,
}

impl Remembering {
    /// Around any judge.
    pub fn new(judge: Arc<dyn Judge>) -> Self {
        Self { judge, known: Mutex::default() }
    }

    /// What all that was asked has cost. Judgments that are given again state the cost of the first time, so the sum over
    /// judgments is more than this.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.known().cost
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Judge for Remembering {
    fn name(&self) -> &str {
        self.judge.name()
    }

    fn forms(&self) -> Forms {
        self.judge.forms()
    }

    fn reserved_marks(&self) -> Vec<String> {
        self.judge.reserved_marks()
    }

    fn judge(&self, question: &Question, draw: u64) -> Result<Judgment> {
        let key = (question.sha256(), draw);
        if let Some(judgment) = self.known().judgments.get(&key) {
            return Ok(judgment.clone());
        }
        // Others may ask meanwhile; two who ask the same at the same time both ask.
        let judgment = self.judge.judge(question, draw)?;
        let mut known = self.known();
        known.cost += judgment.cost();
        Ok(known.judgments.entry(key).or_insert(judgment).clone())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::judgment::Finding;
    use crate::protocol::tests::{Scripted, pair};
    use crate::protocol::{BothOrders, Majority};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A judge whose every answer is another one.
    fn whimsical() -> (Arc<Remembering>, Arc<AtomicU64>) {
        let asked: Arc<AtomicU64> = Arc::default();
        let count = asked.clone();
        let judge = Scripted::new(move |_| {
            Finding::Preference(1.0 / (2.0 + count.fetch_add(1, Ordering::Relaxed) as f64))
        });
        (Arc::new(Remembering::new(Arc::new(judge))), asked)
    }

    #[test]
    fn a_question_is_asked_once_for_each_draw_and_order() {
        let (judge, asked) = whimsical();
        let (one, other) = (pair("x", "y"), pair("y", "x"));
        let first = judge.judge(&one, 0).unwrap();
        assert_eq!(judge.judge(&one, 0).unwrap(), first);
        assert_ne!(judge.judge(&one, 1).unwrap().finding, first.finding);
        assert_ne!(judge.judge(&other, 0).unwrap().finding, first.finding);
        assert_eq!((asked.load(Ordering::Relaxed), judge.cost().calls), (3, 3));
    }

    #[test]
    fn protocols_around_it_share_what_it_was_asked() {
        let (judge, asked) = whimsical();
        let both = BothOrders::new(judge.clone()).unwrap();
        let question = pair("x", "y");
        judge.judge(&question, 4).unwrap();
        judge.judge(&question.reversed(), 4).unwrap();
        let [forth, back] = [both.judge(&question, 4).unwrap(), both.judge(&question.reversed(), 4).unwrap()];
        assert_eq!(forth.finding.winner(), back.finding.reversed(2).winner());
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        // Three draws of its own: 12, 13, 14.
        Majority::new(judge.clone(), 3.try_into().unwrap()).unwrap().judge(&question, 4).unwrap();
        assert_eq!(judge.cost().calls, 5);
    }
}
