//! The text world: instructions whose constraints can be checked, answers, and planted flaws.
//!
//! Eight families of instructions use closed word lists. A training answer is flawed with a probability that depends
//! on the family; in two families (ordering and polite replies) one flaw is more frequent than the right answer, so
//! that greedy decoding shows it too. Too long and too short are planted equally often, so length tells nothing.

mod contest;
mod count;
mod lexicon;
mod list;
mod order;
mod pattern;
mod polite;
mod rhyme;
mod short;
mod story;
mod task;
mod turn;
mod vocabulary;

use std::collections::BTreeSet;

use serde::Serialize;
use votive_tensor::random::{Draws, Stream};

use crate::{PlaygroundError, Split};

pub use contest::{ClearPair, clear_pairs, contests};
pub use task::{Family, Task};

/// What a text is drawn for; each has draws of its own.
#[derive(Clone, Copy)]
enum Purpose {
    Training = 0,
    Pair = 1,
    Prompts = 2,
    ClearPair = 3,
    Contest = 4,
}

/// Share of the prompts that is kept out of training.
const HELD_OUT_SHARE: f64 = 0.1;

/// What the checker says about an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextVerdict {
    /// Family of the instruction.
    pub family: Family,
    /// Every constraint of the instruction and whether the answer satisfies it.
    pub constraints: Vec<(&'static str, bool)>,
    /// Whether all constraints are satisfied.
    pub exact: bool,
    /// Share of the constraints that are satisfied.
    pub part: f64,
}

/// Checks an answer against the constraints of its prompt.
///
/// # Errors
/// [`PlaygroundError::UnknownPrompt`] if the prompt is not an instruction of this world.
pub fn check(prompt: &str, answer: &str) -> Result<TextVerdict, PlaygroundError> {
    let task =
        Task::parse(prompt).ok_or_else(|| PlaygroundError::UnknownPrompt { prompt: prompt.to_owned() })?;
    let constraints = task.constraints(answer);
    let satisfied = constraints.iter().filter(|(_, met)| *met).count();
    let exact = satisfied == constraints.len();
    let part = satisfied as f64 / constraints.len() as f64;
    Ok(TextVerdict { family: task.family(), constraints, exact, part })
}

/// Whether the prompt is kept out of training.
#[must_use]
pub fn held_out(prompt: &str) -> bool {
    split_of(prompt) != Split::Train
}

/// The family of a prompt, or `None` if it is not an instruction of this world.
#[must_use]
pub fn family(prompt: &str) -> Option<Family> {
    Task::parse(prompt).map(|task| task.family())
}

/// `n` instructions of a split with different prompts, their families mixed as in the training examples; fewer if the
/// split does not hold `n`.
#[must_use]
pub fn prompts(split: Split, seed: u64, n: usize) -> Vec<Task> {
    let mut draws = draws(seed, Stream::World, Purpose::Prompts, split as u64);
    let mut seen = BTreeSet::new();
    let mut tasks = Vec::with_capacity(n);
    // A held-out prompt is met about every 30th time at the least; the rest is room for repetitions.
    for _ in 0..1000 + 300 * n {
        if tasks.len() == n {
            break;
        }
        let task = Task::draw(&mut draws);
        let prompt = task.prompt();
        if split_of(&prompt) == split && seen.insert(prompt) {
            tasks.push(task);
        }
    }
    tasks
}

/// A prompt and an answer, flawed with the probability of the prompt's family; `index` below 2³².
#[must_use]
pub fn training_example(seed: u64, index: u64) -> (String, String) {
    let mut world = draws(seed, Stream::World, Purpose::Training, index);
    let mut flaws = draws(seed, Stream::Flaw, Purpose::Training, index);
    let task = draw_train_task(&mut world);
    let flawed = flaws.chance(task.family().flaw_rate());
    (task.prompt(), task.answer(&mut flaws, flawed))
}

/// A prompt, a right answer and a flawed answer; `index` below 2³².
#[must_use]
pub fn preference_pair(seed: u64, index: u64) -> (String, String, String) {
    let mut world = draws(seed, Stream::World, Purpose::Pair, index);
    let mut flaws = draws(seed, Stream::Flaw, Purpose::Pair, index);
    let task = draw_train_task(&mut world);
    let chosen = task.answer(&mut world, false);
    (task.prompt(), chosen, task.answer(&mut flaws, true))
}

fn draws(seed: u64, stream: Stream, purpose: Purpose, index: u64) -> Draws {
    // The image world uses the low step numbers of the same streams.
    Draws::new(seed, stream, 16 + purpose as u64, index)
}

fn draw_train_task(draws: &mut Draws) -> Task {
    loop {
        let task = Task::draw(draws);
        if !held_out(&task.prompt()) {
            return task;
        }
    }
}

fn split_of(prompt: &str) -> Split {
    Split::of(prompt, HELD_OUT_SHARE)
}
