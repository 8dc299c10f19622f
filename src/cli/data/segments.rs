//! A sequence of tokens as text in which one sees what is trained: by colour, or by brackets where there is none.

use crate::cli::Outcome;
use votive_data::{Examination, ExaminedCompletion, TextTokenizer};

/// What happens to a run of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Read, not trained.
    Context,
    /// Trained.
    Trained,
    /// In no sequence.
    Lost,
}

impl Fate {
    fn marks(self, colour: bool) -> [&'static str; 2] {
        match (self, colour) {
            (Self::Context, true) => ["\x1b[2m", "\x1b[0m"],
            (Self::Trained, true) => ["\x1b[32m", "\x1b[0m"],
            (Self::Lost, true) => ["\x1b[31m", "\x1b[0m"],
            (Self::Context, false) => ["", ""],
            (Self::Trained, false) => ["[", "]"],
            (Self::Lost, false) => ["{", "}"],
        }
    }
}

/// What the marks mean.
pub(super) fn legend(colour: bool) -> String {
    let meanings =
        [(Fate::Context, "read, not trained"), (Fate::Trained, "trained"), (Fate::Lost, "cut or left out")];
    let said = meanings.map(|(fate, meaning)| {
        let [open, close] = fate.marks(colour);
        format!("{open}{meaning}{close}")
    });
    format!("tokens: {}", said.join(", "))
}

/// Prompt and one completion as a line.
pub(super) fn line(
    tokenizer: &TextTokenizer,
    examination: &Examination,
    completion: &ExaminedCompletion,
    colour: bool,
) -> Outcome<String> {
    let kept = completion.ids.len() - completion.cut;
    let is_untrained = |place: usize| completion.untrained.iter().any(|span| span.contains(&place));
    let mut runs =
        vec![(Fate::Context, examination.prompt_ids.clone()), (Fate::Lost, examination.left_out_ids.clone())];
    for (place, id) in completion.ids.iter().enumerate() {
        let fate = match place {
            _ if place >= kept => Fate::Lost,
            _ if is_untrained(place) => Fate::Context,
            _ => Fate::Trained,
        };
        match runs.last_mut() {
            Some((last, ids)) if *last == fate && place > 0 => ids.push(*id),
            _ => runs.push((fate, vec![*id])),
        }
    }
    let mut line = String::new();
    for (fate, ids) in runs.into_iter().filter(|(_, ids)| !ids.is_empty()) {
        let [open, close] = fate.marks(colour);
        let text = tokenizer.decode(&ids, false)?.replace('\n', "⏎");
        line.extend([open, &text, close]);
    }
    Ok(line)
}
