//! Exercises for a critic of pictures: what it is shown, and what it should say.
//!
//! Pictures are drawn as their caption says, or with one or two wrong attributes, and some are made ugly. What is right about
//! one is the exact checker's verdict on the picture itself, and not what was planted.

use votive_tensor::random::{Draws, Stream};

use super::check::{Verdict, check};
use super::flaw::{self, FlawRates};
use super::render::Picture;
use super::scene::Scene;
use super::{Purpose, draw_train_scene, draws, prompts};
use crate::Split;

/// Differences in utility below this are ties: a shade of blur between two right pictures says nothing.
pub const LEAST_DIFFERENCE: f64 = 0.05;
/// Ugliness from which a picture is called a little ugly, ugly and very ugly.
const UGLY: [(f64, &str); 3] = [(0.1, "a little ugly"), (0.35, "ugly"), (0.55, "very ugly")];

/// Something for a critic to answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Exercise {
    /// What is shown?
    Describe {
        /// A true and clean picture.
        picture: Picture,
        /// Its caption.
        answer: String,
    },
    /// Does the picture fit its caption?
    Grade {
        /// The caption.
        caption: String,
        /// The picture.
        picture: Picture,
        /// What is shown, and at once what was asked for where that is something else; then "Fits: Yes." or "Fits: No, " and what is
        /// wrong.
        answer: String,
    },
    /// Which of two pictures fits better?
    Pair {
        /// The caption.
        caption: String,
        /// A and B.
        pictures: [Picture; 2],
        /// The same of either; then "Better: A." or "Better: B."
        answer: String,
    },
}

/// A caption with two pictures of which one is clearly better.
#[derive(Clone, Debug, PartialEq)]
pub struct ClearPair {
    /// The caption.
    pub caption: String,
    /// The better picture.
    pub better: Picture,
    /// The other one.
    pub worse: Picture,
    /// Whether the better one is to be shown first.
    pub is_better_first: bool,
}

impl ClearPair {
    /// Both pictures in the order in which they are to be shown.
    #[must_use]
    pub fn shown(&self) -> [&Picture; 2] {
        if self.is_better_first { [&self.better, &self.worse] } else { [&self.worse, &self.better] }
    }
}

/// A picture and the scene that was drawn, which may be another than its caption's.
struct Variant {
    scene: Scene,
    picture: Picture,
}

/// An exercise of the training captions; `index` below 2³².
#[must_use]
pub fn exercise(seed: u64, index: u64) -> Exercise {
    let mut world = draws(seed, Stream::World, Purpose::Exercise, index);
    let mut flaws = draws(seed, Stream::Flaw, Purpose::Exercise, index);
    let scene = draw_train_scene(&mut world);
    match flaws.weighted(&[0.25, 0.3, 0.45]) {
        0 => Exercise::Describe { picture: scene.render(&mut world), answer: scene.caption() },
        1 => {
            let shown = variant(scene, &mut world, &mut flaws);
            let seen = beside(&shown.scene.caption(), &scene.caption());
            let answer = match flaws_of(scene, &shown).as_str() {
                "right" => format!("{seen}. Fits: Yes."),
                wrong => format!("{seen}. Fits: No, {wrong}."),
            };
            Exercise::Grade { caption: scene.caption(), picture: shown.picture, answer }
        }
        _ => {
            let (better, worse, is_better_first) = two_variants(scene, &mut world, &mut flaws);
            let (letter, a, b) = if is_better_first { ("A", better, worse) } else { ("B", worse, better) };
            let told = |name: &str, shown: &Variant| {
                let seen = beside(&shown.scene.caption(), &scene.caption());
                format!("{name}: {seen}: {}. ", flaws_of(scene, shown))
            };
            let answer = format!("{}{}Better: {letter}.", told("A", &a), told("B", &b));
            Exercise::Pair { caption: scene.caption(), pictures: [a.picture, b.picture], answer }
        }
    }
}

/// `n` pairs with a clear winner of a split's captions, which repeat if there are fewer.
#[must_use]
pub fn clear_pairs(split: Split, seed: u64, n: usize) -> Vec<ClearPair> {
    let captions = prompts(split, seed, n);
    let pair = |index: usize| {
        let scene = Scene::parse(captions.get(index % captions.len().max(1))?)?;
        let mut world = draws(seed, Stream::World, Purpose::ClearPair, index as u64);
        let mut flaws = draws(seed, Stream::Flaw, Purpose::ClearPair, index as u64);
        let (better, worse, is_better_first) = two_variants(scene, &mut world, &mut flaws);
        let caption = scene.caption();
        Some(ClearPair { caption, better: better.picture, worse: worse.picture, is_better_first })
    };
    (0..n).filter_map(pair).collect()
}

/// `n` captions of a split, which repeat if there are fewer, each with several pictures: right ones, wrong ones and ugly ones.
#[must_use]
pub fn contests(split: Split, seed: u64, n: usize, pictures: usize) -> Vec<(String, Vec<Picture>)> {
    let captions = prompts(split, seed, n);
    let contest = |index: usize| {
        let scene = Scene::parse(captions.get(index % captions.len().max(1))?)?;
        let mut world = draws(seed, Stream::World, Purpose::Contest, index as u64);
        let mut flaws = draws(seed, Stream::Flaw, Purpose::Contest, index as u64);
        let drawn = (0..pictures).map(|_| variant(scene, &mut world, &mut flaws).picture);
        Some((scene.caption(), drawn.collect()))
    };
    (0..n).filter_map(contest).collect()
}

/// Two variants of which the first is clearly better, and whether it is to be shown first.
fn two_variants(scene: Scene, world: &mut Draws, flaws: &mut Draws) -> (Variant, Variant, bool) {
    let caption = scene.caption();
    loop {
        let [one, other] = [(); 2].map(|()| variant(scene, world, flaws));
        let utility =
            |shown: &Variant| check(&caption, &shown.picture).map_or(0.0, |verdict| verdict.utility);
        let difference = utility(&one) - utility(&other);
        if difference.abs() >= LEAST_DIFFERENCE {
            let (better, worse) = if difference > 0.0 { (one, other) } else { (other, one) };
            return (better, worse, flaws.chance(0.5));
        }
    }
}

/// A picture of a scene: right, or wrong in one or two attributes, or as wrong as the base model's training data; some ugly.
fn variant(scene: Scene, world: &mut Draws, flaws: &mut Draws) -> Variant {
    let shown = match flaws.weighted(&[0.4, 0.3, 0.15, 0.15]) {
        0 => scene,
        1 => flaw::wrong(scene, flaws),
        2 => flaw::perhaps_wrong(scene, &FlawRates::default(), flaws),
        _ => flaw::wrong(flaw::wrong(scene, flaws), flaws),
    };
    let picture = shown.render(world);
    let picture = if flaws.chance(0.25) { flaw::uglify(&picture, flaws) } else { picture };
    Variant { scene: shown, picture }
}

/// What is seen, with what was asked for beside each word that differs: "a large blue, not red, circle on a gray background". A small
/// critic that compares two sentences afterwards does not learn it (docs/log.md); word by word it does.
fn beside(seen: &str, asked: &str) -> String {
    // "left of" is one word like "above".
    let [seen, asked] = [seen, asked].map(|caption| caption.replace(" of ", "-of "));
    let (seen, asked): (Vec<&str>, Vec<&str>) = (seen.split(' ').collect(), asked.split(' ').collect());
    let is_article = |word: &str| matches!(word, "a" | "an");
    let word = |(seen, asked): (&&str, &&str)| match seen == asked || is_article(seen) {
        true => (*seen).to_owned(),
        false => format!("{seen}, not {asked},"),
    };
    seen.iter().zip(&asked).map(word).collect::<Vec<_>>().join(" ").replace("-of", " of")
}

/// What is wrong with a picture of a scene, in words: "wrong colour, wrong place, ugly", or "right".
fn flaws_of(scene: Scene, shown: &Variant) -> String {
    check(&scene.caption(), &shown.picture).map_or(String::new(), |verdict| in_words(&verdict))
}

/// What a verdict finds wrong.
#[must_use]
pub fn in_words(verdict: &Verdict) -> String {
    let parts = [
        (verdict.object, "wrong shape"),
        (verdict.colour, "wrong colour"),
        (verdict.count, "wrong number"),
        (verdict.relation.unwrap_or(true), "wrong place"),
        (verdict.size.unwrap_or(true), "wrong size"),
        (verdict.background, "wrong background"),
    ];
    let ugly = UGLY.into_iter().rev().find(|(least, _)| verdict.ugliness >= *least).map(|(_, name)| name);
    let wrong: Vec<&str> =
        parts.into_iter().filter(|(is_right, _)| !is_right).map(|(_, name)| name).chain(ugly).collect();
    if wrong.is_empty() { "right".to_owned() } else { wrong.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_what_the_checker_sees() {
        let (mut kinds, mut firsts, mut right) = ([0; 3], 0, 0);
        for index in 0..600 {
            match exercise(3, index) {
                Exercise::Describe { picture, answer } => {
                    kinds[0] += 1;
                    assert!(check(&answer, &picture).is_ok_and(|verdict| verdict.exact), "{answer}");
                }
                Exercise::Grade { caption, picture, answer } => {
                    kinds[1] += 1;
                    let is_right = check(&caption, &picture).is_ok_and(|v| v.exact && v.ugliness < UGLY[0].0);
                    right += usize::from(is_right);
                    assert_eq!(answer.ends_with("Fits: Yes."), is_right, "{caption}: {answer}");
                }
                Exercise::Pair { caption, pictures, answer } => {
                    kinds[2] += 1;
                    let utility = |picture| check(&caption, picture).map_or(0.0, |verdict| verdict.utility);
                    let is_first = utility(&pictures[0]) > utility(&pictures[1]);
                    firsts += usize::from(is_first);
                    assert!(answer.ends_with(if is_first { "Better: A." } else { "Better: B." }), "{answer}");
                }
            }
        }
        assert!(kinds.iter().all(|n| *n > 100), "{kinds:?}");
        // Neither letter, nor yes or no, is a good guess.
        let near_half = |n: usize, of: usize| (0.25..0.75).contains(&(n as f64 / of as f64));
        assert!(near_half(firsts, kinds[2]) && near_half(right, kinds[1]), "{firsts} {right} {kinds:?}");
    }

    #[test]
    fn what_was_asked_for_stands_beside_what_is_seen() {
        let seen = "an orange circle above a red square on a gray background";
        let asked = "a red circle above a red square on a white background";
        let expected = "an orange, not red, circle above a red square on a gray, not white, background";
        assert_eq!(beside(seen, asked), expected);
        let beneath = "a red circle left of a red square on a white background";
        let expected = "a red circle left of, not above, a red square on a white background";
        assert_eq!(beside(beneath, asked), expected);
        assert_eq!(beside(seen, seen), seen);
    }

    #[test]
    fn held_out_pairs_have_held_out_captions_and_a_winner() {
        let pairs = clear_pairs(Split::Test, 5, 60);
        assert_eq!(pairs.len(), 60);
        for ClearPair { caption, better, worse, .. } in pairs {
            assert!(super::super::held_out(&caption));
            let utility = |picture| check(&caption, picture).map_or(0.0, |verdict| verdict.utility);
            assert!(utility(&better) >= utility(&worse) + LEAST_DIFFERENCE);
        }
    }

    #[test]
    fn pictures_of_a_contest_are_good_and_bad() {
        let contests = contests(Split::Select, 1, 40, 4);
        assert_eq!(contests.len(), 40);
        let exact =
            |caption: &str, picture: &Picture| check(caption, picture).is_ok_and(|verdict| verdict.exact);
        let all =
            || contests.iter().flat_map(|(caption, pictures)| pictures.iter().map(move |p| (caption, p)));
        let right = all().filter(|(caption, picture)| exact(caption, picture)).count();
        assert_eq!(all().count(), 160);
        assert!(contests.iter().all(|(caption, _)| super::super::held_out(caption)));
        assert!((50..130).contains(&right), "{right}");
    }
}
