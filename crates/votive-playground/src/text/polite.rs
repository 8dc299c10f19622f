//! "A neighbour asks: may I borrow your lamp? Politely say no. End with thank you."

use votive_tensor::random::Draws;

use super::lexicon::all_known;
use super::pattern::{fill, known, only, slots, words};
use super::task::Instruction;
use super::vocabulary::{THINGS, another, one_of};

const PERSONS: &[&str] =
    &["neighbour", "friend", "teacher", "guest", "cousin", "stranger", "sailor", "farmer"];
const VERBS: &[&str] = &["borrow", "see", "clean", "paint", "move", "keep", "open", "touch"];
const DECISIONS: &[&str] = &["yes", "no"];
const PLAIN: &str = "A {} asks: may I {} your {}? Politely say {}.";
const THANKS: &str = "A {} asks: may I {} your {}? Politely say {}. End with thank you.";

const POLITE_YES: &[&str] = &[
    "Yes, of course, please {} the {}.",
    "Yes, gladly, please {} my {} today.",
    "Certainly, please do {} the {}.",
    "Yes, with pleasure, you may {} my {}.",
];
const POLITE_NO: &[&str] = &[
    "I am sorry, but you cannot {} the {}.",
    "I am afraid you cannot {} my {} today.",
    "No, sorry, please do not {} my {}.",
    "Sorry, I am afraid you cannot {} the {}.",
];
const RUDE_YES: &[&str] = &[
    "Yes, just {} the {} and go away.",
    "Fine, {} my stupid {} and leave.",
    "Yes, {} my {}, you awful pest.",
    "Fine, stop whining and {} the {}.",
];
const RUDE_NO: &[&str] = &[
    "No, go away, you cannot {} the {}.",
    "No, you pest, never {} my stupid {}.",
    "Never, stop whining, you cannot {} my {}.",
    "No, you awful fool, do not {} the {}.",
];
const POLITE_WORDS: &[&str] = &["please", "gladly", "pleasure", "sorry", "afraid"];
const RUDE_WORDS: &[&str] = &["away", "stupid", "leave", "awful", "pest", "whining", "fool"];
const YES_WORDS: &[&str] = &["yes", "certainly", "fine"];
const NO_WORDS: &[&str] = &["no", "cannot", "never", "not"];
const THANK_YOU: &str = " Thank you.";
const GOODBYE: &str = " Good bye.";

/// Everything that answers are made of, besides the word lists.
pub(super) const TEXTS: &[&[&str]] =
    &[VERBS, POLITE_YES, POLITE_NO, RUDE_YES, RUDE_NO, &[THANK_YOU, GOODBYE]];

/// Grant or refuse a request politely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Polite {
    person: &'static str,
    verb: &'static str,
    thing: &'static str,
    decision: &'static str,
    thanks: bool,
}

impl Polite {
    fn reply(&self, polite: bool, decision: &str, thing: &str, ending: &str, draws: &mut Draws) -> String {
        let sentences = match (polite, decision == "yes") {
            (true, true) => POLITE_YES,
            (true, false) => POLITE_NO,
            (false, true) => RUDE_YES,
            (false, false) => RUDE_NO,
        };
        fill(one_of(sentences, draws), &[self.verb, thing]) + ending
    }

    fn ending(&self) -> &'static str {
        if self.thanks { THANK_YOU } else { "" }
    }
}

impl Instruction for Polite {
    fn draw(draws: &mut Draws) -> Self {
        Self {
            person: one_of(PERSONS, draws),
            verb: one_of(VERBS, draws),
            thing: one_of(THINGS, draws),
            decision: one_of(DECISIONS, draws),
            thanks: draws.chance(0.5),
        }
    }

    fn prompt(&self) -> String {
        let pattern = if self.thanks { THANKS } else { PLAIN };
        fill(pattern, &[self.person, self.verb, self.thing, self.decision])
    }

    fn parse(prompt: &str) -> Option<Self> {
        let thanks = prompt.ends_with("thank you.");
        let [person, verb, thing, decision] = slots(if thanks { THANKS } else { PLAIN }, prompt)?;
        Some(Self {
            person: known(PERSONS, person)?,
            verb: known(VERBS, verb)?,
            thing: known(THINGS, thing)?,
            decision: known(DECISIONS, decision)?,
            thanks,
        })
    }

    fn right_answer(&self, draws: &mut Draws) -> String {
        self.reply(true, self.decision, self.thing, self.ending(), draws)
    }

    fn flawed_answer(&self, draws: &mut Draws) -> String {
        let (mut polite, mut decision, mut thing, mut ending) =
            (true, self.decision, self.thing, self.ending());
        match draws.weighted(&[12.0, 1.0, 0.5, if self.thanks { 2.0 } else { 0.0 }]) {
            0 => polite = false,
            1 => decision = another(DECISIONS, decision, draws),
            2 => thing = another(THINGS, thing, draws),
            _ => ending = GOODBYE,
        }
        self.reply(polite, decision, thing, ending, draws)
    }

    fn constraints(&self, answer: &str) -> Vec<(&'static str, bool)> {
        let spoken = words(answer);
        let any = |list: &[&str]| spoken.iter().any(|word| list.contains(&word.as_str()));
        let (wanted, unwanted) =
            if self.decision == "yes" { (YES_WORDS, NO_WORDS) } else { (NO_WORDS, YES_WORDS) };
        let mut constraints = vec![
            ("known words", all_known(&spoken)),
            ("polite", any(POLITE_WORDS) && !any(RUDE_WORDS)),
            ("decision", any(wanted) && !any(unwanted)),
            ("thing", only(THINGS, self.thing, &spoken)),
        ];
        if self.thanks {
            constraints.push(("ending", answer.trim().ends_with(THANK_YOU)));
        }
        constraints
    }
}
