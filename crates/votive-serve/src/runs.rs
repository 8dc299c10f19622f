//! Training runs and galleries below given folders: which there are, and what a request may see of them.
//!
//! A request names a run by an id, which is a hash of where the run lies, and a file of it by its path in the run. Both are looked up
//! among what is found below the folders; what is opened is always a path that was found, and never one that was asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use votive_critic::Picture;
use votive_gallery::{METRICS_FILE, REPORT_FILE, RunRecord, SAMPLES_DIR, linked_images};

use crate::problem::Problem;

/// Files of a run directory, as `votive train` writes it.
const PLAN_FILE: &str = "plan.toml";
const LOCK_FILE: &str = "run.lock";
const FINAL: &str = "final";
/// Folders of a run in which there are no other runs.
const INNER: [&str; 3] = [SAMPLES_DIR, "checkpoints", FINAL];
/// What makes a folder one that can be shown.
const MARKS: [&str; 3] = [PLAN_FILE, METRICS_FILE, REPORT_FILE];
/// How far below a given folder runs are looked for.
const DEEPEST: usize = 4;
/// Most runs that are shown.
const MOST: usize = 1000;

/// Folders of runs.
#[derive(Debug)]
pub(crate) struct Runs(Vec<PathBuf>);

/// A folder that can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// What addresses call it.
    pub(crate) id: String,
    /// What people call it: the given folder, and the way from there.
    pub(crate) name: String,
    path: PathBuf,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The last model is written.
    Finished,
    /// A process has it; or had, and was killed.
    Running,
    /// No process has it, and it is not finished.
    Stopped,
    /// It is no training run, but what one of several came to.
    Gallery,
}

impl Runs {
    pub(crate) fn new(folders: Vec<PathBuf>) -> Self {
        Self(folders)
    }

    /// All runs that are there now, by name. Links are not followed.
    pub(crate) fn all(&self) -> Vec<Run> {
        let mut found = Vec::new();
        for folder in &self.0 {
            gather(folder, &folder.display().to_string(), DEEPEST, &mut found);
        }
        found
    }

    /// The run of an id.
    pub(crate) fn find(&self, id: &str) -> Result<Run, Problem> {
        let found = self.all().into_iter().find(|run| run.id == id);
        found.ok_or_else(|| Problem::missing("There is no such run."))
    }
}

fn gather(folder: &Path, name: &str, deeper: usize, found: &mut Vec<Run>) {
    if found.len() >= MOST {
        return;
    }
    if MARKS.iter().any(|mark| folder.join(mark).is_file()) {
        let place = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let id: String = Sha256::digest(place.as_os_str().as_encoded_bytes())
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if found.iter().all(|run| run.id != id) {
            found.push(Run { id, name: name.to_owned(), path: folder.to_owned() });
        }
    }
    // A folder that cannot be read holds nothing to show.
    let Some(entries) = fs::read_dir(folder).ok().filter(|_| deeper > 0) else { return };
    let mut below: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name())
        .filter(|name| INNER.iter().all(|inner| name != inner))
        .collect();
    below.sort();
    for own in below {
        gather(&folder.join(&own), &format!("{name}/{}", own.display()), deeper - 1, found);
    }
}

impl Run {
    /// What it has to show.
    pub(crate) fn record(&self) -> Result<RunRecord, Problem> {
        RunRecord::read(&self.path).map_err(|error| Problem::unreadable(error.to_string()))
    }

    pub(crate) fn state(&self) -> State {
        let has = |name: &str| self.path.join(name).exists();
        match (has(FINAL), has(LOCK_FILE), has(PLAN_FILE)) {
            (_, _, false) => State::Gallery,
            (true, _, true) => State::Finished,
            (false, true, true) => State::Running,
            (false, false, true) => State::Stopped,
        }
    }

    /// Steps that its plan has, if it can be read.
    pub(crate) fn planned(&self) -> Option<u64> {
        let plan: toml::Table = fs::read_to_string(self.path.join(PLAN_FILE)).ok()?.parse().ok()?;
        u64::try_from(plan.get("train")?.get("steps")?.as_integer()?).ok()
    }

    /// How long ago its log was last written to.
    pub(crate) fn age(&self) -> Option<Duration> {
        let written = fs::metadata(self.path.join(METRICS_FILE)).ok()?.modified().ok()?;
        Some(SystemTime::now().duration_since(written).unwrap_or_default())
    }

    /// The report as it lies there.
    pub(crate) fn report(&self) -> Result<Vec<u8>, Problem> {
        self.bytes(REPORT_FILE)
    }

    /// An image that the run shows: `asked` is compared with those that it names, and what it names has to be an image.
    pub(crate) fn image(&self, asked: &str) -> Result<Picture, Problem> {
        let linked = linked_images(&self.path).map_err(|_| missing())?;
        let known = linked.get(asked).ok_or_else(missing)?;
        Picture::new(self.bytes(known)?, known).map_err(|_| missing())
    }

    /// A file of the run that lies in its directory, and is no link that leads out of it.
    fn bytes(&self, known: &str) -> Result<Vec<u8>, Problem> {
        let place = |path: &Path| fs::canonicalize(path).map_err(|_| missing());
        let (file, own) = (place(&self.path.join(known))?, place(&self.path)?);
        if !file.starts_with(own) {
            return Err(missing());
        }
        fs::read(file).map_err(|_| missing())
    }
}

fn missing() -> Problem {
    Problem::missing("There is no such file in this run.")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }

    #[test]
    fn runs_are_found_below_folders_each_once() {
        let root = tempfile::tempdir().unwrap();
        let of = |path: &str| root.path().join(path);
        write(&of("b"), PLAN_FILE, "[train]\nsteps = 40\n");
        write(&of("a/deep/er"), METRICS_FILE, "");
        write(&of("b/samples/step-000001"), METRICS_FILE, "");
        write(&of("c"), "notes.txt", "");
        write(&of("1/2/3/4/5"), PLAN_FILE, "");
        let runs = Runs::new(vec![root.path().to_owned(), of("b")]);
        let all = runs.all();
        let names: Vec<&str> = all.iter().map(|run| run.name.as_str()).collect();
        let expected = [of("a/deep/er"), of("b")].map(|path| path.display().to_string());
        assert_eq!(names, expected);
        assert_eq!((all[1].planned(), all[0].planned()), (Some(40), None));
        assert_eq!(runs.find(&all[1].id).unwrap(), all[1]);
        for id in ["", "..", "b", "../b", &all[1].id[1..]] {
            assert!(runs.find(id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_state_is_what_lies_there() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        let state = || Runs::new(vec![folder.to_owned()]).all()[0].state();
        write(folder, METRICS_FILE, "");
        assert_eq!(state(), State::Gallery);
        write(folder, PLAN_FILE, "");
        assert_eq!(state(), State::Stopped);
        write(folder, LOCK_FILE, "");
        assert_eq!(state(), State::Running);
        fs::create_dir(folder.join(FINAL)).unwrap();
        assert_eq!(state(), State::Finished);
    }
}
