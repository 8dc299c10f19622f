//! A critique in words: what is shown, what is wrong with it, and what to change. As a grade, minus the number of things that
//! are wrong.
//!
//! Behind a mark (`after = "Fits:"`), it is what is shown, the mark, and `Yes.` or `No, ` with what is wrong, by commas. Without
//! one, it ends with lines `Shown:`, `Wrong:` (by commas) and `Edit:`, of which the last has to be there; `nothing` is nothing.

use super::words::lines_after;
use super::{Read, Reading, Reply, options};
use crate::judgment::Finding;
use crate::question::Form;
use crate::revision::Critique;
use crate::speaker::{Sampling, Silence, Speaker, Talk};
use serde::Deserialize;

pub(super) const READING: Reading = Reading {
    id: "critique",
    form: Form::Grade,
    summary: "what is shown, what is wrong and what to change, in words",
    build: |table| options::<InWords>(table).map(|reading| Box::new(reading) as _),
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InWords {
    /// The mark between what is shown and what is wrong; without it, lines with names are read.
    after: Option<String>,
}

impl InWords {
    fn parse(&self, words: &str) -> Result<Critique, String> {
        match &self.after {
            Some(mark) => behind(words, mark),
            None => lines(words),
        }
    }
}

impl Read for InWords {
    fn read(&self, speaker: &dyn Speaker, talk: &Talk, sampling: &Sampling) -> Result<Reply, Silence> {
        let said = speaker.say(talk, sampling)?;
        Ok(Reply::of(said, |words| Ok(Finding::Grade(self.parse(words)?.grade()))))
    }

    fn critique(&self, words: &str) -> Option<Result<Critique, String>> {
        Some(self.parse(words))
    }
}

/// `SHOWN. MARK Yes.` or `SHOWN. MARK No, WRONG, WRONG.`
fn behind(words: &str, mark: &str) -> Result<Critique, String> {
    let (shown, verdict) = words.split_once(mark).ok_or_else(|| format!("it holds no \"{mark}\""))?;
    if verdict.contains(mark) {
        return Err(format!("it holds \"{mark}\" twice"));
    }
    let mut said = listed(verdict);
    let verdict = if said.is_empty() { String::new() } else { said.remove(0).to_lowercase() };
    match (verdict.as_str(), said.is_empty()) {
        ("yes", true) | ("no", _) => {}
        ("yes", false) => return Err(format!("it says yes, and then {}", said.join(", "))),
        _ => return Err(format!("behind \"{mark}\" stands neither yes nor no")),
    }
    let instruction = (!said.is_empty()).then(|| said.join(", "));
    Ok(Critique { is_content: verdict == "yes", shown: seen(shown), wrong: said, instruction })
}

/// Lines `Shown:`, `Wrong:` and `Edit:`
fn lines(words: &str) -> Result<Critique, String> {
    let [shown, wrong, edit] =
        [only_line(words, "shown")?, only_line(words, "wrong")?, only_line(words, "edit")?];
    let edit = edit.ok_or("it holds no line \"Edit:\"")?;
    let wrong = wrong.and_then(something).map_or(Vec::new(), |wrong| listed(&wrong));
    let instruction = something(edit);
    let is_content = wrong.is_empty() && instruction.is_none();
    Ok(Critique { is_content, shown: shown.and_then(seen), wrong, instruction })
}

/// What is shown, without what is not: of "a blue, not red, circle" the blue circle. Whoever reads it may not know what "not" means,
/// as encoders of prompts do not.
fn seen(words: &str) -> Option<String> {
    const ASIDE: &str = ", not ";
    let mut words = words.to_owned();
    while let Some(at) = words.find(ASIDE) {
        let length = words[at + ASIDE.len()..].find(',').map(|length| ASIDE.len() + length + 1);
        words.replace_range(at..length.map_or(words.len(), |length| at + length), "");
    }
    something(&words)
}

/// What stands in the only line of a name, if there is one.
fn only_line<'a>(words: &'a str, name: &str) -> Result<Option<&'a str>, String> {
    let names = [name];
    let mut all = lines_after(words, &names);
    let first = all.next();
    match all.next() {
        Some(_) => Err(format!("it holds several lines \"{name}:\"")),
        None => Ok(first),
    }
}

/// Words that are not nothing, and do not say "nothing".
fn something(words: &str) -> Option<String> {
    let words = words.trim().trim_end_matches('.').trim_end();
    let is_nothing = ["", "-", "n/a", "none", "nothing"].contains(&words.to_lowercase().as_str());
    (!is_nothing).then(|| words.to_owned())
}

fn listed(words: &str) -> Vec<String> {
    words.split(',').filter_map(something).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(after: Option<&str>, words: &str) -> Result<Critique, String> {
        InWords { after: after.map(str::to_owned) }.parse(words)
    }

    fn critique(shown: &str, wrong: &[&str], instruction: &str) -> Critique {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let is_content = wrong.is_empty() && instruction.is_empty();
        let wrong = wrong.iter().map(|&fault| fault.to_owned()).collect();
        Critique { is_content, shown: some(shown), wrong, instruction: some(instruction) }
    }

    #[test]
    fn behind_a_mark() {
        for (words, expected) in [
            (
                "two red circles on a white background. Fits: No, wrong colour, ugly.",
                critique(
                    "two red circles on a white background",
                    &["wrong colour", "ugly"],
                    "wrong colour, ugly",
                ),
            ),
            ("a red circle. Fits: Yes.", critique("a red circle", &[], "")),
            (
                "a blue, not red, circle, not square, on a white background. Fits: No, wrong colour.",
                critique("a blue circle on a white background", &["wrong colour"], "wrong colour"),
            ),
            ("a cat, not a dog. Fits: No, ugly.", critique("a cat", &["ugly"], "ugly")),
            ("Fits: no, ugly", critique("", &["ugly"], "ugly")),
            ("a red circle. Fits: No.", Critique { is_content: false, ..critique("a red circle", &[], "") }),
        ] {
            assert_eq!(read(Some("Fits:"), words), Ok(expected), "{words}");
        }
        for words in [
            "",
            "a red circle.",
            "x. Fits:",
            "x. Fits: Yes, ugly.",
            "Fits: Yes. Fits: No, ugly.",
            "x. Fits: maybe",
        ] {
            assert!(read(Some("Fits:"), words).is_err(), "{words}");
        }
    }

    #[test]
    fn lines_with_names() {
        let words = "The circle should be red.\n\n**Shown:** a blue circle\nWrong: colour, quality.\nEdit: make the circle red.";
        let expected = critique("a blue circle", &["colour", "quality"], "make the circle red");
        assert_eq!(read(None, words), Ok(expected));
        assert_eq!(read(None, "Wrong: nothing\nEdit: Nothing."), Ok(critique("", &[], "")));
        // What is wrong, but not what could be done about it.
        assert_eq!(read(None, "Wrong: dull\nEdit: none"), Ok(critique("", &["dull"], "")));
        for words in ["", "Make it red.", "Edit:", "Edit: a\nEdit: b", "Edit: a\nWrong: x\nWrong: y"] {
            assert!(read(None, words).is_err(), "{words}");
        }
    }
}
