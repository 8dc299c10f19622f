//! What a judge is asked.

use crate::candidate::{Candidate, sha256};

/// What is asked of some candidates; their number decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// How good is the one candidate? (pointwise)
    Grade,
    /// Which of two is better? (pairwise)
    Pair,
    /// In which order of merit do they come? (listwise)
    Rank,
}

impl Form {
    /// All, in the order of candidates.
    pub const ALL: [Self; 3] = [Self::Grade, Self::Pair, Self::Rank];

    /// The form's name in templates.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grade => "grade",
            Self::Pair => "pair",
            Self::Rank => "rank",
        }
    }

    /// What a judge gives that answers the form.
    pub(crate) fn answer(self) -> &'static str {
        match self {
            Self::Grade => "grades",
            Self::Pair => "preferences",
            Self::Rank => "rankings",
        }
    }
}

/// A prompt and candidates that answer it, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    prompt: String,
    candidates: Vec<Candidate>,
    reference: Option<Candidate>,
}

impl Question {
    /// How good is it?
    pub fn grade(prompt: impl Into<String>, candidate: Candidate) -> Self {
        Self { prompt: prompt.into(), candidates: vec![candidate], reference: None }
    }

    /// Which is better?
    pub fn pair(prompt: impl Into<String>, first: Candidate, second: Candidate) -> Self {
        Self { prompt: prompt.into(), candidates: vec![first, second], reference: None }
    }

    /// In which order of merit do they come? Of one or two candidates, that is a grade or a preference; of none, there is
    /// no question.
    pub fn rank(prompt: impl Into<String>, candidates: Vec<Candidate>) -> Option<Self> {
        (!candidates.is_empty()).then(|| Self { prompt: prompt.into(), candidates, reference: None })
    }

    /// The question beside an answer that is known to be right.
    #[must_use]
    pub fn with_reference(self, reference: Candidate) -> Self {
        Self { reference: Some(reference), ..self }
    }

    /// What the candidates answer.
    #[must_use]
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// The candidates in the order shown.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// An answer that is known to be right.
    #[must_use]
    pub fn reference(&self) -> Option<&Candidate> {
        self.reference.as_ref()
    }

    /// What is asked.
    #[must_use]
    pub fn form(&self) -> Form {
        match self.candidates.len() {
            0 | 1 => Form::Grade,
            2 => Form::Pair,
            _ => Form::Rank,
        }
    }

    /// The same question with its candidates the other way round.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let candidates = self.candidates.iter().rev().cloned().collect();
        Self { candidates, ..self.clone() }
    }

    /// The question of one candidate alone.
    #[must_use]
    pub fn of(&self, candidate: &Candidate) -> Self {
        Self { candidates: vec![candidate.clone()], ..self.clone() }
    }

    /// The same question with another candidate behind those that there are.
    #[must_use]
    pub fn beside(&self, other: Candidate) -> Self {
        let candidates = self.candidates.iter().cloned().chain([other]).collect();
        Self { candidates, ..self.clone() }
    }

    /// SHA-256 of prompt, candidates and reference, hexadecimal: equal questions in equal order have equal hashes.
    #[must_use]
    pub fn sha256(&self) -> String {
        let candidates = self.candidates.iter().map(Candidate::sha256);
        question_sha256(&self.prompt, candidates, self.reference.as_ref().map(Candidate::sha256))
    }
}

/// A question's hash by those of its candidates and its reference.
pub(crate) fn question_sha256(
    prompt: &str,
    candidates: impl Iterator<Item = String>,
    reference: Option<String>,
) -> String {
    let has_reference = if reference.is_some() { "r" } else { "" };
    let all: String = std::iter::once(sha256(prompt.as_bytes())).chain(candidates).chain(reference).collect();
    sha256(format!("{all}{has_reference}").as_bytes())
}
