//! Results on stdout, remarks on stderr.

use crate::cli::{Code, Failure, Outcome, Progress};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, Write};

/// Where results and remarks go, as `--json` and `--quiet` say.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether results are to be JSON.
    pub(crate) fn wants_json(&self) -> bool {
        self.json
    }

    /// Writes a line of the result.
    ///
    /// # Errors
    /// If stdout cannot be written; a reader that has left ends the command without a message.
    pub(crate) fn line(&self, text: impl Display) -> Outcome {
        write(format_args!("{text}\n"))
    }

    /// Writes a part of the result that is no whole line yet.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(crate) fn piece(&self, text: &str) -> Outcome {
        if text.is_empty() { Ok(()) } else { write(format_args!("{text}")) }
    }

    /// Writes a result as JSON on one line.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(crate) fn json(&self, value: &impl Serialize) -> Outcome {
        let text = serde_json::to_string(value).map_err(|error| {
            Failure::new(Code::Numbers, format!("the result cannot be written as JSON: {error}"))
        })?;
        self.line(text)
    }

    /// Says on stderr what is being done, unless told to be quiet.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            remark(format_args!("{text}"));
        }
    }

    /// Warns on stderr.
    pub(crate) fn warn(&self, text: impl Display) {
        remark(format_args!("warning: {text}"));
    }

    /// Shows on stderr how far work has come: `what` is done to `total` of `unit`.
    pub(crate) fn progress(&self, what: &'static str, unit: &'static str, total: u64) -> Progress {
        Progress::new(what, unit, total, self.quiet)
    }
}

fn write(text: std::fmt::Arguments) -> Outcome {
    let mut stdout = io::stdout().lock();
    stdout.write_fmt(text).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Code::ReaderLeft, "the reader of stdout has left"),
        _ => Failure::resources(format!("cannot write to stdout: {error}")),
    })
}

/// A line on stderr; if nobody can read it, the work goes on.
pub(super) fn remark(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
