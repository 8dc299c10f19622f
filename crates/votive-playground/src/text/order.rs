//! "Put these from small to large: goat, bee, owl."

use votive_tensor::random::Draws;

use super::list::{enumerated, enumeration};
use super::pattern::{fill, known, slots};
use super::task::Instruction;
use super::vocabulary::{ANIMALS, DAYS, NUMBERS, one_of, sample};

const VERBS: &[&str] = &["Put", "Sort", "Arrange"];
const PATTERN: &str = "{} these {}: {}.";

/// A name for the order, the list that defines it, and whether it runs backwards.
const ORDERS: &[(&str, &[&str], bool)] = &[
    ("from small to large", ANIMALS, false),
    ("from large to small", ANIMALS, true),
    ("from low to high", NUMBERS, false),
    ("from high to low", NUMBERS, true),
    ("by day of the week", DAYS, false),
];

/// Put three or four words into an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    verb: &'static str,
    order: usize,
    items: Vec<&'static str>,
}

impl Order {
    /// The items of the order, first to last; "no" is not a number that one would sort.
    fn scale(order: usize) -> Vec<&'static str> {
        let (_, list, backwards) = ORDERS[order];
        let mut scale: Vec<&'static str> = list.iter().copied().filter(|word| *word != "no").collect();
        if backwards {
            scale.reverse();
        }
        scale
    }

    fn sorted(&self) -> Vec<&'static str> {
        Self::scale(self.order).into_iter().filter(|word| self.items.contains(word)).collect()
    }
}

impl Instruction for Order {
    fn draw(draws: &mut Draws) -> Self {
        let order = draws.weighted(&[2.0, 2.0, 2.0, 2.0, 1.0]);
        let count = 3 + draws.below(2);
        Self { verb: one_of(VERBS, draws), order, items: sample(&Self::scale(order), count, draws) }
    }

    fn prompt(&self) -> String {
        fill(PATTERN, &[self.verb, ORDERS[self.order].0, &self.items.join(", ")])
    }

    fn parse(prompt: &str) -> Option<Self> {
        let [verb, order, items] = slots(PATTERN, prompt)?;
        let order = ORDERS.iter().position(|(name, ..)| *name == order)?;
        let scale = Self::scale(order);
        let items: Vec<&'static str> =
            items.split(", ").map(|item| known(&scale, item)).collect::<Option<_>>()?;
        let distinct = items.iter().enumerate().all(|(index, item)| !items[..index].contains(item));
        (distinct && (3..=4).contains(&items.len())).then_some(Self {
            verb: known(VERBS, verb)?,
            order,
            items,
        })
    }

    fn right_answer(&self, _draws: &mut Draws) -> String {
        enumeration(&self.sorted())
    }

    fn flawed_answer(&self, draws: &mut Draws) -> String {
        let mut items = self.sorted();
        match draws.weighted(&[10.0, 1.0, 0.5, 0.5]) {
            0 => items.reverse(),
            1 => {
                let place = draws.below(items.len() - 1);
                items.swap(place, place + 1);
            }
            2 => {
                items.pop();
            }
            _ => {
                let others: Vec<&'static str> =
                    Self::scale(self.order).into_iter().filter(|word| !items.contains(word)).collect();
                items.push(one_of(&others, draws));
            }
        }
        enumeration(&items)
    }

    fn constraints(&self, answer: &str) -> Vec<(&'static str, bool)> {
        let items = enumerated(answer);
        let scale = Self::scale(self.order);
        let places: Vec<Option<usize>> =
            items.iter().map(|item| scale.iter().position(|word| word == item)).collect();
        vec![
            ("complete", self.items.iter().all(|item| items.contains(item))),
            ("nothing else", items.len() == self.items.len()),
            ("order", !items.is_empty() && places.iter().all(Option::is_some) && places.is_sorted()),
        ]
    }
}
