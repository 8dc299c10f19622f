//! "Write two rhyming lines about a fox at the lake. Sound calm."

use votive_tensor::random::Draws;

use super::lexicon::all_known;
use super::pattern::{fill, known, only, slots, with_article, without_article, words};
use super::task::Instruction;
use super::vocabulary::{ANIMALS, PLACES, RHYMES, THINGS, TONES, another, has_tone, one_of, tone_word};

const VERBS: &[&str] = &["Write", "Compose", "Make"];
const PATTERN: &str = "{} two rhyming lines about {} at the {}. Sound {}.";

/// First lines: adjective, topic, place, last word.
const FIRST: &[&str] = &[
    "The {} {} at the {} was near the {}",
    "We saw the {} {} at the {} and the {}",
    "The {} {} left the {} to find the {}",
];
/// Second lines: last word.
const SECOND: &[&str] = &[
    "and all of us went back to see the {}",
    "and no one ever spoke about the {}",
    "and far away we heard about the {}",
];
/// Lines that are one too many: last word.
const THIRD: &[&str] = &["and then we all went home without the {}", "and in the end we never saw the {}"];
/// Everything that answers are made of, besides the word lists.
pub(super) const TEXTS: &[&[&str]] = &[FIRST, SECOND, THIRD];
const BREAK: &str = " / ";

/// Write two lines that rhyme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rhyme {
    verb: &'static str,
    noun: &'static str,
    place: &'static str,
    tone: &'static str,
}

impl Rhyme {
    /// Nouns of the topic's kind.
    fn nouns(&self) -> &'static [&'static str] {
        if ANIMALS.contains(&self.noun) { ANIMALS } else { THINGS }
    }

    /// Lines that end with the given words.
    fn lines(&self, noun: &str, tone: &str, endings: &[&str], draws: &mut Draws) -> String {
        let first = |end: &str, draws: &mut Draws| {
            fill(one_of(FIRST, draws), &[tone_word(tone, draws), noun, self.place, end])
        };
        let lines: Vec<String> = endings
            .iter()
            .enumerate()
            .map(|(index, end)| match index {
                0 => first(end, draws),
                1 => fill(one_of(SECOND, draws), &[end]),
                _ => fill(one_of(THIRD, draws), &[end]),
            })
            .collect();
        format!("{}.", lines.join(BREAK))
    }

    /// Three different words of one sound.
    fn endings(draws: &mut Draws) -> Vec<&'static str> {
        let mut endings = draws.pick(RHYMES).to_vec();
        draws.shuffle(&mut endings);
        endings.truncate(3);
        endings
    }
}

impl Instruction for Rhyme {
    fn draw(draws: &mut Draws) -> Self {
        let nouns = if draws.chance(0.5) { ANIMALS } else { THINGS };
        Self {
            verb: one_of(VERBS, draws),
            noun: one_of(nouns, draws),
            place: one_of(PLACES, draws),
            tone: one_of(TONES, draws),
        }
    }

    fn prompt(&self) -> String {
        fill(PATTERN, &[self.verb, &with_article(self.noun), self.place, self.tone])
    }

    fn parse(prompt: &str) -> Option<Self> {
        let [verb, noun, place, tone] = slots(PATTERN, prompt)?;
        let noun = without_article(noun)?;
        Some(Self {
            verb: known(VERBS, verb)?,
            noun: known(ANIMALS, noun).or_else(|| known(THINGS, noun))?,
            place: known(PLACES, place)?,
            tone: known(TONES, tone)?,
        })
    }

    fn right_answer(&self, draws: &mut Draws) -> String {
        let endings = Self::endings(draws);
        self.lines(self.noun, self.tone, &endings[..2], draws)
    }

    fn flawed_answer(&self, draws: &mut Draws) -> String {
        let mut endings = Self::endings(draws);
        let (mut noun, mut tone, mut count) = (self.noun, self.tone, 2);
        match draws.weighted(&[6.0, 2.0, 3.0, 0.5]) {
            0 => {
                let strangers: Vec<&'static str> = RHYMES
                    .iter()
                    .filter(|class| !class.contains(&endings[0]))
                    .flat_map(|class| class.iter().copied())
                    .collect();
                endings[1] = one_of(&strangers, draws);
            }
            1 => count = if draws.chance(0.5) { 1 } else { 3 },
            2 => tone = another(TONES, tone, draws),
            _ => noun = another(self.nouns(), noun, draws),
        }
        self.lines(noun, tone, &endings[..count], draws)
    }

    fn constraints(&self, answer: &str) -> Vec<(&'static str, bool)> {
        let spoken = words(answer);
        let endings: Vec<String> =
            answer.split(BREAK).map(|line| words(line).pop().unwrap_or_default()).collect();
        let rhymes = |class: &&[&str]| endings.iter().all(|end| class.contains(&end.as_str()));
        let different = endings.iter().enumerate().all(|(index, end)| !endings[..index].contains(end));
        vec![
            ("lines", endings.len() == 2 && answer.trim().ends_with('.')),
            ("known words", all_known(&spoken)),
            ("rhyme", endings.len() > 1 && different && RHYMES.iter().any(rhymes)),
            ("topic", only(self.nouns(), self.noun, &spoken)),
            ("place", only(PLACES, self.place, &spoken)),
            ("tone", has_tone(self.tone, &spoken)),
        ]
    }
}
