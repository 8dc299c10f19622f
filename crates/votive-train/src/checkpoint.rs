//! Checkpoints that are whole or not there: written aside, synced, listed in a manifest with sizes and hashes, renamed.

use crate::error::{Result, TrainError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "manifest.json";

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    schema_version: u32,
    step: u64,
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: String,
    bytes: u64,
    sha256: String,
}

/// A checkpoint whose manifest verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Steps that were done when it was written.
    pub step: u64,
}

/// Writes a folder `name` below `parent`: `fill` makes its files, and the folder appears only when all are on disk.
///
/// # Errors
/// If a file cannot be written; nothing is left behind then, and older checkpoints stay as they are.
pub fn write(
    parent: &Path,
    name: &str,
    step: u64,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    fs::create_dir_all(parent).map_err(at(parent))?;
    let (temporary, target) = (parent.join(format!(".tmp-{name}-{}", std::process::id())), parent.join(name));
    let written = fill_and_sync(&temporary, step, fill).and_then(|()| replace(&temporary, &target));
    if written.is_err() {
        // Best effort: the error that matters is the one that led here.
        let _ = fs::remove_dir_all(&temporary);
    }
    written?;
    sync_folder(parent)?;
    Ok(target)
}

fn fill_and_sync(folder: &Path, step: u64, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(folder)(error)),
        _ => {}
    }
    fs::create_dir_all(folder).map_err(at(folder))?;
    fill(folder)?;
    let mut files = Vec::new();
    for path in files_below(folder)? {
        let file = File::open(&path).map_err(at(&path))?;
        file.sync_all().map_err(at(&path))?;
        files.push(describe(folder, &path)?);
    }
    let manifest = Manifest { schema_version: 1, step, files };
    let path = folder.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| at(&path)(e.into()))?;
    fs::write(&path, text).map_err(at(&path))?;
    File::open(&path).and_then(|file| file.sync_all()).map_err(at(&path))?;
    sync_folder(folder)
}

/// Puts `from` in the place of `to`; a folder that is there already is moved aside first and deleted last.
fn replace(from: &Path, to: &Path) -> Result<()> {
    if !to.exists() {
        return fs::rename(from, to).map_err(at(to));
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".old-{}", std::process::id()));
    let aside = to.with_file_name(name);
    fs::rename(to, &aside).map_err(at(to))?;
    fs::rename(from, to).map_err(at(to))?;
    fs::remove_dir_all(&aside).map_err(at(&aside))
}

/// Removes what a process that was killed while it wrote left below `parent`: its temporary folders, and the folders that
/// it had moved aside, which go back if nothing has taken their place. Only of folders whose names are `ours`; nobody
/// else may be writing them.
///
/// # Errors
/// If the folder cannot be listed, or a leftover cannot be removed.
pub(crate) fn sweep(parent: &Path, ours: impl Fn(&str) -> bool) -> Result<()> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(parent)(error)),
    };
    for entry in entries {
        let path = entry.map_err(at(parent))?.path();
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let temporary = file_name.strip_prefix(".tmp-").and_then(|rest| of_a_process(rest, "-"));
        if temporary.is_some_and(&ours) {
            fs::remove_dir_all(&path).map_err(at(&path))?;
        } else if let Some(name) = of_a_process(file_name, ".old-").filter(|name| ours(name)) {
            let target = parent.join(name);
            if target.exists() {
                fs::remove_dir_all(&path).map_err(at(&path))?;
            } else {
                fs::rename(&path, &target).map_err(at(&target))?;
            }
        }
    }
    Ok(())
}

/// What stands before the separator and a process id.
fn of_a_process<'a>(name: &'a str, separator: &str) -> Option<&'a str> {
    let (name, id) = name.rsplit_once(separator)?;
    (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// The newest checkpoint below `parent` that verifies, and those that were passed over, each with the reason.
///
/// # Errors
/// If the folder cannot be listed.
pub fn newest(parent: &Path) -> Result<(Option<Checkpoint>, Vec<TrainError>)> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, Vec::new())),
        Err(error) => return Err(at(parent)(error)),
    };
    for entry in entries {
        let path = entry.map_err(at(parent))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse().ok()) {
            found.push((step, path));
        }
    }
    found.sort_unstable();
    let mut skipped = Vec::new();
    for (step, path) in found.into_iter().rev() {
        match verify(&path) {
            Ok(_) => return Ok((Some(Checkpoint { path, step }), skipped)),
            Err(error) => skipped.push(error),
        }
    }
    Ok((None, skipped))
}

/// Checks every file of a checkpoint against its manifest and returns the step that the manifest names.
///
/// # Errors
/// If the manifest is missing or a file is missing, has another size, or other contents.
pub fn verify(folder: &Path) -> Result<u64> {
    let broken = |reason: String| TrainError::Checkpoint { path: folder.into(), reason };
    let text = fs::read(folder.join(MANIFEST)).map_err(|e| broken(format!("{MANIFEST}: {e}")))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| broken(format!("{MANIFEST}: {e}")))?;
    for entry in &manifest.files {
        let path = folder.join(&entry.path);
        let found = describe(folder, &path).map_err(|e| broken(e.to_string()))?;
        if found.bytes != entry.bytes {
            return Err(broken(format!("{} has {} bytes, not {}", entry.path, found.bytes, entry.bytes)));
        }
        if found.sha256 != entry.sha256 {
            return Err(broken(format!("{} does not have the contents that were written", entry.path)));
        }
    }
    Ok(manifest.step)
}

fn describe(folder: &Path, path: &Path) -> Result<Entry> {
    let bytes = fs::read(path).map_err(at(path))?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let relative = path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned();
    Ok(Entry { path: relative, bytes: bytes.len() as u64, sha256 })
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let path = entry.map_err(at(&folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(at(folder))
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> TrainError + '_ {
    move |source| TrainError::File { path: path.into(), source }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn save(parent: &Path, step: u64) -> PathBuf {
        write(parent, &format!("step-{step:06}"), step, |folder| {
            fs::create_dir(folder.join("trainer")).unwrap();
            fs::write(folder.join("weights"), step.to_string().repeat(100)).unwrap();
            fs::write(folder.join("trainer/state"), "x").unwrap();
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn the_newest_whole_checkpoint_is_found_and_broken_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for step in [5, 10, 15, 20] {
            save(folder.path(), step);
        }
        assert_eq!(newest(folder.path()).unwrap().0.unwrap().step, 20);
        // One flipped bit, one truncated file, one missing manifest.
        let weights = folder.path().join("step-000020/weights");
        let mut bytes = fs::read(&weights).unwrap();
        bytes[7] ^= 1;
        fs::write(&weights, bytes).unwrap();
        fs::write(folder.path().join("step-000015/weights"), "short").unwrap();
        fs::remove_file(folder.path().join("step-000010/manifest.json")).unwrap();
        let (found, skipped) = newest(folder.path()).unwrap();
        assert_eq!(found.unwrap().step, 5);
        let reasons: Vec<String> = skipped.iter().map(ToString::to_string).collect();
        assert!(reasons[0].contains("step-000020") && reasons[0].contains("contents"), "{reasons:?}");
        assert!(reasons[1].contains("5 bytes, not 200"), "{reasons:?}");
        assert!(reasons[2].contains("manifest.json"), "{reasons:?}");
    }

    #[test]
    fn a_failed_write_leaves_nothing_and_keeps_the_old() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), 5);
        let failed = write(folder.path(), "step-000005", 5, |folder| {
            fs::write(folder.join("half"), "x").unwrap();
            Err(TrainError::Plan("disk full".to_owned()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(newest(folder.path()).unwrap().0.unwrap().step, 5);
        save(folder.path(), 5);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_of_a_killed_process_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), 5);
        let make = |name: &str| {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("half"), "x").unwrap();
        };
        let ours = [".tmp-step-000010-4711", "step-000005.old-4711", "step-000015.old-4711"];
        let others = [".tmp-step-000010-abc", ".tmp-final-4711", ".tmp-4711", "step-000010.bak", "notes"];
        ours.iter().chain(&others).for_each(|name| make(name));
        sweep(folder.path(), |name| name.starts_with("step-")).unwrap();
        let mut left: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        // What was moved aside is back where nothing has taken its place.
        let mut expected = [&others[..], &["step-000005", "step-000015"]].concat();
        expected.sort_unstable();
        assert_eq!(left, expected);
        assert_eq!(newest(folder.path()).unwrap().0.unwrap().step, 5);
        sweep(&folder.path().join("none"), |_| true).unwrap();
    }
}
