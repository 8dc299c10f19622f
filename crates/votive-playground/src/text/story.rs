//! "Write a two-sentence story about an owl. Use the word lamp. Sound gloomy."

use votive_tensor::random::Draws;

use super::lexicon::all_known;
use super::pattern::{capitalized, fill, known, only, slots, with_article, without_article, words};
use super::task::Instruction;
use super::vocabulary::{
    ANIMALS, NUMBERS, PLACES, PLAIN, THINGS, TONES, another, has_tone, number, one_of, tone_word,
};

const VERBS: &[&str] = &["Write", "Tell", "Invent"];
const START: &str = "{} a {}-sentence story about {}.";
const WORD: &str = " Use the word {}.";
const TONE: &str = " Sound {}.";

/// First sentences: who and where.
const OPENINGS: &[&str] =
    &["Once {} lived at the {}.", "There was {} at the {}.", "One day {} came to the {}."];
/// The only sentence of a story that is too short: who, what and where.
const WHOLE: &[&str] = &["Once {} found {} at the {}.", "One day {} lost {} at the {}."];
/// Sentences about a thing.
const DEEDS: &[&str] =
    &["It found {} there.", "It carried {} home.", "It dreamed of {}.", "It painted {} again."];
/// Sentences that fit anywhere after the first.
const FILLERS: &[&str] = &[
    "Then it walked home.",
    "It waited for the rain.",
    "It slept until noon.",
    "It never came back.",
    "In the end it rested.",
    "Nobody saw it.",
];

/// Everything that answers are made of, besides the word lists.
pub(super) const TEXTS: &[&[&str]] = &[OPENINGS, WHOLE, DEEDS, FILLERS, &["a", "an"]];

/// Tell a story of two or three sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Story {
    verb: &'static str,
    sentences: usize,
    animal: &'static str,
    word: Option<&'static str>,
    tone: Option<&'static str>,
}

impl Story {
    /// A story with the given traits; without a tone it has none.
    fn tell(
        sentences: usize,
        animal: &str,
        thing: Option<&str>,
        tone: Option<&str>,
        draws: &mut Draws,
    ) -> String {
        let adjective = match tone {
            Some(tone) => tone_word(tone, draws),
            None => one_of(PLAIN, draws),
        };
        let hero = with_article(&format!("{adjective} {animal}"));
        let place = one_of(PLACES, draws);
        if let (1, Some(thing)) = (sentences, thing) {
            return fill(one_of(WHOLE, draws), &[&hero, &with_article(thing), place]);
        }
        let mut story = vec![capitalized(&fill(one_of(OPENINGS, draws), &[&hero, place]))];
        let mut fillers = FILLERS.to_vec();
        draws.shuffle(&mut fillers);
        story.extend(fillers.into_iter().take(sentences - 1).map(str::to_owned));
        if let Some(thing) = thing {
            let place = 1 + draws.below(sentences - 1);
            story[place] = fill(one_of(DEEDS, draws), &[&with_article(thing)]);
        }
        story.join(" ")
    }

    fn wrong_tone(asked: &str, draws: &mut Draws) -> &'static str {
        if asked != "cheerful" && draws.chance(0.8) { "cheerful" } else { another(TONES, asked, draws) }
    }
}

impl Instruction for Story {
    fn draw(draws: &mut Draws) -> Self {
        let (with_word, with_tone) =
            [(true, true), (true, false), (false, true)][draws.weighted(&[5.0, 3.0, 1.0])];
        Self {
            verb: one_of(VERBS, draws),
            sentences: 2 + draws.below(2),
            animal: one_of(ANIMALS, draws),
            word: if with_word { Some(one_of(THINGS, draws)) } else { None },
            tone: if with_tone { Some(one_of(TONES, draws)) } else { None },
        }
    }

    fn prompt(&self) -> String {
        let mut prompt = fill(START, &[self.verb, NUMBERS[self.sentences], &with_article(self.animal)]);
        if let Some(word) = self.word {
            prompt += &fill(WORD, &[word]);
        }
        if let Some(tone) = self.tone {
            prompt += &fill(TONE, &[tone]);
        }
        prompt
    }

    fn parse(prompt: &str) -> Option<Self> {
        let mut clauses = prompt.split_inclusive('.');
        let [verb, sentences, animal] = slots(START, clauses.next()?)?;
        let (mut word, mut tone) = (None, None);
        for clause in clauses {
            if let Some([name]) = slots(WORD, clause) {
                word = Some(known(THINGS, name)?);
            } else {
                let [name] = slots(TONE, clause)?;
                tone = Some(known(TONES, name)?);
            }
        }
        Some(Self {
            verb: known(VERBS, verb)?,
            sentences: number(sentences).filter(|count| (2..=3).contains(count))?,
            animal: known(ANIMALS, without_article(animal)?)?,
            word,
            tone,
        })
    }

    fn right_answer(&self, draws: &mut Draws) -> String {
        Self::tell(self.sentences, self.animal, self.word, self.tone, draws)
    }

    fn flawed_answer(&self, draws: &mut Draws) -> String {
        let weight = |applies: bool, weight: f64| if applies { weight } else { 0.0 };
        let kinds = [3.0, weight(self.tone.is_some(), 5.0), weight(self.word.is_some(), 3.0), 0.5];
        let (mut sentences, mut animal, mut word, mut tone) =
            (self.sentences, self.animal, self.word, self.tone);
        match draws.weighted(&kinds) {
            0 if draws.chance(0.5) => sentences += 1,
            0 => sentences -= 1,
            1 => tone = tone.map(|asked| Self::wrong_tone(asked, draws)),
            2 => word = word.map(|asked| another(THINGS, asked, draws)),
            _ => animal = another(ANIMALS, animal, draws),
        }
        Self::tell(sentences, animal, word, tone, draws)
    }

    fn constraints(&self, answer: &str) -> Vec<(&'static str, bool)> {
        let spoken = words(answer);
        let ended = answer.trim().ends_with('.');
        let mut constraints = vec![
            ("sentences", ended && answer.matches('.').count() == self.sentences),
            ("known words", all_known(&spoken)),
            ("subject", only(ANIMALS, self.animal, &spoken)),
        ];
        if let Some(word) = self.word {
            constraints.push(("word", spoken.iter().any(|spoken| spoken == word)));
        }
        if let Some(tone) = self.tone {
            constraints.push(("tone", has_tone(tone, &spoken)));
        }
        constraints
    }
}
