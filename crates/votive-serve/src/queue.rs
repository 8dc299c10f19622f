//! What a person is shown, in which order and on which side: functions of a seed, the person's name and the item, so there is
//! nothing to save, and whoever comes back goes on where they were.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use votive_critic::{Abstention, Finding, StoredJudgment};

/// How many other comparisons lie at least between two looks at a pair, where there are as many.
const GAP: u64 = 10;

/// A look at a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Look {
    /// The pair's number in the store.
    pub(crate) item: i64,
    /// 0 for the first look, 1 for the second.
    pub(crate) draw: u64,
}

/// The order of looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    pub(crate) seed: u64,
    /// Share of the pairs that are shown a second time.
    pub(crate) repeats: f64,
}

/// What is drawn.
#[derive(Clone, Copy)]
enum Stream {
    Order,
    Side,
    Repeat,
    Distance,
}

impl Queue {
    /// 64 random bits, keyed by all that they are for.
    fn draw(&self, stream: Stream, rater: &str, item: i64) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        hash.update([stream as u8]);
        hash.update(item.to_le_bytes());
        hash.update(rater);
        hash.finalize().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }

    /// Whether the candidates are shown in reverse order. The second look is the first one mirrored, so that somebody who
    /// prefers a side does not agree with themselves.
    pub(crate) fn is_reversed(&self, rater: &str, look: Look) -> bool {
        let first = self.draw(Stream::Side, rater, look.item) & 1 == 1;
        first ^ (look.draw == 1)
    }

    /// All looks of a person in their order.
    fn looks(&self, rater: &str, pairs: &[i64]) -> Vec<Look> {
        let mut order = pairs.to_vec();
        order.sort_by_key(|item| (self.draw(Stream::Order, rater, *item), *item));
        let mut looks: Vec<(u64, Look)> = Vec::with_capacity(order.len());
        for (place, item) in (0..).zip(order) {
            looks.push((place, Look { item, draw: 0 }));
            let share = self.draw(Stream::Repeat, rater, item) as f64 / u64::MAX as f64;
            if share < self.repeats {
                let distance = GAP + self.draw(Stream::Distance, rater, item) % GAP;
                looks.push((place + distance, Look { item, draw: 1 }));
            }
        }
        looks.sort_by_key(|(place, look)| (*place, look.draw, look.item));
        looks.into_iter().map(|(_, look)| look).collect()
    }

    /// How far a person has come with all that they have judged.
    pub(crate) fn progress(&self, rater: &str, pairs: &[i64], judged: &[StoredJudgment]) -> Progress {
        let done: HashMap<Look, bool> = judged
            .iter()
            .map(|one| (Look { item: one.item, draw: one.draw }, is_skipped(&one.judgment.finding)))
            .collect();
        let mut progress = Progress { next: None, done: 0, total: 0, skipped: 0, last: None };
        for look in self.looks(rater, pairs) {
            // Nobody can agree with what they have not said.
            if look.draw == 1 && done.get(&Look { draw: 0, ..look }) == Some(&true) {
                continue;
            }
            progress.total += 1;
            match done.get(&look) {
                None => progress.next = progress.next.or(Some(look)),
                Some(is_skipped) => {
                    progress.done += 1;
                    progress.skipped += u64::from(*is_skipped);
                }
            }
        }
        progress.last = judged.last().map(|one| one.id);
        progress
    }
}

/// Whether a look was put off.
pub(crate) fn is_skipped(finding: &Finding) -> bool {
    *finding == Finding::Abstention(Abstention::Skipped)
}

/// How far a person has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// What comes next, if anything does.
    pub(crate) next: Option<Look>,
    /// Looks that are over, skipped ones among them.
    pub(crate) done: u64,
    /// All looks.
    pub(crate) total: u64,
    /// Looks that were put off.
    pub(crate) skipped: u64,
    /// The number of the last judgment, which can be undone.
    pub(crate) last: Option<i64>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use votive_critic::Judgment;

    const QUEUE: Queue = Queue { seed: 3, repeats: 0.2 };

    fn judged(id: i64, look: Look, finding: Finding) -> StoredJudgment {
        let judgment = Judgment { finding, evidence: Vec::new() };
        StoredJudgment {
            id,
            item: look.item,
            judge: String::new(),
            draw: look.draw,
            at: String::new(),
            judgment,
        }
    }

    #[test]
    fn every_pair_is_shown_and_some_a_second_time_far_apart_and_mirrored() {
        let pairs: Vec<i64> = (1..=1000).collect();
        let looks = QUEUE.looks("ann", &pairs);
        let place = |look| looks.iter().position(|other| *other == look);
        let firsts: HashSet<i64> = looks.iter().filter(|look| look.draw == 0).map(|look| look.item).collect();
        assert_eq!(firsts.len(), 1000);
        let repeats: Vec<Look> = looks.iter().copied().filter(|look| look.draw == 1).collect();
        assert!((150..250).contains(&repeats.len()), "{}", repeats.len());
        for look in repeats {
            let first = Look { draw: 0, ..look };
            let distance = place(look).unwrap() - place(first).unwrap();
            assert!(distance > GAP as usize || place(look).unwrap() + 20 > looks.len(), "{distance}");
            assert_ne!(QUEUE.is_reversed("ann", look), QUEUE.is_reversed("ann", first));
        }
        let left = looks.iter().filter(|look| QUEUE.is_reversed("ann", **look)).count();
        assert!((500..700).contains(&left), "{left} of {}", looks.len());
        assert_ne!(looks, QUEUE.looks("bob", &pairs));
        assert_ne!(looks, Queue { seed: 4, ..QUEUE }.looks("ann", &pairs));
    }

    #[test]
    fn what_is_done_is_not_shown_again_and_what_was_skipped_not_repeated() {
        let pairs: Vec<i64> = (1..=30).collect();
        let queue = Queue { repeats: 1.0, ..QUEUE };
        let mut done = Vec::new();
        let mut seen = HashSet::new();
        while let Some(look) = queue.progress("ann", &pairs, &done).next {
            assert!(seen.insert(look), "{look:?} twice");
            let finding = match look.item {
                7 => Finding::Abstention(Abstention::Skipped),
                _ => Finding::Preference(1.0),
            };
            done.push(judged(done.len() as i64, look, finding));
        }
        let progress = queue.progress("ann", &pairs, &done);
        assert_eq!((progress.done, progress.total, progress.skipped, progress.last), (59, 59, 1, Some(58)));
        assert!(!seen.contains(&Look { item: 7, draw: 1 }));
    }
}
