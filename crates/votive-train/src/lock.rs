//! One process at a time in a run directory: a lock that the operating system releases when the process ends, however
//! it ends.

use crate::checkpoint::at;
use crate::error::{Result, TrainError};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Name of the lock's file. It says who holds the lock, and is gone when nobody does, unless its holder was killed.
pub(crate) const LOCK_FILE: &str = "run.lock";

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct RunLock {
    path: PathBuf,
    file: File,
}

impl RunLock {
    /// Takes the lock of a run directory.
    ///
    /// # Errors
    /// If another process has it, or the file cannot be made or locked.
    pub(crate) fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        loop {
            let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
            let mut file = file.map_err(at(&path))?;
            match file.try_lock() {
                Ok(()) if is_still_at(&file, &path) => {
                    write_owner(&mut file).map_err(at(&path))?;
                    return Ok(Self { path, file });
                }
                // Its last holder removed it between the opening and the locking.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let reason = format!("is in use by {}; wait until it ends, or stop it", owner(&mut file));
                    return Err(TrainError::RunDirectory { path: folder.into(), reason });
                }
                Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
            }
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Best effort, and before the lock is released: a file that stays is taken over by the next process.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

fn write_owner(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "process {} on {}", std::process::id(), host())
}

/// Who holds the lock, in its own words.
fn owner(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "another process".to_owned(),
    }
}

/// The machine's name, for a directory that several machines share.
fn host() -> String {
    let name =
        ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().find_map(|file| fs::read_to_string(file).ok());
    name.map_or_else(|| "this machine".to_owned(), |name| name.trim().to_owned())
}

#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let lock = RunLock::take(folder.path()).unwrap();
        let refusal = RunLock::take(folder.path()).unwrap_err().to_string();
        assert!(refusal.contains(&format!("is in use by process {}", std::process::id())), "{refusal}");
        drop(lock);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        // A file without a holder is what a killed process leaves.
        fs::write(folder.path().join(LOCK_FILE), "process 1 on a machine that is gone, with a long name")
            .unwrap();
        drop(RunLock::take(folder.path()).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
