//! What a judge says, and what that rests on.

use crate::question::Question;
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// Who wins a comparison of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// The candidate that was shown first.
    First,
    /// The candidate that was shown second.
    Second,
    /// Neither.
    Tie,
}

impl Winner {
    /// The winner if the candidates had been named the other way round.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            Self::Tie => Self::Tie,
        }
    }

    /// Probability that the first candidate is better, if nothing but the winner is known.
    #[must_use]
    pub fn probability(self) -> f64 {
        match self {
            Self::First => 1.0,
            Self::Second => 0.0,
            Self::Tie => 0.5,
        }
    }
}

/// What a judge finds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// How good the only candidate is: larger is better, in units of the judge.
    Grade(f64),
    /// Probability that the first candidate is better than the second; 0.5 is a tie.
    Preference(f64),
    /// The candidates' places in the question, best first.
    Ranking(Vec<usize>),
    /// Nothing, and why.
    Abstention(Abstention),
}

impl Finding {
    /// Who wins; none unless it is a preference.
    #[must_use]
    pub fn winner(&self) -> Option<Winner> {
        let Self::Preference(probability) = self else { return None };
        Some(match probability.total_cmp(&0.5) {
            std::cmp::Ordering::Greater => Winner::First,
            std::cmp::Ordering::Less => Winner::Second,
            std::cmp::Ordering::Equal => Winner::Tie,
        })
    }

    /// The finding if the question's candidates had been in reverse order; `candidates` is their number.
    #[must_use]
    pub fn reversed(self, candidates: usize) -> Self {
        match self {
            Self::Preference(probability) => Self::Preference(1.0 - probability),
            Self::Ranking(order) => {
                Self::Ranking(order.into_iter().map(|place| candidates - 1 - place).collect())
            }
            other => other,
        }
    }
}

/// Why a judge does not say anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", content = "detail", rename_all = "snake_case")]
pub enum Abstention {
    /// The verdict turned with the order of the candidates.
    OrderFlip,
    /// Several judges, or several answers of one, have no majority.
    NoMajority,
    /// The answer cannot be read as a verdict; what is wrong with it.
    Malformed(String),
    /// There was no answer: a time-out, an error of the endpoint after all retries.
    NoAnswer(String),
    /// A candidate cannot be judged: an image that cannot be read, a text beyond the model's positions.
    Unreadable(String),
}

impl Abstention {
    /// The reason's name, as it is stored and counted.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OrderFlip => "order_flip",
            Self::NoMajority => "no_majority",
            Self::Malformed(_) => "malformed",
            Self::NoAnswer(_) => "no_answer",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// What an answer costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Times that somebody was asked, retries included.
    pub calls: u64,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Seconds of waiting.
    pub seconds: f64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.seconds += other.seconds;
    }
}

/// A question that was put to somebody, and the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Who was asked.
    pub judge: String,
    /// Hash of the question as it was shown, its order included.
    pub question: String,
    /// Whether the candidates were shown in reverse order.
    pub is_reversed: bool,
    /// Hash of the template that it was asked with, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub template: Option<String>,
    /// Number of the draw, where answers are drawn.
    pub draw: u64,
    /// The answer as it was given, word by word.
    pub words: String,
    /// Marks that were taken out of what was shown, because they would have had a meaning of their own.
    pub removed_marks: u64,
    /// What was read in it, in the order that was shown.
    pub finding: Finding,
    /// What it cost.
    pub cost: Cost,
}

impl Evidence {
    /// What a judge that writes nothing found in a question as it stands; free of cost.
    #[must_use]
    pub fn new(judge: &str, question: &Question, draw: u64, finding: Finding) -> Self {
        Self {
            judge: judge.to_owned(),
            question: question.sha256(),
            is_reversed: false,
            template: None,
            draw,
            words: String::new(),
            removed_marks: 0,
            finding,
            cost: Cost { calls: 1, ..Cost::default() },
        }
    }
}

/// A finding and what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgment {
    /// What was found.
    pub finding: Finding,
    /// Every question that was asked for it.
    pub evidence: Vec<Evidence>,
}

impl Judgment {
    /// A judgment that rests on one question.
    #[must_use]
    pub fn of(evidence: Evidence) -> Self {
        Self { finding: evidence.finding.clone(), evidence: vec![evidence] }
    }

    /// The sum of all costs.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let mut sum = Cost::default();
        for evidence in &self.evidence {
            sum += evidence.cost;
        }
        sum
    }

    /// The judgment of the same question with its candidates in the other order.
    #[must_use]
    pub fn reversed(self, candidates: usize) -> Self {
        let turned = |evidence: Evidence| Evidence { is_reversed: !evidence.is_reversed, ..evidence };
        Self {
            finding: self.finding.reversed(candidates),
            evidence: self.evidence.into_iter().map(turned).collect(),
        }
    }
}
