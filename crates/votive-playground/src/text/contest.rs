//! Answers that compete: pairs with a clear winner, and several answers of one prompt.

use votive_tensor::random::{Draws, Stream};

use super::{Purpose, Task, draws, prompts};
use crate::Split;

/// Shares of right answers, flawed ones, and right answers to another instruction, among several of one prompt.
const SHARES: [f64; 3] = [0.3, 0.4, 0.3];
/// Most draws for each answer of a prompt: instructions such as counting have few right or flawed ones, which repeat.
const TRIES: usize = 20;

/// An instruction with two answers of which one is clearly better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearPair {
    /// The instruction.
    pub prompt: String,
    /// An answer that satisfies every constraint.
    pub better: String,
    /// One that violates at least one of them.
    pub worse: String,
    /// Whether the better one is to be shown first.
    pub is_better_first: bool,
}

impl ClearPair {
    /// Both answers in the order in which they are to be shown.
    #[must_use]
    pub fn shown(&self) -> [&String; 2] {
        if self.is_better_first { [&self.better, &self.worse] } else { [&self.worse, &self.better] }
    }
}

/// `n` pairs with a clear winner of a split's instructions, which repeat if there are fewer.
#[must_use]
pub fn clear_pairs(split: Split, seed: u64, n: usize) -> Vec<ClearPair> {
    each(split, seed, n, Purpose::ClearPair, |task, world, flaws| ClearPair {
        prompt: task.prompt(),
        better: task.answer(world, false),
        worse: task.answer(flaws, true),
        is_better_first: flaws.chance(0.5),
    })
}

/// `n` instructions of a split, each with as many different answers as were asked for: right ones, flawed ones, and some to
/// another instruction, so that there is more than one step from the best to the worst. Instructions repeat if there are fewer.
#[must_use]
pub fn contests(split: Split, seed: u64, n: usize, answers: usize) -> Vec<(String, Vec<String>)> {
    each(split, seed, n, Purpose::Contest, |task, world, flaws| {
        let mut drawn: Vec<String> = Vec::with_capacity(answers);
        for _ in 0..TRIES * answers {
            if drawn.len() == answers {
                break;
            }
            let answer = match flaws.weighted(&SHARES) {
                0 => task.answer(world, false),
                1 => task.answer(flaws, true),
                _ => Task::draw(flaws).answer(flaws, false),
            };
            if !drawn.contains(&answer) {
                drawn.push(answer);
            }
        }
        (task.prompt(), drawn)
    })
}

/// What is drawn for each of `n` instructions of a split, by its draws of the world and of flaws.
fn each<T>(
    split: Split,
    seed: u64,
    n: usize,
    purpose: Purpose,
    draw: impl Fn(&Task, &mut Draws, &mut Draws) -> T,
) -> Vec<T> {
    let tasks = prompts(split, seed, n);
    let one = |index: usize| {
        let task = tasks.get(index % tasks.len().max(1))?;
        let [mut world, mut flaws] =
            [Stream::World, Stream::Flaw].map(|stream| draws(seed, stream, purpose, index as u64));
        Some(draw(task, &mut world, &mut flaws))
    };
    (0..n).filter_map(one).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::{check, held_out};
    use super::*;

    #[test]
    fn held_out_pairs_have_a_right_answer_and_a_wrong_one() {
        let pairs = clear_pairs(Split::Test, 5, 200);
        assert_eq!((pairs.len(), &pairs), (200, &clear_pairs(Split::Test, 5, 200)));
        let mut longer = 0;
        for pair in &pairs {
            assert!(held_out(&pair.prompt));
            assert!(check(&pair.prompt, &pair.better).unwrap().exact, "{pair:?}");
            assert!(!check(&pair.prompt, &pair.worse).unwrap().exact, "{pair:?}");
            longer += usize::from(pair.better.len() > pair.worse.len());
        }
        let firsts = pairs.iter().filter(|pair| pair.is_better_first).count();
        // Neither place nor length is a good guess.
        assert!((70..130).contains(&firsts) && (50..130).contains(&longer), "{firsts} {longer}");
    }

    #[test]
    fn answers_of_a_contest_differ() {
        let contests = contests(Split::Select, 2, 60, 4);
        assert_eq!(contests.len(), 60);
        let (mut right, mut all) = (0, 0);
        for (prompt, answers) in contests {
            assert!(held_out(&prompt) && answers.len() == 4, "{prompt}: {answers:?}");
            for (i, answer) in answers.iter().enumerate() {
                assert!(!answers[..i].contains(answer));
                right += usize::from(check(&prompt, answer).unwrap().exact);
                all += 1;
            }
        }
        assert!((all / 8..all / 2).contains(&right), "{right} of {all}");
    }
}
