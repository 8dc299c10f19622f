//! The turns of a talk, with places for what is asked.
//!
//! What is put into a place is never read as a template again, and marks that would mean something are taken out of it.

use serde::Deserialize;

use crate::candidate::Candidate;
use crate::question::{Form, Question};
use crate::speaker::{Part, Role, Turn};

/// A turn as a template's file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileTurn {
    role: String,
    text: String,
}

/// Turns with places.
pub(crate) struct Wording {
    turns: Vec<(Role, Vec<Slot>)>,
}

/// A piece of a turn's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Literal(String),
    Prompt,
    /// The candidate of this place.
    Candidate(usize),
    Candidates,
    Reference,
    /// What was said of the candidate.
    Critique,
}

/// Which places there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Places {
    /// Those of a question.
    Question(Form),
    /// Those of a request to do better: the question of one candidate, and what was said of it.
    Revision,
}

/// What goes into the places.
pub(crate) struct Filling<'a> {
    pub(crate) question: &'a Question,
    pub(crate) critique: Option<&'a str>,
}

impl Wording {
    /// The turns of a file.
    ///
    /// # Errors
    /// If a role or a place is unknown, in words.
    pub(crate) fn parse(turns: &[FileTurn], places: Places) -> Result<Self, String> {
        let turn = |turn: &FileTurn| Ok((role(&turn.role)?, slots(&turn.text, places)?));
        Ok(Self { turns: turns.iter().map(turn).collect::<Result<_, String>>()? })
    }

    /// Whether any turn has this place.
    pub(crate) fn shows(&self, slot: &Slot) -> bool {
        self.turns.iter().any(|(_, slots)| slots.contains(slot))
    }

    /// The turns with everything in its place.
    ///
    /// # Errors
    /// If a turn shows what is not there, in words.
    pub(crate) fn fill(&self, filling: &Filling<'_>, guard: &mut Guard<'_>) -> Result<Vec<Turn>, String> {
        let question = filling.question;
        let mut turns = Vec::with_capacity(self.turns.len());
        for (role, slots) in &self.turns {
            let mut turn = GrowingTurn::default();
            for slot in slots {
                match slot {
                    Slot::Literal(text) => turn.text(text),
                    Slot::Prompt => turn.text(&guard.clean(question.prompt())),
                    Slot::Candidate(place) => {
                        if let Some(candidate) = question.candidates().get(*place) {
                            turn.candidate(candidate, guard);
                        }
                    }
                    Slot::Candidates => {
                        for (place, candidate) in question.candidates().iter().enumerate() {
                            turn.text(&format!("{}{}. ", if place > 0 { "\n" } else { "" }, place + 1));
                            turn.candidate(candidate, guard);
                        }
                    }
                    Slot::Reference => {
                        let reference = question.reference();
                        let reference = reference.ok_or("it shows {reference}, and a question has none")?;
                        turn.candidate(reference, guard);
                    }
                    Slot::Critique => turn.text(&guard.clean(filling.critique.unwrap_or_default())),
                }
            }
            turns.push(Turn { role: *role, parts: turn.parts });
        }
        Ok(turns)
    }
}

/// A turn that grows; text that meets text becomes one part.
#[derive(Default)]
struct GrowingTurn {
    parts: Vec<Part>,
}

impl GrowingTurn {
    fn text(&mut self, more: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(text)) => text.push_str(more),
            _ => self.parts.push(Part::Text(more.to_owned())),
        }
    }

    fn candidate(&mut self, candidate: &Candidate, guard: &mut Guard<'_>) {
        match candidate {
            Candidate::Text(text) => self.text(&guard.clean(text)),
            Candidate::Image(picture) => self.parts.push(Part::Image(picture.clone())),
        }
    }
}

/// Takes marks out of what is judged.
pub(crate) struct Guard<'a> {
    pub(crate) marks: &'a [String],
    pub(crate) own: &'a [&'static str],
    pub(crate) removed: u64,
}

impl Guard<'_> {
    pub(crate) fn clean(&mut self, text: &str) -> String {
        let marks = self.marks.iter().map(String::as_str).chain(self.own.iter().copied());
        let (text, removed) = without_marks(text, marks);
        self.removed += removed;
        text
    }
}

/// A text without the marks that would mean something in it, and how many were taken out.
#[must_use]
pub fn without_marks<'a>(text: &str, marks: impl Iterator<Item = &'a str> + Clone) -> (String, u64) {
    let (mut text, mut removed) = (text.to_owned(), 0);
    // What is left after a mark was taken out may be a mark again.
    while let Some(mark) = marks.clone().filter(|mark| !mark.is_empty()).find(|mark| text.contains(mark)) {
        removed += text.matches(mark).count() as u64;
        text = text.replace(mark, "");
    }
    (text, removed)
}

fn role(name: &str) -> Result<Role, String> {
    let roles = [Role::System, Role::User, Role::Assistant];
    let found = roles.into_iter().find(|role| role.as_str() == name);
    found.ok_or_else(|| format!("`role` is \"{name}\", expected \"system\", \"user\" or \"assistant\""))
}

/// A piece of a text with names in braces.
pub(crate) enum Named<'a> {
    Literal(String),
    Name(&'a str),
}

/// Splits a text at its names in braces; doubled braces are braces.
///
/// # Errors
/// If a brace has no partner, in words.
pub(crate) fn split_at_names(text: &str) -> Result<Vec<Named<'_>>, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            literal.push_str(&rest[..1]);
            rest = after;
            continue;
        }
        let end = rest.find('}').filter(|_| rest.starts_with('{'));
        let end = end.ok_or("a brace without its partner; write {{ or }} for a brace")?;
        if !literal.is_empty() {
            pieces.push(Named::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(Named::Name(&rest[1..end]));
        rest = &rest[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Named::Literal(literal));
    }
    Ok(pieces)
}

fn slots(text: &str, places: Places) -> Result<Vec<Slot>, String> {
    let piece = |piece| match piece {
        Named::Literal(text) => Ok(Slot::Literal(text)),
        Named::Name(name) => slot(name, places),
    };
    split_at_names(text)?.into_iter().map(piece).collect()
}

fn slot(name: &str, places: Places) -> Result<Slot, String> {
    use Places::{Question, Revision};
    match (name, places) {
        ("prompt", _) => Ok(Slot::Prompt),
        ("reference", _) => Ok(Slot::Reference),
        ("candidate", Question(Form::Grade) | Revision) | ("first", Question(Form::Pair)) => {
            Ok(Slot::Candidate(0))
        }
        ("second", Question(Form::Pair)) => Ok(Slot::Candidate(1)),
        ("candidates", Question(Form::Rank)) => Ok(Slot::Candidates),
        ("critique", Revision) => Ok(Slot::Critique),
        _ => {
            let place = match places {
                Question(form) => format!("a template of form \"{}\"", form.as_str()),
                Revision => "a turn of a revision".to_owned(),
            };
            Err(format!("there is no {{{name}}} in {place}; write {{{{ and }}}} for braces"))
        }
    }
}
