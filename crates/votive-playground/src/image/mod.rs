//! The image world: captions, their pictures, planted flaws and the exact checker.

mod check;
mod exercise;
mod flaw;
mod render;
mod scene;
mod see;

use votive_tensor::random::{Draws, Stream};

use crate::Split;

pub use check::{Verdict, check, see};
pub use exercise::{ClearPair, Exercise, LEAST_DIFFERENCE, clear_pairs, contests, exercise, in_words};
pub use flaw::{FlawRates, uglify, wrong};
pub use render::{Picture, SIDE};
pub use scene::{Background, Category, Colour, Content, Number, Object, Relation, Scene, Shape, Size};
pub use see::{Seen, SeenObject};

/// What a picture is drawn for; each has draws of its own.
#[derive(Clone, Copy)]
enum Purpose {
    Training = 0,
    Clean = 1,
    Pair = 2,
    Prompts = 3,
    Exercise = 4,
    ClearPair = 5,
    Contest = 6,
}

/// Whether the caption is kept out of training. Captions that say the same ("A left of B", "B right of A") share
/// their fate. Text that is not a caption is not held out.
#[must_use]
pub fn held_out(caption: &str) -> bool {
    Scene::parse(caption).is_some_and(|scene| split_of(&scene) != Split::Train)
}

/// The category of a caption, or `None` if it is not a caption of this world.
#[must_use]
pub fn category(caption: &str) -> Option<Category> {
    Scene::parse(caption).map(|scene| scene.category())
}

/// Up to `n` different captions of a split in random order, their categories mixed by the world's shares as long as
/// there are enough of each. All of them if `n` is larger than their number.
#[must_use]
pub fn prompts(split: Split, seed: u64, n: usize) -> Vec<String> {
    let mut draws = draws(seed, Stream::World, Purpose::Prompts, split as u64);
    let mut scenes: Vec<Scene> = Scene::all().filter(|scene| split_of(scene) == split).collect();
    draws.shuffle(&mut scenes);
    let mut by_category: Vec<Vec<Scene>> = Category::ALL
        .iter()
        .map(|category| scenes.iter().copied().filter(|scene| scene.category() == *category).collect())
        .collect();
    let mut captions = Vec::new();
    while captions.len() < n && by_category.iter().any(|scenes| !scenes.is_empty()) {
        if let Some(scene) = by_category[draws.weighted(&scene::CATEGORY_SHARES)].pop() {
            captions.push(scene.caption());
        }
    }
    captions
}

/// A caption and its picture with planted flaws at the default rates; `index` below 2³².
#[must_use]
pub fn training_example(seed: u64, index: u64) -> (String, Picture) {
    training_example_with(seed, index, &FlawRates::default())
}

/// A caption and its picture with planted flaws at the given rates; `index` below 2³². The rates do not change the
/// captions.
#[must_use]
pub fn training_example_with(seed: u64, index: u64, rates: &FlawRates) -> (String, Picture) {
    let mut world = draws(seed, Stream::World, Purpose::Training, index);
    let mut flaws = draws(seed, Stream::Flaw, Purpose::Training, index);
    let scene = draw_train_scene(&mut world);
    let picture = flaw::perhaps_wrong(scene, rates, &mut flaws).render(&mut world);
    let picture = if flaws.chance(rates.ugly) { uglify(&picture, &mut flaws) } else { picture };
    (scene.caption(), picture)
}

/// A caption and a true, clean picture of it; `index` below 2³².
#[must_use]
pub fn clean_example(seed: u64, index: u64) -> (String, Picture) {
    let mut world = draws(seed, Stream::World, Purpose::Clean, index);
    let scene = draw_train_scene(&mut world);
    (scene.caption(), scene.render(&mut world))
}

/// A caption, a true and clean picture of it, and one that is either wrong in one attribute or ugly, equally often;
/// `index` below 2³².
#[must_use]
pub fn preference_pair(seed: u64, index: u64) -> (String, Picture, Picture) {
    let mut world = draws(seed, Stream::World, Purpose::Pair, index);
    let mut flaws = draws(seed, Stream::Flaw, Purpose::Pair, index);
    let scene = draw_train_scene(&mut world);
    let chosen = scene.render(&mut world);
    let rejected = if flaws.chance(0.5) {
        let rates = FlawRates { other_wrong: 1.0, ..FlawRates::default() };
        flaw::perhaps_wrong(scene, &rates, &mut flaws).render(&mut world)
    } else {
        uglify(&scene.render(&mut world), &mut flaws)
    };
    (scene.caption(), chosen, rejected)
}

fn draws(seed: u64, stream: Stream, purpose: Purpose, index: u64) -> Draws {
    Draws::new(seed, stream, purpose as u64, index)
}

fn draw_train_scene(draws: &mut Draws) -> Scene {
    loop {
        let scene = Scene::draw(draws);
        if split_of(&scene) == Split::Train {
            return scene;
        }
    }
}

/// Singles and counts have few captions, so a third of them is held out, against a tenth of the relations.
fn split_of(scene: &Scene) -> Split {
    let share = if scene.category() == Category::Relation { 0.1 } else { 1.0 / 3.0 };
    Split::of(&scene.key(), share)
}
