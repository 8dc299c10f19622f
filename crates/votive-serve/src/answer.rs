//! What a person says, as a judgment like anybody else's.

use serde::Deserialize;
use votive_critic::{Abstention, Cost, Evidence, Finding, Judgment};

/// What can be said of two candidates side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Left,
    Right,
    Tie,
    Undecided,
    Skip,
}

impl Answer {
    /// The finding of the question as it was shown, left first.
    fn finding(self) -> Finding {
        match self {
            Self::Left => Finding::Preference(1.0),
            Self::Right => Finding::Preference(0.0),
            Self::Tie => Finding::Preference(0.5),
            Self::Undecided => Finding::Abstention(Abstention::Undecided),
            Self::Skip => Finding::Abstention(Abstention::Skipped),
        }
    }

    /// The judgment of the question in the order of the store.
    pub(crate) fn judgment(self, about: About) -> Judgment {
        let shown = Judgment::of(Evidence {
            judge: about.judge,
            question: about.shown,
            is_reversed: false,
            template: None,
            draw: about.draw,
            words: about.words,
            removed_marks: 0,
            finding: self.finding(),
            cost: Cost { calls: 1, seconds: about.seconds, ..Cost::default() },
        });
        if about.is_reversed { shown.reversed(2) } else { shown }
    }
}

/// What an answer is about, and what is known beside it.
pub(crate) struct About {
    /// The person, as a judge.
    pub(crate) judge: String,
    /// Hash of the question as it was shown.
    pub(crate) shown: String,
    /// Whether that was in reverse order.
    pub(crate) is_reversed: bool,
    /// Which look it was.
    pub(crate) draw: u64,
    /// Why, if they said.
    pub(crate) words: String,
    /// From the page to the answer.
    pub(crate) seconds: f64,
}

/// A person's name among judges.
pub(crate) const PERSON: &str = "person:";

/// Most characters of a person's name.
const LONGEST_NAME: usize = 40;

/// The judge that a person is, if that is a name: letters and digits of any script, and `-`, `_` and `.`.
pub(crate) fn judge_of(rater: &str) -> Option<String> {
    let is_fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = (1..=LONGEST_NAME).contains(&rater.chars().count()) && rater.chars().all(is_fine);
    is_name.then(|| format!("{PERSON}{rater}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use votive_critic::Winner;

    #[test]
    fn left_is_the_second_candidate_if_they_were_shown_in_reverse() {
        let about = |is_reversed| About {
            judge: "person:ann".into(),
            shown: "h".into(),
            is_reversed,
            draw: 1,
            words: "brighter".into(),
            seconds: 2.5,
        };
        for (answer, straight, reversed) in [
            (Answer::Left, Some(Winner::First), Some(Winner::Second)),
            (Answer::Right, Some(Winner::Second), Some(Winner::First)),
            (Answer::Tie, Some(Winner::Tie), Some(Winner::Tie)),
            (Answer::Undecided, None, None),
            (Answer::Skip, None, None),
        ] {
            assert_eq!(answer.judgment(about(false)).finding.winner(), straight);
            let judgment = answer.judgment(about(true));
            assert_eq!(judgment.finding.winner(), reversed);
            // Evidence is what was seen.
            assert_eq!(judgment.evidence.len(), 1);
            let evidence = &judgment.evidence[0];
            assert_eq!((evidence.finding.winner(), evidence.is_reversed), (straight, true));
        }
    }

    #[test]
    fn a_name_is_a_name() {
        assert_eq!(judge_of("Ann-2_é.字").unwrap(), "person:Ann-2_é.字");
        for wrong in ["", "a b", "<b>", "a/b", "a\u{202e}b", &"x".repeat(41)] {
            assert_eq!(judge_of(wrong), None, "{wrong}");
        }
    }
}
