//! "Describe a fox at the lake in eight to ten words."

use votive_tensor::random::Draws;

use super::lexicon::all_known;
use super::pattern::{capitalized, fill, known, only, slots, with_article, without_article, words};
use super::task::Instruction;
use super::vocabulary::{ANIMALS, NUMBERS, PLACES, THINGS, another, number, one_of};

const VERBS: &[&str] = &["Describe", "Introduce", "Present", "Mention", "Picture", "Portray"];
const PLAIN: &str = "{} {} in {} to {} words.";
const PLACED: &str = "{} {} at the {} in {} to {} words.";

/// Words that may be added to "The fox waits", in their order in the sentence; each group gives one word at most.
const OPTIONAL: &[&[&str]] = &[
    &["small", "big", "tiny"],
    &["young", "old", "new"],
    &["brown", "white", "golden"],
    &["proudly", "slowly", "patiently"],
    &["alone", "outside"],
    &["today", "again", "now"],
];
/// How many of the groups stand before the noun.
const ADJECTIVES: usize = 3;
const STATES: &[&str] = &["waits", "stands", "rests", "stays"];
/// Two more words about what it does.
const MORE: &[&str] = &["and sleeps", "and dreams"];

/// Everything that answers are made of, besides the word lists.
pub(super) const TEXTS: &[&[&str]] = &[
    OPTIONAL[0],
    OPTIONAL[1],
    OPTIONAL[2],
    OPTIONAL[3],
    OPTIONAL[4],
    OPTIONAL[5],
    STATES,
    MORE,
    &["the", "at"],
];

/// Describe an animal or a thing within a number of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Short {
    verb: &'static str,
    noun: &'static str,
    place: Option<&'static str>,
    fewest: usize,
}

impl Short {
    /// Numbers of words that may be asked for at the least; at the most it is two more.
    fn fewest(placed: bool) -> &'static [usize] {
        if placed { &[8, 10] } else { &[3, 6] }
    }

    fn most(&self) -> usize {
        self.fewest + 2
    }

    fn new(verb: &str, noun: &str, place: Option<&str>, fewest: &str, most: &str) -> Option<Self> {
        let noun = without_article(noun)?;
        let place = match place {
            Some(place) => Some(known(PLACES, place)?),
            None => None,
        };
        let fewest = number(fewest).filter(|fewest| Self::fewest(place.is_some()).contains(fewest))?;
        (number(most) == Some(fewest + 2)).then_some(Self {
            verb: known(VERBS, verb)?,
            noun: known(ANIMALS, noun).or_else(|| known(THINGS, noun))?,
            place,
            fewest,
        })
    }

    /// A sentence of `count` words: from 2 to 11, or from 6 to 14 with a place.
    fn sentence(noun: &str, place: Option<&str>, count: usize, draws: &mut Draws) -> String {
        let state = one_of(STATES, draws);
        let least = if place.is_some() { 6 } else { 3 };
        if count < least {
            return format!("{} {state}.", capitalized(noun));
        }
        let spare = count - least;
        let more = spare > OPTIONAL.len() || (spare >= 2 && draws.chance(0.3));
        let mut used = [false; OPTIONAL.len()];
        used[..if more { spare - 2 } else { spare }].fill(true);
        draws.shuffle(&mut used);
        let mut parts = vec!["The"];
        for (index, group) in OPTIONAL.iter().enumerate() {
            if index == ADJECTIVES {
                parts.extend([noun, state]);
            }
            if used[index] {
                parts.push(one_of(group, draws));
            }
        }
        if more {
            parts.push(one_of(MORE, draws));
        }
        let ending = place.map(|place| format!(" at the {place}")).unwrap_or_default();
        format!("{}{ending}.", parts.join(" "))
    }
}

impl Instruction for Short {
    fn draw(draws: &mut Draws) -> Self {
        let nouns = if draws.chance(0.5) { ANIMALS } else { THINGS };
        let place = if draws.chance(0.8) { Some(one_of(PLACES, draws)) } else { None };
        Self {
            verb: one_of(VERBS, draws),
            noun: one_of(nouns, draws),
            place,
            fewest: *draws.pick(Self::fewest(place.is_some())),
        }
    }

    fn prompt(&self) -> String {
        let noun = with_article(self.noun);
        let (fewest, most) = (NUMBERS[self.fewest], NUMBERS[self.most()]);
        match self.place {
            Some(place) => fill(PLACED, &[self.verb, &noun, place, fewest, most]),
            None => fill(PLAIN, &[self.verb, &noun, fewest, most]),
        }
    }

    fn parse(prompt: &str) -> Option<Self> {
        if let Some([verb, noun, place, fewest, most]) = slots(PLACED, prompt) {
            return Self::new(verb, noun, Some(place), fewest, most);
        }
        let [verb, noun, fewest, most] = slots(PLAIN, prompt)?;
        Self::new(verb, noun, None, fewest, most)
    }

    fn right_answer(&self, draws: &mut Draws) -> String {
        let count = self.fewest + draws.below(3);
        Self::sentence(self.noun, self.place, count, draws)
    }

    fn flawed_answer(&self, draws: &mut Draws) -> String {
        match draws.weighted(&[8.0, 1.0]) {
            0 => {
                let by = if self.fewest > 3 { 1 + draws.below(2) } else { 1 };
                let count = if draws.chance(0.5) { self.most() + by } else { self.fewest - by };
                Self::sentence(self.noun, self.place, count, draws)
            }
            _ => {
                let nouns = if ANIMALS.contains(&self.noun) { ANIMALS } else { THINGS };
                let count = self.fewest + draws.below(3);
                Self::sentence(another(nouns, self.noun, draws), self.place, count, draws)
            }
        }
    }

    fn constraints(&self, answer: &str) -> Vec<(&'static str, bool)> {
        let spoken = words(answer);
        let nouns = if ANIMALS.contains(&self.noun) { ANIMALS } else { THINGS };
        let mut constraints = vec![
            ("length", (self.fewest..=self.most()).contains(&spoken.len())),
            ("sentence", answer.trim().ends_with('.') && answer.matches('.').count() == 1),
            ("known words", all_known(&spoken)),
            ("subject", only(nouns, self.noun, &spoken)),
        ];
        if let Some(place) = self.place {
            constraints.push(("place", only(PLACES, place, &spoken)));
        }
        constraints
    }
}
