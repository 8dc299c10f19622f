//! The gallery of a run directory: its report if it has one, its training curves, and its samples by checkpoint.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::grid::grid;
use crate::html::Html;
use crate::report::{REPORT_FILE, Report, TrainingPoint};
use crate::samples::read_checkpoints;
use crate::{GalleryError, file, page, summary};

/// Name of a run's log, one JSON object a line.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Writes `index.html` into `run_dir` from what lies there: `report.json`, `metrics.jsonl` and `samples/`, each of
/// which may be missing. Safe beside a run that is still writing. Returns the page's path.
///
/// # Errors
/// None of the three is there, one of them is not valid, or the page cannot be written.
pub fn write_run_gallery(run_dir: &Path) -> Result<PathBuf, GalleryError> {
    let report = run_dir.join(REPORT_FILE).is_file().then(|| Report::read(run_dir)).transpose()?;
    let training = read_training(&run_dir.join(METRICS_FILE))?;
    let samples = grid(&read_checkpoints(run_dir)?);
    if report.is_none() && training.is_empty() && samples.as_str().is_empty() {
        return Err(GalleryError::NothingToShow { dir: run_dir.to_owned() });
    }
    let title =
        report.as_ref().map_or_else(|| format!("Run {}", run_name(run_dir)), |report| report.title.clone());
    let mut body = report.as_ref().map_or_else(|| masthead(&title), page::sections);
    body.append(&curves(&training)).append(&samples);
    page::write(run_dir, &title, &body)
}

fn masthead(title: &str) -> Html {
    let mut html = Html::default();
    html.put("<header class=\"masthead\"><h1>{}</h1></header>\n", &[&title]);
    html
}

fn curves(training: &[TrainingPoint]) -> Html {
    let mut html = Html::default();
    if !training.is_empty() {
        html.put("<section id=\"training\"><h2>Training</h2>\n", &[]);
        html.append(&summary::training(training)).put("</section>\n", &[]);
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
}

/// The logged steps of a run; none if it has no log. A last line without its line break is still being written.
fn read_training(path: &Path) -> Result<Vec<TrainingPoint>, GalleryError> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = file::read_text(path)?;
    let finished = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut points = Vec::new();
    for (idx, line) in finished.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let line: MetricsLine = serde_json::from_str(line).map_err(|source| GalleryError::LogLine {
            path: path.to_owned(),
            line: idx + 1,
            source,
        })?;
        // A line without a loss logs something else, such as an evaluation.
        if let Some(loss) = line.loss {
            points.push(TrainingPoint {
                step: line.step,
                loss,
                margin: line.margins,
                accuracy: line.accuracies,
            });
        }
    }
    Ok(points)
}
