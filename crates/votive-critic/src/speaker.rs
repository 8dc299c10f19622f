//! Whoever answers in words: a language model in this process or behind a connection.

use crate::candidate::Picture;
use crate::error::CriticError;
use crate::judgment::Cost;

/// Who speaks a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions that stand above the talk.
    System,
    /// Who asks.
    User,
    /// Who answers.
    Assistant,
}

impl Role {
    /// The name that chat templates and endpoints know.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A piece of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Words.
    Text(String),
    /// An image.
    Image(Picture),
}

/// What somebody says in a talk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who says it.
    pub role: Role,
    /// Its pieces in order.
    pub parts: Vec<Part>,
}

/// Turns up to the one that is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Talk {
    /// What has been said.
    pub turns: Vec<Turn>,
    /// Whose turn comes: the assistant's, or the user's where it is asked how a talk would go on.
    pub next: Role,
}

/// How an answer is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is the most probable answer.
    pub temperature: f64,
    /// Share of the probability that is drawn from.
    pub top_p: f64,
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// Key of the draws.
    pub seed: u64,
}

/// An answer in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// The words.
    pub words: String,
    /// Whether they end where the speaker ended them, and not at the limit of tokens.
    pub is_finished: bool,
    /// What they cost.
    pub cost: Cost,
}

/// How probable given answers are.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// Log-probability of each answer as the next turn's beginning, nats.
    pub log_probs: Vec<f64>,
    /// Tokens of each answer.
    pub tokens: Vec<usize>,
    /// What it cost.
    pub cost: Cost,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Silence {
    /// This talk cannot be answered: too long, an image that cannot be read.
    Unreadable(String),
    /// There was none, whatever was tried.
    NoAnswer(String),
    /// Nor will there be one to any other question.
    Fatal(CriticError),
}

/// Somebody who answers in words.
pub trait Speaker: Send + Sync {
    /// Who it is, its version included.
    fn name(&self) -> &str;

    /// Marks that have a meaning of their own in what it reads, such as `<|im_end|>` or `<image>`: they are taken out of
    /// whatever is judged.
    fn reserved_marks(&self) -> &[String];

    /// The next turn.
    ///
    /// # Errors
    /// If there is none.
    fn say(&self, talk: &Talk, sampling: &Sampling) -> Result<Said, Silence>;

    /// How probable each of some beginnings of the next turn is.
    ///
    /// # Errors
    /// If it cannot be told.
    fn weigh(&self, talk: &Talk, answers: &[String]) -> Result<Weighed, Silence>;
}
