//! The gallery of a run directory: its report if it has one, its alarms and curves, and its samples by checkpoint.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::grid::grid;
use crate::html::Html;
use crate::report::{REPORT_FILE, Report, TrainingPoint};
use crate::samples::{Checkpoint, read_checkpoints};
use crate::{GalleryError, file, page, summary};

/// Name of the log of a run's steps, one JSON object a line.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Names of the logs of evaluations and of alarms, of the same form.
pub const OTHER_LOGS: [&str; 2] = ["evaluations.jsonl", "alarms.jsonl"];

/// Writes `index.html` into `run_dir` from what lies there: `report.json`, `metrics.jsonl` and `samples/`, each of
/// which may be missing. Safe beside a run that is still writing. Returns the page's path.
///
/// # Errors
/// None of the three is there, one of them is not valid, or the page cannot be written.
pub fn write_run_gallery(run_dir: &Path) -> Result<PathBuf, GalleryError> {
    let record = RunRecord::read(run_dir)?;
    if record.is_empty() {
        return Err(GalleryError::NothingToShow { dir: run_dir.to_owned() });
    }
    let title = record.title().map_or_else(|| format!("Run {}", run_name(run_dir)), str::to_owned);
    page::write(run_dir, &title, &record.sections(&title))
}

/// What a run directory has to show, as far as it is written.
#[derive(Default)]
pub struct RunRecord {
    report: Option<Report>,
    log: Log,
    checkpoints: Vec<Checkpoint>,
}

impl RunRecord {
    /// Reads what lies there: `report.json`, the logs and `samples/`, each of which may be missing. Safe beside a run that is
    /// still writing.
    ///
    /// # Errors
    /// If one of them is not valid.
    pub fn read(run_dir: &Path) -> Result<Self, GalleryError> {
        let report = report(run_dir)?;
        let mut log = Log::default();
        for name in [METRICS_FILE].iter().chain(&OTHER_LOGS) {
            log.read(&run_dir.join(name))?;
        }
        Ok(Self { report, log, checkpoints: read_checkpoints(run_dir)? })
    }

    /// Whether there is nothing to show.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let has_samples = self.checkpoints.iter().any(|checkpoint| !checkpoint.samples.is_empty());
        self.report.is_none() && self.log.training.is_empty() && !has_samples
    }

    /// The report's heading; untrusted text.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.report.as_ref().map(|report| report.title.as_str())
    }

    /// The last step that was logged, if one was.
    #[must_use]
    pub fn last(&self) -> Option<&TrainingPoint> {
        self.log.training.last()
    }

    /// How many alarms were raised.
    #[must_use]
    pub fn alarms(&self) -> usize {
        self.log.alarms.len()
    }

    /// Everything that the page of a run says, from its heading on; `title` is for a run without a report.
    #[must_use]
    pub fn sections(&self, title: &str) -> Html {
        let mut body = self.report.as_ref().map_or_else(|| masthead(title), page::sections);
        body.append(&alarms(&self.log.alarms)).append(&curves(&self.log)).append(&grid(&self.checkpoints));
        body
    }
}

/// The images that the sections of a run link to, relative to its directory. The logs are not read.
///
/// # Errors
/// If the report or a list of samples is not valid.
pub fn linked_images(run_dir: &Path) -> Result<BTreeSet<String>, GalleryError> {
    let samples = read_checkpoints(run_dir)?.into_iter().flat_map(|checkpoint| checkpoint.samples);
    let mut images: BTreeSet<String> = samples.filter_map(|sample| sample.image).collect();
    for (_, modality) in report(run_dir)?.iter().flat_map(Report::modalities) {
        let sides = modality.entries.iter().flat_map(|entry| [&entry.before, &entry.after]);
        images.extend(sides.filter_map(|side| side.image.clone()));
    }
    Ok(images)
}

fn report(run_dir: &Path) -> Result<Option<Report>, GalleryError> {
    run_dir.join(REPORT_FILE).is_file().then(|| Report::read(run_dir)).transpose()
}

fn masthead(title: &str) -> Html {
    let mut html = Html::default();
    html.put("<header class=\"masthead\"><h1>{}</h1></header>\n", &[&title]);
    html
}

fn alarms(alarms: &[Alarm]) -> Html {
    let mut html = Html::default();
    if !alarms.is_empty() {
        html.put("<section id=\"alarms\"><h2>Alarms</h2>\n<ul>", &[]);
        for Alarm { step, id, message } in alarms {
            html.put("<li><b>Step {}:</b> {} <span class=\"quiet\">({})</span></li>\n", &[step, message, id]);
        }
        html.put("</ul></section>\n", &[]);
    }
    html
}

fn curves(log: &Log) -> Html {
    let mut html = Html::default();
    if !log.training.is_empty() {
        html.put("<section id=\"training\"><h2>Training</h2>\n", &[]);
        html.append(&summary::training(&log.training));
        if !log.held_out.is_empty() {
            html.put("<h3>On held-out rows</h3>\n", &[]);
            html.append(&summary::training(&log.held_out));
        }
        html.put("</section>\n", &[]);
    }
    html
}

/// The folder's own name, also for `.` and the like.
fn run_name(run_dir: &Path) -> String {
    let full = run_dir.canonicalize().unwrap_or_else(|_| run_dir.to_owned());
    full.file_name().unwrap_or(full.as_os_str()).to_string_lossy().into_owned()
}

/// The keys of a log line that are drawn; a line may have others, and may lack all but the first two.
#[derive(Deserialize)]
struct MetricsLine {
    step: u64,
    loss: Option<f64>,
    #[serde(rename = "rewards/margins")]
    margins: Option<f64>,
    #[serde(rename = "rewards/accuracies")]
    accuracies: Option<f64>,
    eval_loss: Option<f64>,
    #[serde(rename = "eval_rewards/margins")]
    eval_margins: Option<f64>,
    #[serde(rename = "eval_rewards/accuracies")]
    eval_accuracies: Option<f64>,
    alarm: Option<String>,
    #[serde(default)]
    message: String,
}

/// An alarm that the run raised.
struct Alarm {
    step: u64,
    id: String,
    message: String,
}

/// What a log says: nothing if there is none.
#[derive(Default)]
struct Log {
    training: Vec<TrainingPoint>,
    held_out: Vec<TrainingPoint>,
    alarms: Vec<Alarm>,
}

impl Log {
    /// Adds the lines of a file, if it is there. A last line without its line break is still being written.
    fn read(&mut self, path: &Path) -> Result<(), GalleryError> {
        if !path.is_file() {
            return Ok(());
        }
        let text = file::read_text(path)?;
        let finished = text.rfind('\n').map_or("", |end| &text[..end]);
        for (idx, line) in finished.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let line = serde_json::from_str(line).map_err(|source| GalleryError::LogLine {
                path: path.to_owned(),
                line: idx + 1,
                source,
            })?;
            self.add(line);
        }
        Ok(())
    }

    fn add(&mut self, line: MetricsLine) {
        let step = line.step;
        // A line without a loss logs something else.
        if let Some(loss) = line.loss {
            self.training.push(TrainingPoint { step, loss, margin: line.margins, accuracy: line.accuracies });
        }
        if let Some(loss) = line.eval_loss {
            let (margin, accuracy) = (line.eval_margins, line.eval_accuracies);
            self.held_out.push(TrainingPoint { step, loss, margin, accuracy });
        }
        if let Some(id) = line.alarm {
            self.alarms.push(Alarm { step, id, message: line.message });
        }
    }
}
