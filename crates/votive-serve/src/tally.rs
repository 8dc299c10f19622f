//! What judgments say together: counts of each judge, agreement with the truth, with themselves and with each other.

use std::collections::BTreeMap;

use votive_critic::{Finding, StoredJudgment, Winner};

use crate::agreement::Agreement;
use crate::answer::PERSON;

/// How often something was the case, of how often it could have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) hits: u64,
    pub(crate) of: u64,
}

impl Share {
    fn count(&mut self, is_hit: bool) {
        self.hits += u64::from(is_hit);
        self.of += 1;
    }
}

/// What one judge has said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Judgments, abstentions among them.
    pub(crate) judgments: u64,
    pub(crate) first: u64,
    pub(crate) second: u64,
    pub(crate) ties: u64,
    /// Abstentions by reason.
    pub(crate) abstentions: BTreeMap<&'static str, u64>,
    /// Preferences that are the truth, of those whose truth is known.
    pub(crate) truth: Share,
    /// Pairs of which two looks name the same winner, of those that were looked at twice.
    pub(crate) oneself: Share,
    /// Answers for what was shown first or left, of those for either side.
    pub(crate) left: Share,
    /// Median of the seconds that an answer took.
    pub(crate) seconds: f64,
    /// The winner of each pair, of the first look that has one.
    winners: BTreeMap<i64, Winner>,
}

/// How far two judges agree.
#[derive(Clone, Debug)]
pub(crate) struct Pairing {
    pub(crate) one: String,
    pub(crate) other: String,
    pub(crate) agreement: Agreement,
}

/// Everything that the page of results says.
pub(crate) struct Tallies {
    /// By judge.
    pub(crate) judges: BTreeMap<String, Tally>,
    /// People with each other, and with every other judge, where they have judged the same pairs.
    pub(crate) pairings: Vec<Pairing>,
}

impl Tallies {
    pub(crate) fn of(judgments: &[StoredJudgment], truths: &[(i64, Winner)]) -> Self {
        let truths: BTreeMap<i64, Winner> = truths.iter().copied().collect();
        let mut by_judge: BTreeMap<&str, Vec<&StoredJudgment>> = BTreeMap::new();
        for judgment in judgments {
            by_judge.entry(&judgment.judge).or_default().push(judgment);
        }
        let judges: BTreeMap<String, Tally> = by_judge
            .into_iter()
            .map(|(judge, mut judgments)| {
                judgments.sort_by_key(|one| (one.item, one.draw));
                (judge.to_owned(), tally(&judgments, &truths))
            })
            .collect();
        let mut pairings = Vec::new();
        for (one, said) in judges.iter().filter(|(judge, _)| is_person(judge)) {
            // Of two people, each pairing once.
            for (other, also) in judges.iter().filter(|(other, _)| !is_person(other) || *other > one) {
                let both: Vec<(Winner, Winner)> = said
                    .winners
                    .iter()
                    .filter_map(|(item, winner)| also.winners.get(item).map(|other| (*winner, *other)))
                    .collect();
                if !both.is_empty() {
                    let agreement = Agreement::of(&both);
                    pairings.push(Pairing { one: one.clone(), other: other.clone(), agreement });
                }
            }
        }
        Self { judges, pairings }
    }
}

fn is_person(judge: &str) -> bool {
    judge.starts_with(PERSON)
}

/// `judgments` are one judge's, by item and draw.
fn tally(judgments: &[&StoredJudgment], truths: &BTreeMap<i64, Winner>) -> Tally {
    let mut tally = Tally::default();
    let mut seconds = Vec::new();
    for judgment in judgments {
        tally.judgments += 1;
        seconds.push(judgment.judgment.cost().seconds);
        for evidence in &judgment.judgment.evidence {
            match evidence.finding.winner() {
                Some(Winner::First) => tally.left.count(true),
                Some(Winner::Second) => tally.left.count(false),
                _ => {}
            }
        }
        if let Finding::Abstention(abstention) = &judgment.judgment.finding {
            *tally.abstentions.entry(abstention.reason()).or_default() += 1;
        }
        let Some(winner) = judgment.judgment.finding.winner() else { continue };
        match winner {
            Winner::First => tally.first += 1,
            Winner::Second => tally.second += 1,
            Winner::Tie => tally.ties += 1,
        }
        if let Some(truth) = truths.get(&judgment.item) {
            tally.truth.count(winner == *truth);
        }
        match tally.winners.get(&judgment.item) {
            Some(earlier) => tally.oneself.count(*earlier == winner),
            None => {
                tally.winners.insert(judgment.item, winner);
            }
        }
    }
    seconds.sort_by(f64::total_cmp);
    let (low, high) = (seconds.get(seconds.len().saturating_sub(1) / 2), seconds.get(seconds.len() / 2));
    tally.seconds = low.zip(high).map_or(0.0, |(low, high)| 0.5 * (low + high));
    tally
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::answer::{About, Answer};

    fn says(judge: &str, item: i64, draw: u64, answer: Answer, is_reversed: bool) -> StoredJudgment {
        let judgment = answer.judgment(About {
            judge: judge.to_owned(),
            shown: String::new(),
            is_reversed,
            draw,
            words: String::new(),
            seconds: item as f64,
        });
        StoredJudgment { id: 0, item, judge: judge.to_owned(), draw, at: String::new(), judgment }
    }

    #[test]
    fn counts_by_hand() {
        use Answer::{Left, Right, Skip, Tie, Undecided};
        let judgments = [
            says("person:ann", 1, 0, Left, false), // first
            says("person:ann", 2, 0, Left, true),  // second
            says("person:ann", 3, 0, Tie, false),
            says("person:ann", 4, 0, Undecided, false),
            says("person:ann", 5, 0, Skip, false),
            says("person:ann", 1, 1, Left, true), // second: not what the first look said
            says("person:ann", 2, 1, Right, false), // second again
            says("person:bob", 1, 0, Right, true), // first
            says("person:bob", 2, 0, Left, false), // first
            says("critic", 1, 0, Left, false),
            says("critic", 2, 0, Right, false),
            says("critic", 3, 0, Right, false),
        ];
        let truths = [(1, Winner::First), (2, Winner::First), (3, Winner::Tie), (9, Winner::Tie)];
        let found = Tallies::of(&judgments, &truths);
        let ann = &found.judges["person:ann"];
        assert_eq!((ann.judgments, ann.first, ann.second, ann.ties), (7, 1, 3, 1));
        assert_eq!(ann.abstentions, BTreeMap::from([("skipped", 1), ("undecided", 1)]));
        // Pair 1 rightly and wrongly, pair 2 wrongly twice, the tie rightly.
        assert_eq!(ann.truth, Share { hits: 2, of: 5 });
        assert_eq!(ann.oneself, Share { hits: 1, of: 2 });
        assert_eq!(ann.left, Share { hits: 3, of: 4 });
        assert!((ann.seconds - 2.0).abs() < 1e-12, "{}", ann.seconds);
        let pairing = |one: &str, other: &str| {
            let found = found.pairings.iter().find(|pairing| pairing.one == one && pairing.other == other);
            found.unwrap().agreement
        };
        assert_eq!(found.pairings.len(), 3);
        let both = pairing("person:ann", "person:bob");
        assert_eq!((both.n, both.agreed), (2, 1));
        let both = pairing("person:ann", "critic");
        assert_eq!((both.n, both.agreed), (3, 2));
        assert_eq!(pairing("person:bob", "critic").agreed, 1);
    }
}
