//! From a critique to an edit of an image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::critique::Critique;
use crate::wording::{Named, split_at_names};

/// How an image is to be changed: made anew from itself, towards a prompt and away from another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// What the edited image is to show.
    pub prompt: String,
    /// What guidance leads away from; none for what stands for no prompt.
    pub negative: Option<String>,
    /// Share of the sampler's steps that are made again, above 0 and at most 1.
    pub strength: f64,
}

/// The part of a template's file that makes edits: `[edit]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditRule {
    prompt: Pattern,
    negative: Option<Pattern>,
    strength: Strengths,
}

/// A text with `{prompt}`, `{shown}`, `{wrong}` and `{edit}`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Vec<Piece>);

enum Piece {
    Literal(String),
    Prompt,
    Shown,
    Wrong,
    Edit,
}

/// The strength by what is wrong; of several, the largest.
#[derive(Deserialize)]
struct Strengths {
    /// Of whatever is not named.
    otherwise: Strength,
    #[serde(flatten)]
    by_fault: BTreeMap<String, Strength>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
struct Strength(f64);

impl TryFrom<f64> for Strength {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if value > 0.0 && value <= 1.0 {
            return Ok(Self(value));
        }
        Err(format!("a strength is {value}, expected more than 0 and at most 1"))
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let piece = |piece| match piece {
            Named::Literal(text) => Ok(Piece::Literal(text)),
            Named::Name("prompt") => Ok(Piece::Prompt),
            Named::Name("shown") => Ok(Piece::Shown),
            Named::Name("wrong") => Ok(Piece::Wrong),
            Named::Name("edit") => Ok(Piece::Edit),
            Named::Name(name) => Err(format!("there is no {{{name}}} in an edit")),
        };
        Ok(Self(split_at_names(&text)?.into_iter().map(piece).collect::<Result<_, _>>()?))
    }
}

impl Pattern {
    /// The text; none if the critique lacks one of its parts.
    fn fill(&self, prompt: &str, critique: &Critique) -> Option<String> {
        let part = |piece: &Piece| match piece {
            Piece::Literal(text) => Some(text.clone()),
            Piece::Prompt => Some(prompt.to_owned()),
            Piece::Shown => critique.shown.clone(),
            Piece::Wrong => (!critique.wrong.is_empty()).then(|| critique.wrong.join(", ")),
            Piece::Edit => critique.instruction.clone(),
        };
        self.0.iter().map(part).collect()
    }
}

impl EditRule {
    /// The edit of an image of `prompt`; none if the critique leaves nothing to act on, or lacks a part of what is to be shown.
    pub(crate) fn edit(&self, prompt: &str, critique: &Critique) -> Option<Edit> {
        critique.instruction.as_ref()?;
        let shown = self.prompt.fill(prompt, critique)?;
        let negative = self.negative.as_ref().and_then(|negative| negative.fill(prompt, critique));
        // Away from what is to be shown would be nowhere.
        let negative = negative.filter(|negative| !is_same(negative, &shown));
        let of_fault = |fault: &String| {
            self.strength.by_fault.get(&fault.to_lowercase()).unwrap_or(&self.strength.otherwise).0
        };
        let strength = critique.wrong.iter().map(of_fault).reduce(f64::max);
        Some(Edit { prompt: shown, negative, strength: strength.unwrap_or(self.strength.otherwise.0) })
    }
}

fn is_same(one: &str, other: &str) -> bool {
    let plain = |text: &str| text.trim().trim_end_matches('.').to_lowercase();
    plain(one) == plain(other)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<EditRule, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn critique(shown: &str, wrong: &[&str], instruction: &str) -> Critique {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let wrong = wrong.iter().map(|&fault| fault.to_owned()).collect();
        Critique { is_content: false, shown: some(shown), wrong, instruction: some(instruction) }
    }

    const RULE: &str = "prompt = \"{prompt}\"\nnegative = \"{shown}\"\nstrength = { otherwise = 0.7, ugly = 0.4, \"wrong number\" = 0.9 }";

    #[test]
    fn towards_the_prompt_away_from_what_is_seen() {
        let rule = rule(RULE).unwrap();
        let edit = |critique: &Critique| rule.edit("a red circle", critique);
        for (wrong, strength) in [
            (&["ugly"][..], 0.4),
            (&["wrong colour"], 0.7),
            (&["ugly", "Wrong number"], 0.9),
            (&["ugly", "wrong colour"], 0.7),
            (&[], 0.7),
        ] {
            let expected =
                Edit { prompt: "a red circle".into(), negative: Some("a blue circle".into()), strength };
            assert_eq!(edit(&critique("a blue circle", wrong, "do")), Some(expected), "{wrong:?}");
        }
        // Away from the prompt itself would be no guidance at all.
        for shown in ["", "A red circle."] {
            assert_eq!(edit(&critique(shown, &["ugly"], "do")).unwrap().negative, None, "{shown}");
        }
        assert_eq!(edit(&critique("a blue circle", &["ugly"], "")), None);
    }

    #[test]
    fn the_instruction_may_be_what_is_to_be_shown() {
        let rule =
            rule("prompt = \"{prompt}, {edit}\"\nnegative = \"{wrong}\"\nstrength = { otherwise = 0.5 }")
                .unwrap();
        let edit = rule.edit("a cat", &critique("", &["five legs", "blur"], "four legs")).unwrap();
        assert_eq!(
            (edit.prompt.as_str(), edit.negative.as_deref()),
            ("a cat, four legs", Some("five legs, blur"))
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("prompt = \"{x}\"\nstrength = { otherwise = 0.5 }", "{x}"),
            ("prompt = \"{\"\nstrength = { otherwise = 0.5 }", "brace"),
            ("prompt = \"\"\nstrength = { ugly = 0.5 }", "otherwise"),
            ("prompt = \"\"\nstrength = { otherwise = 0.0 }", "expected more than 0"),
            ("prompt = \"\"\nstrength = { otherwise = 1.0, ugly = 1.5 }", "1.5"),
            ("prompt = \"\"\nstrength = { otherwise = 1.0 }\nx = 1", "x"),
        ] {
            let error = rule(text).err().unwrap_or_default();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
