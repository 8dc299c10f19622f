//! Progress on stderr: a bar on a terminal, a line every few seconds elsewhere.

use crate::cli::output::remark;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Display;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far a piece of work has come, with its rate and the time left.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Nothing is to be shown.
    Hidden,
    /// A bar that is drawn again and again.
    Bar(ProgressBar),
    /// Lines that stay.
    Lines(Mutex<Lines>),
}

impl Progress {
    pub(super) fn new(what: &'static str, unit: &'static str, total: u64, quiet: bool) -> Self {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Self::Hidden,
            (false, true) => Self::Bar(bar(what, unit, total)),
            (false, false) => Self::Lines(Mutex::new(Lines::new(what, unit, total, Instant::now()))),
        }
    }

    /// `done` units were done before this run, and say nothing about its rate.
    pub(crate) fn starting_at(self, done: u64) -> Self {
        match &self {
            Self::Hidden => {}
            Self::Bar(bar) => {
                bar.set_position(done);
                bar.reset_eta();
            }
            Self::Lines(lines) => {
                let mut lines = locked(lines);
                (lines.before, lines.done) = (done, done);
            }
        }
        self
    }

    /// `done` units are done.
    pub(crate) fn set(&self, done: u64) {
        match self {
            Self::Hidden => {}
            Self::Bar(bar) => bar.set_position(done),
            Self::Lines(lines) => locked(lines).set(done, Instant::now()).into_iter().for_each(remark),
        }
    }

    /// `more` units are done.
    pub(crate) fn add(&self, more: u64) {
        match self {
            Self::Hidden => {}
            Self::Bar(bar) => bar.inc(more),
            Self::Lines(lines) => {
                let mut lines = locked(lines);
                let done = lines.done + more;
                lines.set(done, Instant::now()).into_iter().for_each(remark);
            }
        }
    }

    /// The latest figures of the work itself, such as its loss.
    pub(crate) fn detail(&self, text: impl Display) {
        match self {
            Self::Hidden => {}
            Self::Bar(bar) => bar.set_message(text.to_string()),
            Self::Lines(lines) => locked(lines).detail = text.to_string(),
        }
    }

    /// Lets something else write to the terminal without tearing the bar.
    pub(crate) fn pause<T>(&self, write: impl FnOnce() -> T) -> T {
        match self {
            Self::Bar(bar) => bar.suspend(write),
            Self::Hidden | Self::Lines(_) => write(),
        }
    }

    /// Ends the progress: a bar disappears, lines end with the time taken.
    pub(crate) fn finish(self) {
        match self {
            Self::Hidden => {}
            Self::Bar(bar) => bar.finish_and_clear(),
            Self::Lines(lines) => remark(locked(&lines).last(Instant::now())),
        }
    }
}

/// A counter is as good after a panic elsewhere as before.
fn locked(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bar(what: &'static str, unit: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = format!("{what} {{wide_bar}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left {{msg}}");
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Progress as lines of text.
#[derive(Debug)]
pub(crate) struct Lines {
    what: &'static str,
    unit: &'static str,
    total: u64,
    started: Instant,
    before: u64,
    done: u64,
    written: Instant,
    detail: String,
}

impl Lines {
    fn new(what: &'static str, unit: &'static str, total: u64, now: Instant) -> Self {
        Self { what, unit, total, started: now, before: 0, done: 0, written: now, detail: String::new() }
    }

    /// Notes the state; a line if it is time for one.
    fn set(&mut self, done: u64, now: Instant) -> Option<String> {
        self.done = done;
        if now.duration_since(self.written) < LINE_EVERY || done >= self.total {
            return None;
        }
        self.written = now;
        let rate = self.rate(now);
        let left = (self.total - done) as f64 / rate;
        let eta = if rate > 0.0 { format!(", {} left", duration(left)) } else { String::new() };
        Some(format!(
            "{}: {done}/{} {}, {rate:.3} a second{eta}{}",
            self.what,
            self.total,
            self.unit,
            self.tail()
        ))
    }

    fn last(&self, now: Instant) -> String {
        let taken = duration(now.duration_since(self.started).as_secs_f64());
        format!("{}: {} {} in {taken}{}", self.what, self.done, self.unit, self.tail())
    }

    fn rate(&self, now: Instant) -> f64 {
        let seconds = now.duration_since(self.started).as_secs_f64().max(1e-3);
        self.done.saturating_sub(self.before) as f64 / seconds
    }

    fn tail(&self) -> String {
        if self.detail.is_empty() { String::new() } else { format!(", {}", self.detail) }
    }
}

/// Seconds as a person says them.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_every_few_seconds_with_rate_and_time_left() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut lines = Lines::new("sampling", "steps", 100, start);
        assert_eq!(lines.set(1, after(1)), None);
        assert_eq!(
            lines.set(20, after(10)).as_deref(),
            Some("sampling: 20/100 steps, 2.000 a second, 40 s left")
        );
        lines.detail = "loss 0.5".to_owned();
        assert_eq!(lines.set(21, after(11)), None);
        assert_eq!(lines.set(100, after(60)), None, "the last line tells the end");
        assert_eq!(lines.last(after(60)), "sampling: 100 steps in 1 min 00 s, loss 0.5");
    }

    #[test]
    fn what_was_done_before_is_no_speed() {
        let start = Instant::now();
        let mut lines = Lines::new("training", "steps", 100, start);
        lines.before = 50;
        let line = lines.set(60, start + Duration::from_secs(10));
        assert_eq!(line.as_deref(), Some("training: 60/100 steps, 1.000 a second, 40 s left"));
    }

    #[test]
    fn durations_are_said_in_two_units_at_most() {
        assert_eq!(duration(0.25), "0.2 s");
        assert_eq!(duration(59.6), "1 min 00 s");
        assert_eq!(duration(3725.0), "1 h 02 min");
    }
}
