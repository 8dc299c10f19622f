//! The whole loop with a scripted critic and an editor of which all is known.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use proptest::prelude::*;
use std::sync::Arc;
use votive_critic::protocol::ByGrade;
use votive_critic::{
    Abstention, Asked, Candidate, Cost, Critique, Evidence, Finding, Form, Forms, Judge, Judgment,
    NotImproved, Part, Question, Result, Said, Sampling, Silence, Speaker, Talk, Template, Weighed,
    improvement, revise,
};

const SAMPLING: Sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 100, seed: 0 };
/// Candidates are words by spaces; a prompt names the right one of each place.
const WRONG: [&str; 3] = ["wrong colour", "wrong number", "wrong place"];

fn text(talk: &Talk) -> String {
    let parts = talk.turns.iter().flat_map(|turn| &turn.parts);
    parts.map(|part| if let Part::Text(text) = part { text.as_str() } else { "" }).collect()
}

fn faults(prompt: &str, candidate: &str) -> Vec<usize> {
    let places = prompt.split(' ').zip(candidate.split(' ')).enumerate();
    places.filter(|(_, (right, shown))| right != shown).map(|(place, _)| place).collect()
}

/// Sees everything; asked for a revision, it says what it was told.
struct Speaks(fn(&str, &str) -> String);

impl Speaker for Speaks {
    fn name(&self) -> &str {
        "scripted"
    }

    fn reserved_marks(&self) -> &[String] {
        &[]
    }

    fn say(&self, talk: &Talk, _: &Sampling) -> Result<Said, Silence> {
        let text = text(talk);
        let (candidate, prompt) = text.split_once('/').unwrap();
        let words = self.0(prompt, candidate);
        let is_finished = !words.ends_with('…');
        Ok(Said { words, is_finished, cost: Cost { calls: 1, ..Cost::default() } })
    }

    fn weigh(&self, _: &Talk, _: &[String]) -> Result<Weighed, Silence> {
        Err(Silence::NoAnswer("it writes".to_owned()))
    }
}

fn template() -> Template {
    let text = "form = \"grade\"\nread = \"critique\"\noptions = { after = \"Fits:\" }\n\
        turns = [{ role = \"user\", text = \"{candidate}/{prompt}\" }]\n\
        revision = [{ role = \"user\", text = \"{candidate}/{prompt}/{critique}\" }]\n\
        [edit]\nprompt = \"{prompt}\"\nnegative = \"{shown}\"\nstrength = { otherwise = 0.5, \"wrong number\" = 0.9 }";
    Template::parse("test", text).unwrap()
}

fn exact_words(prompt: &str, candidate: &str) -> String {
    let wrong: Vec<&str> = faults(prompt, candidate).into_iter().map(|place| WRONG[place]).collect();
    match wrong.is_empty() {
        true => format!("{candidate}. Fits: Yes."),
        false => format!("{candidate}. Fits: No, {}.", wrong.join(", ")),
    }
}

/// Grades by the number of faults.
struct Exact;

impl Judge for Exact {
    fn name(&self) -> &str {
        "exact"
    }

    fn forms(&self) -> Forms {
        Forms::only(Form::Grade)
    }

    fn judge(&self, question: &Question, draw: u64) -> Result<Judgment> {
        let Candidate::Text(candidate) = &question.candidates()[0] else { panic!("a text") };
        let finding = Finding::Grade(-(faults(question.prompt(), candidate).len() as f64));
        Ok(Judgment::of(Evidence::new("exact", question, draw, finding)))
    }
}

fn criticised(
    speaks: fn(&str, &str) -> String,
    prompt: &str,
    candidate: &str,
) -> (Judgment, Option<Critique>) {
    let critic = Asked::new(Arc::new(Speaks(speaks)), template(), SAMPLING);
    let question = Question::grade(prompt, Candidate::Text(candidate.to_owned()));
    let judgment = critic.judge(&question, 0).unwrap();
    let critique = template().critique(&judgment.evidence[0].words).unwrap().ok();
    (judgment, critique)
}

/// Sets the first place that is wrong right, or one that is right wrong.
fn edited(prompt: &str, candidate: &str, fixes: bool) -> String {
    let wrong = faults(prompt, candidate);
    let place = if fixes { wrong.first().copied() } else { (0..3).find(|place| !wrong.contains(place)) };
    let change = |(at, (right, shown)): (usize, (&str, &str))| match Some(at) == place {
        true if fixes => right.to_owned(),
        true => format!("not-{right}"),
        false => shown.to_owned(),
    };
    let words = prompt.split(' ').zip(candidate.split(' ')).enumerate();
    words.map(change).collect::<Vec<_>>().join(" ")
}

proptest! {
    /// The editor fixes an attribute with probability q and breaks one otherwise: an exact judge lets all that improved
    /// through, and nothing else.
    #[test]
    fn an_exact_judge_keeps_improvements_and_nothing_else(
        shown in proptest::collection::vec(proptest::collection::vec(0..2_usize, 3), 1..20),
        q in 0.0..1.0_f64,
        draws in proptest::collection::vec(0.0..1.0_f64, 20),
    ) {
        let judge = ByGrade::new(Arc::new(Exact), 1.0).unwrap();
        let prompt = "red two left";
        for (places, draw) in shown.iter().zip(draws) {
            let of = |(place, right): (usize, &str)| if places[place] == 0 { right.to_owned() } else { "other".to_owned() };
            let original: String = prompt.split(' ').enumerate().map(of).collect::<Vec<_>>().join(" ");
            let (_, critique) = criticised(exact_words, prompt, &original);
            let Some(edit) = template().edit(prompt, &critique.unwrap()) else {
                // Nothing is wrong: no edit, and so no pair.
                prop_assert_eq!(faults(prompt, &original).len(), 0);
                continue;
            };
            prop_assert_eq!((edit.prompt.as_str(), edit.negative.as_deref()), (prompt, Some(original.as_str())));
            let fixes = draw < q;
            let edited = edited(prompt, &original, fixes);
            let pair = Question::pair(prompt, Candidate::Text(original.clone()), Candidate::Text(edited.clone()));
            let kept = improvement(&judge.judge(&pair, 0).unwrap().finding, 0.5);
            prop_assert_eq!(kept.is_ok(), faults(prompt, &edited).len() < faults(prompt, &original).len());
            prop_assert_eq!(kept.is_ok(), fixes);
        }
    }
}

#[test]
fn what_leaves_nothing_to_act_on_makes_no_edit() {
    let (judgment, critique) =
        criticised(|_, shown| format!("{shown}. Fits: No."), "red two left", "blue two left");
    assert_eq!(
        (judgment.finding, template().edit("red two left", &critique.unwrap())),
        (Finding::Grade(-1.0), None)
    );
    let (judgment, critique) = criticised(exact_words, "red two left", "blue one left");
    let edit = template().edit("red two left", &critique.unwrap()).unwrap();
    assert_eq!((judgment.finding, edit.strength), (Finding::Grade(-2.0), 0.9));
    // Cut off, and without a verdict.
    for words in
        [|_: &str, _: &str| "x. Fits: No, wrong…".to_owned(), |_: &str, _: &str| "it is nice".to_owned()]
    {
        let (judgment, _) = criticised(words, "red two left", "blue two left");
        assert!(matches!(judgment.finding, Finding::Abstention(Abstention::Malformed(_))), "{judgment:?}");
    }
}

#[test]
fn a_text_is_revised_by_what_was_said_of_it() {
    let question = Question::grade("red two left", Candidate::Text("blue two left".to_owned()));
    let revised = |speaks: fn(&str, &str) -> String| {
        let (revised, cost) =
            revise(&Speaks(speaks), &template(), (&question, "Fits: No, wrong colour."), &SAMPLING).unwrap();
        assert_eq!(cost.calls, 1);
        revised
    };
    let told = |prompt: &str, candidate: &str| format!(" {candidate}, {prompt} ");
    assert_eq!(revised(told), Ok("blue two left, red two left/Fits: No, wrong colour.".to_owned()));
    for words in [|_: &str, _: &str| String::new(), |_: &str, _: &str| "red tw…".to_owned()] {
        assert!(matches!(revised(words), Err(Abstention::Malformed(_))));
    }
    let asked = Template::named("text-fit").unwrap();
    let error = revise(&Speaks(told), &asked, (&question, "x"), &SAMPLING).unwrap_err().to_string();
    assert!(error.contains("[[revision]]"), "{error}");
}

#[test]
fn only_what_was_found_better_improves() {
    for (original, least, expected) in [
        (0.2, 0.5, Ok(0.8)),
        (0.2, 0.9, Err(NotImproved::Unsure)),
        (0.5, 0.5, Err(NotImproved::Tied)),
        (0.7, 0.5, Err(NotImproved::Worse)),
    ] {
        assert_eq!(improvement(&Finding::Preference(original), least), expected, "{original} {least}");
    }
    let flipped = Finding::Abstention(Abstention::OrderFlip);
    assert_eq!(improvement(&flipped, 0.5), Err(NotImproved::Undecided("order_flip")));
}
