//! The gallery of a run directory: its report if it has one, its alarms and curves, and its samples by checkpoint.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::grid::grid;
use crate::html::Html;
use crate::report::{REPORT_FILE, Report, TrainingPoint};
use crate::samples::read_checkpoints;
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
    let report = run_dir.join(REPORT_FILE).is_file().then(|| Report::read(run_dir)).transpose()?;
    let mut log = Log::default();
    for name in [METRICS_FILE].iter().chain(&OTHER_LOGS) {
        log.read(&run_dir.join(name))?;
    }
    let samples = grid(&read_checkpoints(run_dir)?);
    if report.is_none() && log.training.is_empty() && samples.as_str().is_empty() {
        return Err(GalleryError::NothingToShow { dir: run_dir.to_owned() });
    }
    let title =
        report.as_ref().map_or_else(|| format!("Run {}", run_name(run_dir)), |report| report.title.clone());
    let mut body = report.as_ref().map_or_else(|| masthead(&title), page::sections);
    body.append(&alarms(&log.alarms)).append(&curves(&log)).append(&samples);
    page::write(run_dir, &title, &body)
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
