//! Samples that a run draws at its checkpoints: `samples/step-000100/samples.json` and the images beside it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::report::check_image_path;
use crate::{GalleryError, file};

/// Folder of all samples in a run directory.
pub const SAMPLES_DIR: &str = "samples";
/// Name of the list of samples in a checkpoint's folder.
pub const SAMPLES_FILE: &str = "samples.json";

/// One output of the model at a checkpoint; [`SAMPLES_FILE`] is an array of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The prompt; untrusted text. Prompt and seed together make a column of the grid.
    pub prompt: String,
    /// Seed of the output.
    pub seed: u64,
    /// Image, as a path relative to the checkpoint's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Completion; untrusted text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Whether the exact checker is content, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
}

/// The samples of one checkpoint: a row of the grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Optimizer step; 0 is the model before training.
    pub step: u64,
    /// Its samples, with images relative to the run directory.
    pub samples: Vec<Sample>,
}

/// The folder for the samples of `step`: `run_dir/samples/step-000100`.
#[must_use]
pub fn step_folder(run_dir: &Path, step: u64) -> PathBuf {
    run_dir.join(SAMPLES_DIR).join(step_name(step))
}

/// Writes the list of samples for `step`, atomically, and returns its path.
///
/// Write the images first: a folder without its list is taken for one that is still being written.
///
/// # Errors
/// An image path leaves the checkpoint's folder, or the file cannot be written.
pub fn write_samples(run_dir: &Path, step: u64, samples: &[Sample]) -> Result<PathBuf, GalleryError> {
    check_images(samples, step)?;
    let path = step_folder(run_dir, step).join(SAMPLES_FILE);
    let mut bytes = serde_json::to_vec_pretty(samples)
        .map_err(|source| GalleryError::Json { path: path.clone(), source })?;
    bytes.push(b'\n');
    file::write_atomically(&path, &bytes)?;
    Ok(path)
}

/// Reads the samples of every checkpoint of a run, in order of step; none if the run drew none.
///
/// Folders with other names than `step-<digits>` are not ours and are passed over, as are checkpoints without a list.
///
/// # Errors
/// A folder or list cannot be read, a list is not valid, or an image path leaves its folder.
pub fn read_checkpoints(run_dir: &Path) -> Result<Vec<Checkpoint>, GalleryError> {
    let dir = run_dir.join(SAMPLES_DIR);
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |source| GalleryError::Io { action: "read", path: dir.clone(), source };
    let mut checkpoints = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let list = dir.join(&name).join(SAMPLES_FILE);
        if let Some((name, step)) = name.to_str().and_then(|name| Some((name, parse_step(name)?)))
            && list.is_file()
        {
            let samples: Vec<Sample> = file::read_json(&list)?;
            check_images(&samples, step)?;
            checkpoints.push(Checkpoint { step, samples: relative_to_run(samples, name) });
        }
    }
    checkpoints.sort_by_key(|checkpoint| checkpoint.step);
    Ok(checkpoints)
}

fn step_name(step: u64) -> String {
    format!("step-{step:06}")
}

fn parse_step(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("step-")?;
    // `parse` alone would also take a plus sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn relative_to_run(mut samples: Vec<Sample>, step_name: &str) -> Vec<Sample> {
    for image in samples.iter_mut().filter_map(|sample| sample.image.as_mut()) {
        *image = format!("{SAMPLES_DIR}/{step_name}/{image}");
    }
    samples
}

fn check_images(samples: &[Sample], step: u64) -> Result<(), GalleryError> {
    for (idx, sample) in samples.iter().enumerate() {
        if let Some(image) = &sample.image {
            let field = || format!("{SAMPLES_DIR}/{}/{SAMPLES_FILE}[{idx}].image", step_name(step));
            check_image_path(image, field)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_make_a_step() {
        assert_eq!(parse_step("step-000120"), Some(120));
        for other in ["step-", "step-+12", "step-12.tmp", "last"] {
            assert_eq!(parse_step(other), None, "{other}");
        }
    }
}
