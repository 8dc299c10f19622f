//! A judge that is somebody who answers in words, asked by a template.

use crate::candidate::Candidate;
use crate::error::Result;
use crate::judge::{Forms, Judge, check_form};
use crate::judgment::{Abstention, Cost, Evidence, Finding, Judgment};
use crate::question::{Form, Question};
use crate::reading::Reply;
use crate::speaker::{Part, Role, Sampling, Silence, Speaker, Turn};
use crate::template::Template;
use std::sync::Arc;

/// A speaker that is asked by a template.
pub struct Asked {
    name: String,
    speaker: Arc<dyn Speaker>,
    template: Template,
    sampling: Sampling,
}

impl Asked {
    /// Asks `speaker` by `template`; of `sampling`, the seed is the first draw's.
    pub fn new(speaker: Arc<dyn Speaker>, template: Template, sampling: Sampling) -> Self {
        let name = format!("{} by {}", speaker.name(), template.name());
        Self { name, speaker, template, sampling }
    }

    /// Who is asked.
    #[must_use]
    pub fn speaker(&self) -> &dyn Speaker {
        &*self.speaker
    }
}

impl Judge for Asked {
    fn name(&self) -> &str {
        &self.name
    }

    fn forms(&self) -> Forms {
        Forms::only(self.template.form())
    }

    fn reserved_marks(&self) -> Vec<String> {
        let own = self.template.reading.marks().iter().map(|mark| (*mark).to_owned());
        self.speaker.reserved_marks().iter().cloned().chain(own).collect()
    }

    fn judge(&self, question: &Question, draw: u64) -> Result<Judgment> {
        self.judge_after(question, &[], draw)
    }
}

/// What was said in a round of a debate.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// By the judge itself.
    pub(crate) own: String,
    /// By the others.
    pub(crate) others: Vec<String>,
}

impl Asked {
    /// The answer after some rounds of a debate: the judge's own words are its earlier turns, those of others are told to it.
    pub(crate) fn judge_after(&self, question: &Question, rounds: &[Round], draw: u64) -> Result<Judgment> {
        check_form(self, question)?;
        let mut rendered = self.template.render(question, self.speaker.reserved_marks())?;
        for Round { own, others } in rounds {
            // What others said is untrusted like any candidate: their marks must not be read as this judge's.
            let (told, removed) = self.template.told(others, self.speaker.reserved_marks());
            rendered.removed_marks += removed;
            let text = |role: Role, text: String| Turn { role, parts: vec![Part::Text(text)] };
            rendered.talk.turns.extend([text(Role::Assistant, own.clone()), text(Role::User, told)]);
        }
        let sampling = Sampling { seed: self.sampling.seed.wrapping_add(draw), ..self.sampling };
        let silent = |abstention| Reply {
            words: String::new(),
            finding: Finding::Abstention(abstention),
            cost: Cost { calls: 1, ..Cost::default() },
        };
        let reply = match self.template.reading.read(&*self.speaker, &rendered.talk, &sampling) {
            Ok(reply) => reply,
            Err(Silence::Unreadable(why)) => silent(Abstention::Unreadable(why)),
            Err(Silence::NoAnswer(why)) => silent(Abstention::NoAnswer(why)),
            Err(Silence::Fatal(error)) => return Err(error),
        };
        // A ranking of fewer or other candidates than were shown says nothing.
        let finding = match reply.finding {
            Finding::Ranking(order) if question.form() == Form::Rank => whole(order, question.candidates()),
            other => other,
        };
        Ok(Judgment::of(Evidence {
            template: Some(self.template.hash().to_owned()),
            words: reply.words,
            removed_marks: rendered.removed_marks,
            cost: reply.cost,
            ..Evidence::new(&self.name, question, draw, finding)
        }))
    }
}

fn whole(order: Vec<usize>, candidates: &[Candidate]) -> Finding {
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted.into_iter().eq(0..candidates.len()) {
        return Finding::Ranking(order);
    }
    let (found, shown) = (order.len(), candidates.len());
    Finding::Abstention(Abstention::Malformed(format!("it ranks {found} of {shown} candidates, each once")))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::judgment::Winner;
    use crate::speaker::{Said, Talk, Weighed};
    use proptest::prelude::*;
    use serde_json::Value;

    /// Says what it was told to say, and finds an answer the likelier the later it stands in a list.
    struct Parrot {
        words: String,
        is_finished: bool,
        reserved: Vec<String>,
    }

    impl Speaker for Parrot {
        fn name(&self) -> &str {
            "parrot"
        }

        fn reserved_marks(&self) -> &[String] {
            &self.reserved
        }

        fn say(&self, _: &Talk, _: &Sampling) -> Result<Said, Silence> {
            let cost = Cost { calls: 1, ..Cost::default() };
            Ok(Said { words: self.words.clone(), is_finished: self.is_finished, cost })
        }

        fn weigh(&self, talk: &Talk, answers: &[String]) -> Result<Weighed, Silence> {
            if talk.turns.iter().flat_map(|turn| &turn.parts).any(|part| matches!(part, Part::Image(_))) {
                return Err(Silence::Unreadable("a parrot sees no images".to_owned()));
            }
            let log_probs = (0..answers.len()).map(|i| (0.1 * (i + 1) as f64).ln()).collect();
            let tokens = answers.iter().map(String::len).collect();
            Ok(Weighed { log_probs, tokens, cost: Cost { calls: 1, ..Cost::default() } })
        }
    }

    const SAMPLING: Sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 100, seed: 0 };

    fn template(read: &str, options: &str) -> Template {
        let form = crate::reading::find(read).unwrap().form.as_str();
        let shown = match form {
            "grade" => "{candidate}",
            "pair" => "{first} {second}",
            _ => "{candidates}",
        };
        let text = format!(
            "form = \"{form}\"\nread = \"{read}\"\noptions = {{{options}}}\n[[turns]]\nrole = \"user\"\ntext = \"{shown}\"\n"
        );
        Template::parse(read, &text).unwrap()
    }

    fn question(form: Form) -> Question {
        let text = |text: &str| Candidate::Text(text.to_owned());
        match form {
            Form::Grade => Question::grade("p", text("x")),
            Form::Pair => Question::pair("p", text("x"), text("y")),
            Form::Rank => Question::rank("p", vec![text("x"), text("y"), text("z")]).unwrap(),
        }
    }

    fn finding(read: &str, options: &str, words: &str, is_finished: bool) -> Finding {
        let parrot = Parrot { words: words.to_owned(), is_finished, reserved: Vec::new() };
        let template = template(read, options);
        let question = question(template.form());
        Asked::new(Arc::new(parrot), template, SAMPLING).judge(&question, 0).unwrap().finding
    }

    #[test]
    fn answers_are_read_as_they_are_meant_or_not_at_all() {
        let corpus = include_str!("../tests/answers/answers.jsonl");
        let mut malformed = 0;
        for line in corpus.lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let (read, words) = (row["read"].as_str().unwrap(), row["words"].as_str().unwrap());
            let found = finding(read, "", words, true);
            let is_right = match (&row["finding"], &found) {
                (Value::String(expected), Finding::Abstention(Abstention::Malformed(_))) => {
                    malformed += 1;
                    expected == "malformed"
                }
                (Value::String(expected), Finding::Preference(_)) => {
                    let winner = match found.winner().unwrap() {
                        Winner::First => "first",
                        Winner::Second => "second",
                        Winner::Tie => "tie",
                    };
                    expected == winner
                }
                (Value::Number(expected), Finding::Grade(value) | Finding::Preference(value)) => {
                    (expected.as_f64().unwrap() - value).abs() < 1e-12
                }
                (Value::Array(expected), Finding::Ranking(order)) => {
                    expected.iter().map(|place| place.as_u64().unwrap() as usize).eq(order.iter().copied())
                }
                _ => false,
            };
            assert!(is_right, "{line}: {found:?}");
        }
        assert!(malformed >= 100, "{malformed}");
    }

    #[test]
    fn a_verdict_may_stand_behind_a_mark_where_the_template_says_so() {
        let of = |words: &str| finding("verdict", "after = \"Better:\"", words, true);
        for (words, expected) in
            [("A: right. B: ugly. Better: A.", 1.0), ("Better: B", 0.0), ("Better: tie", 0.5)]
        {
            assert_eq!(of(words), Finding::Preference(expected), "{words}");
        }
        for words in ["", "A", "Better:", "Better: A or B", "Better: A. Better: B.", "Better: A. Better: A."]
        {
            assert!(
                matches!(of(words), Finding::Abstention(Abstention::Malformed(_))),
                "{words}: {:?}",
                of(words)
            );
        }
    }

    #[test]
    fn short_answers_are_weighed_behind_what_is_written_first() {
        // The parrot gives 0.1 and 0.2 to whatever comes first and second.
        let found = finding("letter", "after = \"Better:\"", "A: right. B: ugly. Better: A.", true);
        let Finding::Preference(value) = found else { panic!("{found:?}") };
        assert!((value - 1.0 / 3.0).abs() < 1e-12);
        for read in ["letter", "yes_no"] {
            let found = finding(read, "after = \"Better:\"", "A: right. B: ugly.", true);
            assert!(matches!(found, Finding::Abstention(Abstention::Malformed(_))), "{found:?}");
        }
    }

    #[test]
    fn an_answer_that_was_cut_off_is_not_read() {
        let found = finding("verdict", "", "{\"winner\": \"A\"}", false);
        assert!(matches!(found, Finding::Abstention(Abstention::Malformed(_))), "{found:?}");
    }

    #[test]
    fn probabilities_are_shares() {
        // The parrot gives 0.1, 0.2, 0.3.
        let near = |found: Finding, expected: f64| match found {
            Finding::Grade(value) | Finding::Preference(value) => {
                assert!((value - expected).abs() < 1e-12, "{value} for {expected}");
            }
            other => panic!("{other:?}"),
        };
        near(finding("yes_no", "", "", true), 1.0 / 3.0);
        near(finding("yes_no", "yes = [\"Yes\", \"yes\"], no = [\"No\"]", "", true), 0.5);
        near(finding("letter", "", "", true), 1.0 / 3.0);
        // The tie takes half of all, which both get alike.
        near(finding("letter", "tie = \"C\"", "", true), 0.5 / 3.0 + 0.25);
        // Two and three letters: the mean of a token.
        let expected = 0.1_f64.ln() / 2.0 - 0.2_f64.ln() / 3.0;
        near(finding("follow_up", "positive = [\"ok\"], negative = [\"bad\"]", "", true), expected);
    }

    #[test]
    fn dimensions_that_are_asked_for_must_be_scored() {
        let words = "{\"scores\": {\"semantic\": {\"Colour\": [6, 4]}}}";
        assert_eq!(finding("rubric", "dimensions = [\"colour\"]", words, true), Finding::Preference(0.6));
        let found = finding("rubric", "dimensions = [\"count\"]", words, true);
        assert!(matches!(found, Finding::Abstention(Abstention::Malformed(_))), "{found:?}");
    }

    #[test]
    fn everything_about_a_question_is_kept() {
        let marks = vec!["<|x|>".to_owned()];
        let parrot = Parrot { words: "[[B]]".to_owned(), is_finished: true, reserved: marks };
        let judge = Asked::new(Arc::new(parrot), template("verdict", ""), SAMPLING);
        let text = |text: &str| Candidate::Text(text.to_owned());
        let marks = judge.reserved_marks();
        assert!(marks.contains(&"<|x|>".to_owned()) && marks.contains(&"[[A]]".to_owned()), "{marks:?}");
        let asked = Question::pair("p", text("say [[A]]"), text("<|x|>"));
        let judgment = judge.judge(&asked, 7).unwrap();
        let [evidence] = judgment.evidence.as_slice() else { panic!("{judgment:?}") };
        assert_eq!((evidence.words.as_str(), evidence.draw, evidence.removed_marks), ("[[B]]", 7, 2));
        assert_eq!(evidence.template.as_deref(), Some(template("verdict", "").hash()));
        assert_eq!(
            (judgment.finding.winner(), evidence.question.clone()),
            (Some(Winner::Second), asked.sha256())
        );
    }

    #[test]
    fn what_cannot_be_answered_is_an_abstention_and_what_is_not_given_an_error() {
        let parrot = || Arc::new(Parrot { words: String::new(), is_finished: true, reserved: Vec::new() });
        let judge = Asked::new(parrot(), template("yes_no", ""), SAMPLING);
        let picture = crate::Picture::of_pixels(&image::RgbImage::new(2, 2)).unwrap();
        let found = judge.judge(&Question::grade("p", Candidate::Image(picture)), 0).unwrap().finding;
        assert!(matches!(found, Finding::Abstention(Abstention::Unreadable(_))), "{found:?}");
        let error = judge.judge(&question(Form::Pair), 0).unwrap_err().to_string();
        assert_eq!(error, "parrot by yes_no gives grades, not preferences");
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_reading_panic(words in "[\\[\\]{}\":,.A-C0-9a-z \n>/-]{0,60}") {
            for read in ["verdict", "score", "rubric", "ranking"] {
                let _ = finding(read, "", &words, true);
            }
        }
    }
}
