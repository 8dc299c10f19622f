//! "Name three fruits in alphabetical order. Include plum."

use votive_tensor::random::Draws;

use super::pattern::{fill, known, slots};
use super::task::Instruction;
use super::vocabulary::{CATEGORIES, NUMBERS, another, number, one_of, sample};

const VERBS: &[&str] = &["Name", "List", "Pick", "Suggest"];
const PLAIN: &str = "{} {} {}.";
const SORTED: &str = "{} {} {} in alphabetical order.";
const INCLUDE: &str = "{} {} {}. Include {}.";
const SORTED_INCLUDE: &str = "{} {} {} in alphabetical order. Include {}.";

/// Name `count` members of a category.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    verb: &'static str,
    count: usize,
    category: usize,
    sorted: bool,
    include: Option<&'static str>,
}

impl List {
    fn members(&self) -> &'static [&'static str] {
        CATEGORIES[self.category].1
    }

    fn new(verb: &str, count: &str, category: &str, sorted: bool, include: Option<&str>) -> Option<Self> {
        let category = CATEGORIES.iter().position(|(name, _)| *name == category)?;
        let include = match include {
            Some(word) => Some(known(CATEGORIES[category].1, word)?),
            None => None,
        };
        let count = number(count).filter(|count| (2..=5).contains(count))?;
        Some(Self { verb: known(VERBS, verb)?, count, category, sorted, include })
    }

    /// `count` members, among them the one that must be included.
    fn items(&self, count: usize, draws: &mut Draws) -> Vec<&'static str> {
        let mut items = sample(self.members(), count, draws);
        if let Some(word) = self.include.filter(|word| !items.contains(word)) {
            let place = draws.below(items.len());
            items[place] = word;
        }
        if self.sorted {
            items.sort_unstable();
        }
        items
    }

    fn with_another_count(&self, draws: &mut Draws) -> Vec<&'static str> {
        let count = if draws.chance(0.5) { self.count + 1 } else { self.count - 1 };
        self.items(count, draws)
    }

    fn without_the_included(&self, word: &str, draws: &mut Draws) -> Vec<&'static str> {
        let others: Vec<&'static str> = self.members().iter().copied().filter(|item| *item != word).collect();
        let mut items = sample(&others, self.count, draws);
        if self.sorted {
            items.sort_unstable();
        }
        items
    }

    fn with_a_stranger(&self, draws: &mut Draws) -> Vec<&'static str> {
        let mut items = self.items(self.count, draws);
        let names: Vec<&'static str> = CATEGORIES.iter().map(|(name, _)| *name).collect();
        let other = another(&names, CATEGORIES[self.category].0, draws);
        let strangers =
            CATEGORIES.iter().find(|(name, _)| *name == other).map_or(self.members(), |entry| entry.1);
        let place = draws.below(items.len());
        items[place] = one_of(strangers, draws);
        items
    }
}

impl Instruction for List {
    fn draw(draws: &mut Draws) -> Self {
        let category = draws.below(CATEGORIES.len());
        Self {
            verb: one_of(VERBS, draws),
            count: 2 + draws.below(4),
            category,
            sorted: draws.chance(0.5),
            include: if draws.chance(0.7) { Some(one_of(CATEGORIES[category].1, draws)) } else { None },
        }
    }

    fn prompt(&self) -> String {
        let (count, category) = (NUMBERS[self.count], CATEGORIES[self.category].0);
        match (self.sorted, self.include) {
            (false, None) => fill(PLAIN, &[self.verb, count, category]),
            (true, None) => fill(SORTED, &[self.verb, count, category]),
            (false, Some(word)) => fill(INCLUDE, &[self.verb, count, category, word]),
            (true, Some(word)) => fill(SORTED_INCLUDE, &[self.verb, count, category, word]),
        }
    }

    fn parse(prompt: &str) -> Option<Self> {
        if let Some([verb, count, category, word]) = slots(SORTED_INCLUDE, prompt) {
            return Self::new(verb, count, category, true, Some(word));
        }
        if let Some([verb, count, category, word]) = slots(INCLUDE, prompt) {
            return Self::new(verb, count, category, false, Some(word));
        }
        if let Some([verb, count, category]) = slots(SORTED, prompt) {
            return Self::new(verb, count, category, true, None);
        }
        let [verb, count, category] = slots(PLAIN, prompt)?;
        Self::new(verb, count, category, false, None)
    }

    fn right_answer(&self, draws: &mut Draws) -> String {
        enumeration(&self.items(self.count, draws))
    }

    fn flawed_answer(&self, draws: &mut Draws) -> String {
        let unsorted = if self.sorted { 4.0 } else { 0.0 };
        let items = match (draws.weighted(&[6.0, unsorted, 3.0, 1.0]), self.include) {
            (1, _) => {
                let mut items = self.items(self.count, draws);
                items.reverse();
                items
            }
            (2, Some(word)) => self.without_the_included(word, draws),
            (3, _) => self.with_a_stranger(draws),
            _ => self.with_another_count(draws),
        };
        enumeration(&items)
    }

    fn constraints(&self, answer: &str) -> Vec<(&'static str, bool)> {
        let items = enumerated(answer);
        let distinct = items.iter().enumerate().all(|(index, item)| !items[..index].contains(item));
        let mut constraints = vec![
            ("number", items.len() == self.count),
            ("category", !items.is_empty() && items.iter().all(|item| self.members().contains(item))),
            ("distinct", distinct),
        ];
        if self.sorted {
            constraints.push(("order", items.is_sorted()));
        }
        if let Some(word) = self.include {
            constraints.push(("include", items.contains(&word)));
        }
        constraints
    }
}

/// "fox, owl, goat."
pub(super) fn enumeration(items: &[&str]) -> String {
    format!("{}.", items.join(", "))
}

/// The items of an enumeration; none if it does not end with a full stop.
pub(super) fn enumerated(answer: &str) -> Vec<&str> {
    answer.trim().strip_suffix('.').map(|items| items.split(", ").collect()).unwrap_or_default()
}
