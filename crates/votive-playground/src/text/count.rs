//! "How many red shapes are there: red circle, blue square, red triangle?"

use votive_tensor::random::Draws;

use super::pattern::{fill, slots};
use super::task::Instruction;
use super::vocabulary::{NUMBERS, number};
use crate::image::{Colour, Object, Shape};

const PATTERN: &str = "How many {} are there: {}?";
const ONE: &str = "There is {} {}.";
const MANY: &str = "There are {} {}.";

/// Most objects that a prompt names.
const MOST: usize = 5;

/// Count the objects that have a colour or a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Count {
    counted: Counted,
    objects: Vec<Object>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Colour(Colour),
    Shape(Shape),
}

impl Counted {
    fn singular(self) -> String {
        match self {
            Self::Colour(colour) => format!("{} shape", colour.word()),
            Self::Shape(shape) => shape.word().to_owned(),
        }
    }

    fn plural(self) -> String {
        self.singular() + "s"
    }

    fn from_plural(words: &str) -> Option<Self> {
        match words.strip_suffix(" shapes") {
            Some(colour) => Some(Self::Colour(Colour::from_word(colour)?)),
            None => Some(Self::Shape(Shape::from_word(words.strip_suffix('s')?)?)),
        }
    }

    fn of(self, object: &Object) -> bool {
        match self {
            Self::Colour(colour) => object.colour == colour,
            Self::Shape(shape) => object.shape == shape,
        }
    }
}

impl Count {
    fn count(&self) -> usize {
        self.objects.iter().filter(|object| self.counted.of(object)).count()
    }

    fn sentence(&self, count: usize) -> String {
        let word = NUMBERS[count];
        match count {
            1 => fill(ONE, &[word, &self.counted.singular()]),
            _ => fill(MANY, &[word, &self.counted.plural()]),
        }
    }
}

impl Instruction for Count {
    /// The trait is that of one of the objects, so there is at least one; every other object has an even chance of it.
    fn draw(draws: &mut Draws) -> Self {
        let object =
            |draws: &mut Draws| Object { colour: *draws.pick(Colour::ALL), shape: *draws.pick(Shape::ALL) };
        let model = object(draws);
        let by_colour = draws.chance(0.5);
        let counted = if by_colour { Counted::Colour(model.colour) } else { Counted::Shape(model.shape) };
        let mut objects: Vec<Object> = (1..3 + draws.below(MOST - 2))
            .map(|_| {
                let other = object(draws);
                match (draws.chance(0.4), by_colour) {
                    (false, _) => other,
                    (true, true) => Object { colour: model.colour, ..other },
                    (true, false) => Object { shape: model.shape, ..other },
                }
            })
            .collect();
        objects.push(model);
        draws.shuffle(&mut objects);
        Self { counted, objects }
    }

    fn prompt(&self) -> String {
        let objects: Vec<String> = self.objects.iter().map(|object| object.phrase()).collect();
        fill(PATTERN, &[&self.counted.plural(), &objects.join(", ")])
    }

    fn parse(prompt: &str) -> Option<Self> {
        let [name, objects] = slots(PATTERN, prompt)?;
        let objects: Vec<Object> = objects.split(", ").map(Object::from_phrase).collect::<Option<_>>()?;
        (objects.len() <= MOST).then_some(Self { counted: Counted::from_plural(name)?, objects })
    }

    fn right_answer(&self, _draws: &mut Draws) -> String {
        self.sentence(self.count())
    }

    fn flawed_answer(&self, draws: &mut Draws) -> String {
        let count = self.count();
        self.sentence(if count == 0 || draws.chance(0.5) { count + 1 } else { count - 1 })
    }

    fn constraints(&self, answer: &str) -> Vec<(&'static str, bool)> {
        let answer = answer.trim();
        let read = slots(ONE, answer).or_else(|| slots(MANY, answer));
        let count = read.and_then(|[count, _]: [&str; 2]| number(count));
        let name = read.map(|[_, name]| name.to_owned());
        vec![
            ("sentence", count.is_some()),
            ("number", count == Some(self.count())),
            ("subject", name == Some(self.counted.plural()) || name == Some(self.counted.singular())),
        ]
    }
}
