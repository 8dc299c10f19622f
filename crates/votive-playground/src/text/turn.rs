//! "Say it the other way round: the red circle is left of the blue square."
//!
//! The shapes, colours and relations are those of the image world.

use votive_tensor::random::Draws;

use super::pattern::{fill, known, slots};
use super::task::Instruction;
use super::vocabulary::{another, one_of};
use crate::image::{Colour, Object, Relation, Shape};

const STARTS: &[&str] =
    &["Say it the other way round", "Turn this sentence around", "Start with the other shape"];
const PATTERN: &str = "{}: {}";
const SENTENCE: &str = "he {} is {} the {}.";

/// State where two objects are, starting with the one that the prompt names last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    start: &'static str,
    first: Object,
    relation: Relation,
    second: Object,
}

/// "The red circle is left of the blue square." without its first letter, which depends on where it stands.
fn sentence(first: Object, relation: Relation, second: Object) -> String {
    fill(SENTENCE, &[&first.phrase(), relation.word(), &second.phrase()])
}

fn read_sentence(text: &str) -> Option<(Object, Relation, Object)> {
    let [first, relation, second] = slots(SENTENCE, text)?;
    Some((Object::from_phrase(first)?, Relation::from_word(relation)?, Object::from_phrase(second)?))
}

fn recoloured(object: Object, draws: &mut Draws) -> Object {
    let words: Vec<&'static str> = Colour::ALL.iter().map(|colour| colour.word()).collect();
    let word = another(&words, object.colour.word(), draws);
    Object { colour: Colour::from_word(word).unwrap_or(object.colour), ..object }
}

impl Instruction for Turn {
    fn draw(draws: &mut Draws) -> Self {
        let object =
            |draws: &mut Draws| Object { colour: *draws.pick(Colour::ALL), shape: *draws.pick(Shape::ALL) };
        let first = object(draws);
        let mut second = object(draws);
        while second == first {
            second = object(draws);
        }
        Self { start: one_of(STARTS, draws), first, relation: *draws.pick(Relation::ALL), second }
    }

    fn prompt(&self) -> String {
        let sentence = format!("t{}", sentence(self.first, self.relation, self.second));
        fill(PATTERN, &[self.start, &sentence])
    }

    fn parse(prompt: &str) -> Option<Self> {
        let [start, sentence] = slots(PATTERN, prompt)?;
        let (first, relation, second) = read_sentence(sentence.trim().strip_prefix('t')?)?;
        (first != second).then_some(Self { start: known(STARTS, start)?, first, relation, second })
    }

    fn right_answer(&self, _draws: &mut Draws) -> String {
        format!("T{}", sentence(self.second, self.relation.inverse(), self.first))
    }

    fn flawed_answer(&self, draws: &mut Draws) -> String {
        let inverse = self.relation.inverse();
        let sentence = match draws.weighted(&[7.0, 2.0, 1.0]) {
            0 => sentence(self.second, self.relation, self.first),
            1 => sentence(self.first, self.relation, self.second),
            _ => sentence(recoloured(self.second, draws), inverse, self.first),
        };
        format!("T{sentence}")
    }

    fn constraints(&self, answer: &str) -> Vec<(&'static str, bool)> {
        let read = answer.trim().strip_prefix('T').and_then(read_sentence);
        let turned = read.is_some_and(|(first, _, second)| (first, second) == (self.second, self.first));
        let kept = read.is_some_and(|(first, _, second)| (first, second) == (self.first, self.second));
        let relation = read.map(|(_, relation, _)| relation);
        let expected = if kept { self.relation } else { self.relation.inverse() };
        vec![
            ("sentence", read.is_some()),
            ("shapes", turned || kept),
            ("order", read.is_some_and(|(first, ..)| first == self.second)),
            ("relation", relation == Some(expected)),
        ]
    }
}
