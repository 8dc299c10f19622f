//! A debate: judges answer, hear what the others said, and answer again; in the end they vote.
//!
//! It ends early where all agree. What a judge hears from others is stripped of verdict marks, so that nobody's words are read
//! as somebody else's verdict.
//!
//! # Source
//! "The Fellowship of the LLMs": one judge, a jury, a debate. Number of rounds and wording are this project's.

use super::{all_marks, vote};
use crate::asked::{Asked, Round};
use crate::error::{CriticError, Result};
use crate::judge::{Forms, Judge, check_form};
use crate::judgment::{Evidence, Judgment};
use crate::question::{Form, Question};
use std::num::NonZeroU32;
use std::sync::Arc;

/// Judges who hear each other.
pub struct Debate {
    name: String,
    judges: Vec<Arc<Asked>>,
    rounds: NonZeroU32,
}

impl Debate {
    /// A debate of judges whose verdicts are written; one round is a jury.
    ///
    /// # Errors
    /// If there are fewer than two, or one of them judges no pairs.
    pub fn new(judges: Vec<Arc<Asked>>, rounds: NonZeroU32) -> Result<Self> {
        if judges.len() < 2 {
            return Err(CriticError::Setting("a debate needs two judges or more".to_owned()));
        }
        judges.iter().try_for_each(|judge| judge.forms().require(Form::Pair, judge.name()))?;
        let names: Vec<&str> = judges.iter().map(|judge| judge.name()).collect();
        Ok(Self { name: format!("a debate of ({}), {rounds} rounds", names.join("; ")), judges, rounds })
    }
}

impl Judge for Debate {
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
        let mut heard: Vec<Vec<Round>> = vec![Vec::new(); self.judges.len()];
        let mut evidence: Vec<Evidence> = Vec::new();
        for round in 1..=self.rounds.get() {
            let answers =
                self.judges.iter().zip(&heard).map(|(judge, heard)| judge.judge_after(question, heard, draw));
            let answers: Vec<Judgment> = answers.collect::<Result<_>>()?;
            let winners: Vec<_> = answers.iter().map(|answer| answer.finding.winner()).collect();
            let all_agree = winners[0].is_some() && winners.iter().all(|winner| *winner == winners[0]);
            if all_agree || round == self.rounds.get() {
                let decided = vote(answers);
                evidence.extend(decided.evidence);
                return Ok(Judgment { finding: decided.finding, evidence });
            }
            let words: Vec<String> = answers.iter().map(said).collect();
            for (own, heard) in heard.iter_mut().enumerate() {
                let others = words.iter().enumerate().filter(|(other, _)| *other != own);
                let others = others.map(|(_, words)| words.clone()).collect();
                heard.push(Round { own: words[own].clone(), others });
            }
            evidence.extend(answers.into_iter().flat_map(|answer| answer.evidence));
        }
        // There is a last round, and it returns.
        Ok(Judgment { finding: vote(Vec::new()).finding, evidence })
    }
}

/// A judge's words.
fn said(judgment: &Judgment) -> String {
    judgment.evidence.iter().map(|evidence| evidence.words.as_str()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::judgment::{Cost, Winner};
    use crate::protocol::tests::pair;
    use crate::speaker::{Part, Role, Said, Sampling, Silence, Speaker, Talk, Weighed};
    use crate::template::Template;

    /// Says its opinion, until it has heard the other one more than once in a round: then it gives in.
    struct Stubborn {
        opinion: &'static str,
        gives_in: bool,
    }

    impl Speaker for Stubborn {
        fn name(&self) -> &str {
            self.opinion
        }

        fn reserved_marks(&self) -> &[String] {
            &[]
        }

        fn say(&self, talk: &Talk, _: &Sampling) -> Result<Said, Silence> {
            let last = talk.turns.last().unwrap();
            let [Part::Text(heard)] = last.parts.as_slice() else { unreachable!() };
            assert!(!heard.contains("[[") && last.role == Role::User, "{heard}");
            let against = heard.matches("I say the other").count();
            let flips = self.gives_in && against >= 2;
            let own = if flips == (self.opinion == "A") { "B" } else { "A" };
            let stance = if self.opinion == "B" { "I say the other" } else { "I say the first" };
            Ok(Said {
                words: format!("{stance}. [[{own}]]"),
                is_finished: true,
                cost: Cost { calls: 1, ..Cost::default() },
            })
        }

        fn weigh(&self, _: &Talk, _: &[String]) -> Result<Weighed, Silence> {
            unreachable!()
        }
    }

    fn judge(opinion: &'static str, gives_in: bool) -> Arc<Asked> {
        let template = Template::named("text-verdict").unwrap();
        let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 9, seed: 0 };
        Arc::new(Asked::new(Arc::new(Stubborn { opinion, gives_in }), template, sampling))
    }

    #[test]
    fn whoever_hears_two_others_may_change_his_mind() {
        let debate = |rounds: u32| {
            let judges = vec![judge("A", true), judge("B", false), judge("B", false)];
            let judge = Debate::new(judges, rounds.try_into().unwrap()).unwrap();
            judge.judge(&pair("x", "y"), 0).unwrap()
        };
        let (jury, two) = (debate(1), debate(3));
        assert_eq!(jury.finding, crate::Finding::Preference(1.0 / 3.0));
        // After the second round all agree, and there is no third.
        assert_eq!((two.finding.winner(), two.evidence.len()), (Some(Winner::Second), 6));
        assert_eq!(two.finding, crate::Finding::Preference(0.0));
    }

    #[test]
    fn whoever_agrees_does_not_debate() {
        let judge = Debate::new(vec![judge("A", false), judge("A", false)], 5.try_into().unwrap()).unwrap();
        assert_eq!(judge.judge(&pair("x", "y"), 0).unwrap().evidence.len(), 2);
        assert!(Debate::new(Vec::new(), 1.try_into().unwrap()).is_err());
    }
}
