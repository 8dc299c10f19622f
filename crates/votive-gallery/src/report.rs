//! The report: what `report.json` holds.
//!
//! Scores are points of 100 by the exact checker; a gain is aligned − base in the same points, and its interval is
//! the 95 % interval over held-out prompts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{GalleryError, file};

/// The version of the report that this crate writes and reads.
pub const SCHEMA_VERSION: u32 = 1;
/// Name of the report's file.
pub const REPORT_FILE: &str = "report.json";

/// Named settings, shown as they are.
pub type Settings = BTreeMap<String, serde_json::Value>;

/// A base model against its aligned version, for one or both modalities.
///
/// Fields that a reader does not know are ignored; a change of meaning raises [`SCHEMA_VERSION`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// Heading of the page.
    pub title: String,
    /// The command line that makes this report again.
    pub command: String,
    /// Seed of the whole run.
    pub seed: u64,
    /// When the report was made, in the caller's words; nothing here reads a clock.
    pub created: String,
    /// The objective as it stands in the recipe, such as `[objective.dpo] beta = 0.1`; empty if there is none.
    #[serde(default)]
    pub objective: String,
    /// What else a reader needs to judge the run: device, threads, wall time.
    #[serde(default)]
    pub settings: Settings,
    /// The image model.
    #[serde(default)]
    pub image: Option<ModalityReport>,
    /// The language model.
    #[serde(default)]
    pub text: Option<ModalityReport>,
}

/// One modality: the headline, what lies behind it, and every compared prompt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModalityReport {
    /// Score of the base model, points of 100.
    pub base: f64,
    /// Score of the aligned model, points of 100.
    pub aligned: f64,
    /// `aligned − base`, points.
    pub gain: f64,
    /// Lower end of the gain's 95 % interval over prompts, points.
    pub gain_low: f64,
    /// Upper end of the gain's 95 % interval over prompts, points.
    pub gain_high: f64,
    /// Held-out prompts behind the headline.
    pub n_prompts: usize,
    /// How the outputs were drawn: sampler, steps and guidance, or temperature and length.
    #[serde(default)]
    pub settings: Settings,
    /// The same scores by kind of prompt.
    #[serde(default)]
    pub categories: Vec<CategoryScore>,
    /// What did not improve, one plain sentence each.
    #[serde(default)]
    pub not_improved: Vec<String>,
    /// Measures beside the exact score, such as ugliness or mean length.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// The preference labels that the model was trained on.
    #[serde(default)]
    pub labels: Option<Labels>,
    /// What the labeller and the exact checker say of the model after each round of labelling and training.
    #[serde(default)]
    pub rounds: Vec<Round>,
    /// Training curves, in order of step.
    #[serde(default)]
    pub training: Vec<TrainingPoint>,
    /// Compared prompts, in the order in which they are shown.
    #[serde(default)]
    pub entries: Vec<Entry>,
}

/// The headline's numbers for one kind of prompt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CategoryScore {
    /// The category, as the entries name it.
    pub name: String,
    /// Prompts in it.
    pub n: usize,
    /// Score of the base model, points of 100.
    pub base: f64,
    /// Score of the aligned model, points of 100.
    pub aligned: f64,
    /// `aligned − base`, points.
    pub gain: f64,
    /// Lower end of the 95 % interval, points.
    pub gain_low: f64,
    /// Upper end of the 95 % interval, points.
    pub gain_high: f64,
}

/// A measure of both models in its own unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What is measured, with its unit: `mean length (tokens)`.
    pub name: String,
    /// Value for the base model.
    pub base: f64,
    /// Value for the aligned model.
    pub aligned: f64,
    /// Which way is good; `None` where neither is.
    #[serde(default)]
    pub better: Option<Direction>,
}

/// The direction in which a measure improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// Where the preferences came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Labels {
    /// Who labelled, such as `exact checker`.
    pub source: String,
    /// Preference pairs.
    pub pairs: usize,
    /// Share of the pairs whose label was flipped on purpose, 0 to 1.
    pub flipped: f64,
}

/// One round of labelling and training. Wins are those of the model after the round against the base model, with the same held-out
/// prompts and seeds, ties counted half, in points of 100: a labeller whose wins run away from the true ones is being gamed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Preference pairs of the round.
    pub pairs: usize,
    /// Share of the labels whose chosen sample is truly the better one, points of 100.
    pub labels_right: f64,
    /// Score of the model after the round by the exact checker, points of 100.
    pub exact: f64,
    /// Wins by the labeller.
    pub labeller_wins: f64,
    /// Wins by the exact checker.
    pub true_wins: f64,
    /// `labeller_wins − true_wins`
    pub gap: f64,
    /// Lower end of the gap's 95 % interval over prompts.
    pub gap_low: f64,
    /// Upper end of the gap's 95 % interval over prompts.
    pub gap_high: f64,
}

/// One logged optimizer step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingPoint {
    /// Optimizer step, counted from 0.
    pub step: u64,
    /// Mean loss of the batch.
    pub loss: f64,
    /// Mean difference of implicit rewards, chosen − rejected, where the objective has one.
    #[serde(default)]
    pub margin: Option<f64>,
    /// Share of pairs whose chosen reward is the higher, 0 to 1, where the objective has one.
    #[serde(default)]
    pub accuracy: Option<f64>,
}

/// One prompt, answered by both models from the same seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The prompt; untrusted text.
    pub prompt: String,
    /// Seed of both outputs.
    pub seed: u64,
    /// Kind of prompt; empty if there is none.
    #[serde(default)]
    pub category: String,
    /// The base model's output.
    pub before: Side,
    /// The aligned model's output.
    pub after: Side,
    /// After against before.
    pub verdict: Verdict,
}

/// One model's output for a prompt, with what the exact checker says about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Image, as a path relative to the gallery with `/` between its parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Completion; untrusted text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Whether everything that the prompt asks for is met.
    pub exact: bool,
    /// What the prompt asks for, one by one.
    #[serde(default)]
    pub parts: Vec<Part>,
    /// Score of this output, 0 to 1.
    pub score: f64,
}

/// One thing that a prompt asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The demand, in a word or two: `colour`, `ends with a full stop`.
    pub name: String,
    /// Whether the output meets it.
    pub met: bool,
}

/// After against before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The aligned output is better.
    Better,
    /// Neither is better.
    Same,
    /// The aligned output is worse.
    Worse,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            title: String::new(),
            command: String::new(),
            seed: 0,
            created: String::new(),
            objective: String::new(),
            settings: Settings::new(),
            image: None,
            text: None,
        }
    }
}

impl Report {
    /// Reads [`REPORT_FILE`] in `dir` and checks it.
    ///
    /// # Errors
    /// The file cannot be read, is not a report, has another schema version, or fails the checks of [`Report::write`].
    pub fn read(dir: &Path) -> Result<Self, GalleryError> {
        /// The version alone is read first, so that an unknown layout gives the right message.
        #[derive(Deserialize)]
        struct Version {
            schema_version: u32,
        }
        let path = dir.join(REPORT_FILE);
        let found = file::read_json::<Version>(&path)?.schema_version;
        if found != SCHEMA_VERSION {
            return Err(GalleryError::SchemaVersion { path, found, expected: SCHEMA_VERSION });
        }
        let report: Self = file::read_json(&path)?;
        report.check()?;
        Ok(report)
    }

    /// Writes [`REPORT_FILE`] into `dir`, atomically, and returns its path.
    ///
    /// # Errors
    /// A number is not finite, an image path leaves the folder, or the file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<PathBuf, GalleryError> {
        self.check()?;
        let path = dir.join(REPORT_FILE);
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| GalleryError::Json { path: path.clone(), source })?;
        bytes.push(b'\n');
        file::write_atomically(&path, &bytes)?;
        Ok(path)
    }

    /// The modalities that were compared, images first, each with the name that prefixes its entries.
    pub(crate) fn modalities(&self) -> impl Iterator<Item = (&'static str, &ModalityReport)> {
        let image = self.image.as_ref().map(|image| ("image", image));
        let text = self.text.as_ref().map(|text| ("text", text));
        image.into_iter().chain(text)
    }

    /// Refuses numbers that JSON cannot hold and images outside the gallery.
    pub(crate) fn check(&self) -> Result<(), GalleryError> {
        self.modalities().try_for_each(|(name, modality)| modality.check(name))
    }
}

impl ModalityReport {
    /// How many entries have this verdict.
    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.entries.iter().filter(|entry| entry.verdict == verdict).count()
    }

    fn check(&self, name: &str) -> Result<(), GalleryError> {
        let headline = [self.base, self.aligned, self.gain, self.gain_low, self.gain_high];
        check_finite(&headline, || name.to_owned())?;
        for (idx, row) in self.categories.iter().enumerate() {
            let scores = [row.base, row.aligned, row.gain, row.gain_low, row.gain_high];
            check_finite(&scores, || format!("{name}.categories[{idx}]"))?;
        }
        for (idx, metric) in self.metrics.iter().enumerate() {
            check_finite(&[metric.base, metric.aligned], || format!("{name}.metrics[{idx}]"))?;
        }
        for (idx, point) in self.training.iter().enumerate() {
            let values = [point.loss, point.margin.unwrap_or(0.0), point.accuracy.unwrap_or(0.0)];
            check_finite(&values, || format!("{name}.training[{idx}]"))?;
        }
        for (idx, round) in self.rounds.iter().enumerate() {
            let wins = [round.labeller_wins, round.true_wins, round.gap, round.gap_low, round.gap_high];
            check_finite(&wins, || format!("{name}.rounds[{idx}]"))?;
            check_finite(&[round.labels_right, round.exact], || format!("{name}.rounds[{idx}]"))?;
        }
        for (idx, entry) in self.entries.iter().enumerate() {
            entry.before.check(|| format!("{name}.entries[{idx}].before"))?;
            entry.after.check(|| format!("{name}.entries[{idx}].after"))?;
        }
        check_finite(&[self.labels.as_ref().map_or(0.0, |labels| labels.flipped)], || {
            format!("{name}.labels")
        })
    }
}

impl Side {
    fn check(&self, field: impl Fn() -> String) -> Result<(), GalleryError> {
        check_finite(&[self.score], &field)?;
        self.image.as_deref().map_or(Ok(()), |image| check_image_path(image, || format!("{}.image", field())))
    }
}

/// Refuses the first number that is NaN or infinite.
fn check_finite(values: &[f64], field: impl Fn() -> String) -> Result<(), GalleryError> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(&found) => Err(GalleryError::NotFinite { field: field(), found }),
        None => Ok(()),
    }
}

/// Refuses a path that is absolute, climbs, or means different things on different systems.
pub(crate) fn check_image_path(path: &str, field: impl Fn() -> String) -> Result<(), GalleryError> {
    let portable = !path.contains('\\') && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if portable { Ok(()) } else { Err(GalleryError::ImagePath { field: field(), found: path.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_paths_stay_below_the_gallery() {
        for good in ["a.png", "images/before/0001.png", "images/a b.png"] {
            assert!(check_image_path(good, String::new).is_ok(), "{good}");
        }
        for bad in ["", "/etc/passwd", "../a.png", "images//a.png", "./a.png", "images\\a.png", "images/"] {
            assert!(check_image_path(bad, String::new).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_that_json_cannot_hold_is_named() {
        let mut image = ModalityReport::default();
        image.training.push(TrainingPoint { loss: f64::NAN, ..TrainingPoint::default() });
        let report = Report { image: Some(image), ..Report::default() };
        let message = report.check().map_err(|error| error.to_string());
        assert!(message.is_err_and(|message| message.starts_with("image.training[0] is NaN")));
    }
}
