//! What a line of a chat says: a turn, or a command.

use crate::cli::{Failure, Outcome};
use std::path::PathBuf;

/// The commands, for people.
pub(super) const HELP: &str = "Commands within a chat, each a line of its own:
  /reset      forget all turns
  /undo       take back the last turn and its answer
  /seed N     draw with another seed from now on
  /save FILE  write the conversation as JSON
  /help       show this
  /quit       end; so does the end of the input
A turn that starts with a slash is written with two.";

/// A line of input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// An empty line.
    Nothing,
    /// What the user says.
    Turn(&'a str),
    /// What is to be done.
    Command(Command),
}

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Reset,
    Undo,
    Seed(u64),
    Save(PathBuf),
    Help,
    Quit,
}

/// Reads a line.
///
/// # Errors
/// If it starts with a slash and is no command, or a command lacks its argument or has one too many.
pub(super) fn parse(line: &str) -> Outcome<Line<'_>> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(Line::Nothing);
    }
    let Some(rest) = line.strip_prefix('/') else { return Ok(Line::Turn(line)) };
    if rest.starts_with('/') {
        return Ok(Line::Turn(rest));
    }
    let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let argument = argument.trim();
    let command = match (name, argument) {
        ("reset", "") => Command::Reset,
        ("undo", "") => Command::Undo,
        ("help", "") => Command::Help,
        ("quit" | "exit", "") => Command::Quit,
        ("seed", seed) => Command::Seed(
            seed.parse()
                .map_err(|_| Failure::usage(format!("/seed: expected a whole number, found `{seed}`")))?,
        ),
        ("save", "") => return Err(Failure::usage("/save: expected the name of a file")),
        ("save", file) => Command::Save(file.into()),
        ("reset" | "undo" | "help" | "quit" | "exit", more) => {
            return Err(Failure::usage(format!("/{name} takes nothing, found `{more}`")));
        }
        _ => {
            return Err(Failure::usage(format!("/{name} is no command; /help lists them, // starts a turn")));
        }
    };
    Ok(Line::Command(command))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn turns_and_commands() {
        assert_eq!(parse("  ").unwrap(), Line::Nothing);
        assert_eq!(parse(" Hello / there ").unwrap(), Line::Turn("Hello / there"));
        assert_eq!(parse("//etc is a folder").unwrap(), Line::Turn("/etc is a folder"));
        assert_eq!(parse("/seed 7").unwrap(), Line::Command(Command::Seed(7)));
        assert_eq!(parse("/save my file.json").unwrap(), Line::Command(Command::Save("my file.json".into())));
        assert_eq!(parse("/exit").unwrap(), Line::Command(Command::Quit));
        for wrong in ["/seed", "/seed x", "/save", "/reset now", "/etc"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
