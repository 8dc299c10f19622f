//! The log of a run: a line of JSON for each logged step in `metrics.jsonl`, for each evaluation in `evaluations.jsonl` and
//! for each alarm in `alarms.jsonl`, and all numbers as TensorBoard's events.

use crate::checkpoint::at;
use crate::error::Result;
use crate::events::{EVENTS_FILE, EventFile, Scalars};
use crate::history::History;
use crate::plan::Plan;
use crate::run_directory::METRICS_FILE;
use serde::Serialize;
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use votive_model::files;

/// One line for each evaluation of held-out rows.
pub const EVALUATIONS_FILE: &str = "evaluations.jsonl";
/// One line for each alarm.
pub const ALARMS_FILE: &str = "alarms.jsonl";

/// What a line is about; those of a step are written in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    Step,
    Evaluation,
    Alarm,
}

impl Entry {
    const ALL: [Self; 3] = [Self::Step, Self::Evaluation, Self::Alarm];

    /// The file of such lines.
    fn file(self) -> &'static str {
        match self {
            Self::Step => METRICS_FILE,
            Self::Evaluation => EVALUATIONS_FILE,
            Self::Alarm => ALARMS_FILE,
        }
    }
}

/// The log, open for appending.
#[derive(Debug)]
pub(crate) struct RunLog {
    folder: PathBuf,
    events: EventFile,
    history: History,
}

impl RunLog {
    /// Opens the log of a run directory, without the lines of steps that will be made again.
    pub(crate) fn open(folder: &Path, steps_done: u64, plan: &Plan) -> Result<Self> {
        let mut lines = Vec::new();
        for entry in Entry::ALL {
            lines.extend(cut(&folder.join(entry.file()), steps_done)?);
        }
        // Stable: what was written of a step keeps its order.
        lines.sort_by_key(|(step, _)| *step);
        let mut history = History::default();
        lines.iter().for_each(|(_, line)| history.add(line));
        let scalars: Vec<Scalars> = lines.iter().filter_map(|(_, line)| Scalars::of(line)).collect();
        let events = EventFile::open(&folder.join(EVENTS_FILE), &plan.to_toml(), &scalars)?;
        let log = Self { folder: folder.to_owned(), events, history };
        // A reader finds the file from the start on.
        log.append(Entry::Step, "")?;
        Ok(log)
    }

    /// What the lines so far say.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Appends a line.
    pub(crate) fn write(&mut self, entry: Entry, record: &impl Serialize) -> Result<()> {
        let path = self.folder.join(entry.file());
        let line = serde_json::to_string(record).map_err(|error| at(&path)(error.into()))?;
        // Read back rather than remembered, so that a resumed run, which reads its lines too, knows exactly the same.
        let value = serde_json::from_str(&line).map_err(|error| at(&path)(error.into()))?;
        self.append(entry, &format!("{line}\n"))?;
        if let Some(scalars) = Scalars::of(&value) {
            self.events.add(&scalars)?;
        }
        self.history.add(&value);
        Ok(())
    }

    fn append(&self, entry: Entry, text: &str) -> Result<()> {
        let path = self.folder.join(entry.file());
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(at(&path))
    }
}

/// Takes the lines of steps after `steps_done` out of a file, and gives the others with their steps.
fn cut(path: &Path, steps_done: u64) -> Result<Vec<(u64, Value)>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path).map_err(at(path))?;
    let (mut kept, mut lines) = (String::new(), Vec::new());
    for line in text.lines() {
        // A line that was cut off by a crash is no JSON.
        let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
        if let Some(step) = value["step"].as_u64().filter(|step| *step <= steps_done) {
            kept.push_str(line);
            kept.push('\n');
            lines.push((step, value));
        }
    }
    files::write_bytes(path, kept.as_bytes())?;
    Ok(lines)
}
