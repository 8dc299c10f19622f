//! The log of a run: a line of JSON in `metrics.jsonl` for each logged step, evaluation and alarm, and the same numbers as
//! TensorBoard's events.

use crate::checkpoint::at;
use crate::error::Result;
use crate::events::{EVENTS_FILE, EventFile, Scalars};
use crate::history::History;
use crate::plan::Plan;
use crate::run_directory::METRICS_FILE;
use serde::Serialize;
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use votive_model::files;

/// The log, open for appending.
#[derive(Debug)]
pub(crate) struct RunLog {
    path: PathBuf,
    file: File,
    events: EventFile,
    history: History,
}

impl RunLog {
    /// Opens the log of a run directory, without the lines of steps that will be made again.
    pub(crate) fn open(folder: &Path, steps_done: u64, plan: &Plan) -> Result<Self> {
        let path = folder.join(METRICS_FILE);
        let (mut history, mut scalars) = (History::default(), Vec::new());
        if path.exists() {
            let text = fs::read_to_string(&path).map_err(at(&path))?;
            let mut kept = String::new();
            for line in text.lines() {
                // A line that was cut off by a crash is no JSON.
                let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
                if value["step"].as_u64().is_some_and(|step| step <= steps_done) {
                    history.add(&value);
                    scalars.extend(Scalars::of(&value));
                    kept.push_str(line);
                    kept.push('\n');
                }
            }
            files::write_bytes(&path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
        let events = EventFile::open(&folder.join(EVENTS_FILE), &plan.to_toml(), &scalars)?;
        Ok(Self { path, file, events, history })
    }

    /// What the lines so far say.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Appends a line.
    pub(crate) fn write(&mut self, record: &impl Serialize) -> Result<()> {
        let path = &self.path;
        let mut line = serde_json::to_string(record).map_err(|error| at(path)(error.into()))?;
        // Read back rather than remembered, so that a resumed run, which reads its lines too, knows exactly the same.
        let value = serde_json::from_str(&line).map_err(|error| at(path)(error.into()))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(at(path))?;
        if let Some(scalars) = Scalars::of(&value) {
            self.events.add(&scalars)?;
        }
        self.history.add(&value);
        Ok(())
    }
}
