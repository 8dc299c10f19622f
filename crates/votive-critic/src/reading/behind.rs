//! Answers that are weighed behind what the speaker writes first.

use super::Reply;
use crate::judgment::{Abstention, Finding};
use crate::speaker::{Sampling, Silence, Speaker, Talk, Weighed};

/// Short answers and their probabilities.
pub(super) struct Weighing {
    /// The short answers.
    pub(super) answers: Vec<String>,
    /// The probabilities, of the whole turn up to each of them.
    pub(super) weighed: Weighed,
    /// What was written before them, if anything was, and a line break.
    pub(super) written: String,
}

/// Weighs short answers: at once, or behind what is written up to the last `mark`. An answer without the mark is malformed.
pub(super) fn weigh_behind(
    speaker: &dyn Speaker,
    (talk, sampling): (&Talk, &Sampling),
    mark: Option<&str>,
    answers: Vec<String>,
) -> Result<Result<Weighing, Reply>, Silence> {
    let Some(mark) = mark else {
        let weighed = speaker.weigh(talk, &answers)?;
        return Ok(Ok(Weighing { answers, weighed, written: String::new() }));
    };
    let said = speaker.say(talk, sampling)?;
    let Some(at) = said.words.rfind(mark) else {
        let why = format!("it holds no \"{mark}\"");
        let finding = Finding::Abstention(Abstention::Malformed(why));
        return Ok(Err(Reply { words: said.words, finding, cost: said.cost }));
    };
    let begun = &said.words[..at + mark.len()];
    let turns: Vec<String> = answers.iter().map(|answer| format!("{begun} {answer}")).collect();
    let mut weighed = speaker.weigh(talk, &turns)?;
    weighed.cost += said.cost;
    Ok(Ok(Weighing { answers, weighed, written: format!("{}\n", said.words) }))
}
