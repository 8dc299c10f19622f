//! From a critique to a better text.

use crate::error::{CriticError, Result};
use crate::judgment::{Abstention, Cost};
use crate::question::Question;
use crate::speaker::{Sampling, Silence, Speaker};
use crate::template::Template;

/// What `speaker` answers better to a question of one candidate of which `critique` was said, and what it cost. An answer that
/// is empty or was cut off is none, and neither is silence.
///
/// # Errors
/// If the template has no turns that ask for a revision, or nobody can be asked any more.
pub fn revise(
    speaker: &dyn Speaker,
    template: &Template,
    (question, critique): (&Question, &str),
    sampling: &Sampling,
) -> Result<(Result<String, Abstention>, Cost)> {
    let rendered = template.render_revision(question, critique, speaker.reserved_marks())?;
    let rendered = rendered.ok_or_else(|| CriticError::Template {
        name: template.name().to_owned(),
        message: "it has no turns `[[revision]]` that ask for a better text".to_owned(),
    })?;
    let malformed = |why: &str| Err(Abstention::Malformed(why.to_owned()));
    let said = match speaker.say(&rendered.talk, sampling) {
        Ok(said) => said,
        Err(Silence::Unreadable(why)) => return Ok((Err(Abstention::Unreadable(why)), Cost::default())),
        Err(Silence::NoAnswer(why)) => return Ok((Err(Abstention::NoAnswer(why)), Cost::default())),
        Err(Silence::Fatal(error)) => return Err(error),
    };
    let revised = match (said.is_finished, said.words.trim()) {
        (false, _) => malformed("it was cut off at the limit of tokens"),
        (true, "") => malformed("it is empty"),
        (true, words) => Ok(words.to_owned()),
    };
    Ok((revised, said.cost))
}
