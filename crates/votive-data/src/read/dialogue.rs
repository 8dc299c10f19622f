//! Dialogues written as one string, in the manner of Anthropic's HH-RLHF: "\n\nHuman: …\n\nAssistant: …".

use crate::record::Message;

/// How a turn begins, and whose it is.
const MARKS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];

/// A turn of a dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn<'a> {
    /// `user` or `assistant`.
    pub(super) role: &'static str,
    /// The turn as it stands, with its mark.
    pub(super) text: &'a str,
    /// Length of the mark in bytes.
    pub(super) mark: usize,
}

impl<'a> Turn<'a> {
    /// What is said.
    pub(super) fn said(&self) -> &'a str {
        &self.text[self.mark..]
    }

    /// The turn as a message, without the white space around it.
    pub(super) fn message(&self) -> Message {
        Message::new(self.role, self.said().trim())
    }
}

/// Whether a text is such a dialogue.
pub(super) fn is_dialogue(text: &str) -> bool {
    MARKS.iter().any(|(mark, _)| text.starts_with(mark))
}

/// The turns of a dialogue; put together again they are the text. Nothing if it begins with no mark.
pub(super) fn turns(text: &str) -> Option<Vec<Turn<'_>>> {
    let mut starts: Vec<_> = MARKS
        .iter()
        .flat_map(|(mark, role)| text.match_indices(mark).map(|(at, mark)| (at, mark.len(), *role)))
        .collect();
    starts.sort_unstable();
    if starts.first().is_none_or(|(at, ..)| *at != 0) {
        return None;
    }
    let ends = starts.iter().skip(1).map(|(at, ..)| *at).chain([text.len()]);
    let turn = |((at, mark, role), end): (&(usize, usize, &'static str), usize)| Turn {
        role,
        text: &text[*at..end],
        mark: *mark,
    };
    Some(starts.iter().zip(ends).map(turn).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_dialogue_is_cut_at_its_marks() {
        let text = "\n\nHuman: Hi, Human: you?\n\nAssistant: Yes.\n\nWell.\n\nHuman:";
        let turns = turns(text).unwrap();
        assert_eq!(turns.iter().map(|turn| turn.text).collect::<String>(), text);
        let said: Vec<_> = turns.iter().map(|turn| (turn.role, turn.said())).collect();
        assert_eq!(said, [("user", " Hi, Human: you?"), ("assistant", " Yes.\n\nWell."), ("user", "")]);
        assert_eq!(turns[1].message(), Message::new("assistant", "Yes.\n\nWell."));
    }

    #[test]
    fn other_text_is_no_dialogue() {
        assert_eq!(turns("Human: Hi"), None);
        assert_eq!(turns("So:\n\nHuman: Hi"), None);
        assert!(!is_dialogue("") && is_dialogue("\n\nAssistant: Hi"));
    }
}
