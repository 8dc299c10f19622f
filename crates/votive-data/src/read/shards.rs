//! The files of a data set: one, several, or a folder of shards in the hub's naming, `train-00000-of-00004.parquet`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::extension;
use super::table::{EXTENSIONS, SUPPORTED};
use crate::error::{DataError, Result};

/// Files in a folder that hold no rows, although their endings say so.
const NOT_ROWS: [&str; 3] = ["dataset_info.json", "dataset_infos.json", "state.json"];

/// The files behind `paths`, in order; `split` picks one of several splits of a folder.
///
/// # Errors
/// If a folder has no table, or several splits of which none is picked, or lacks a shard that the names of the others
/// announce.
pub(super) fn files_of(paths: &[PathBuf], split: Option<&str>, what: &'static str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(folder(path, split, what)?);
        } else if let Some(split) = split {
            let message = format!("a file has no splits, so none of them is `{split}`");
            return Err(DataError::Settings { file: path.clone(), message });
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn folder(folder: &Path, split: Option<&str>, what: &'static str) -> Result<Vec<PathBuf>> {
    let mut found = tables(folder)?;
    if found.is_empty() && folder.join("data").is_dir() {
        found = tables(&folder.join("data"))?;
    }
    if found.is_empty() {
        return Err(DataError::UnsupportedFormat {
            path: folder.to_owned(),
            what,
            found: "a folder without tables".to_owned(),
            supported: SUPPORTED,
        });
    }
    let mut splits = BTreeMap::<&str, Vec<&PathBuf>>::new();
    for file in &found {
        splits.entry(split_of(file)).or_default().push(file);
    }
    let wrong = |message| DataError::Settings { file: folder.to_owned(), message };
    let names: Vec<_> = splits.keys().copied().filter(|name| !name.is_empty()).collect();
    let picked = match (split, names.as_slice()) {
        (Some(split), _) if splits.contains_key(split) => split,
        (Some(split), names) => {
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(wrong(format!("the folder has no split `{split}`; it has: {known}")));
        }
        (None, []) => return Ok(found),
        (None, [only]) if splits.len() == 1 => *only,
        (None, names) => {
            let names = names.join(", ");
            return Err(wrong(format!("the folder holds the splits {names}; say which one, with `split`")));
        }
    };
    let files = &splits[picked];
    check_complete(files).map_err(wrong)?;
    Ok(files.iter().map(|file| (*file).clone()).collect())
}

/// Files with rows in a folder, by name.
fn tables(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(DataError::read(folder))? {
        let path = entry.map_err(DataError::read(folder))?.path();
        let is_table = extension(&path).is_some_and(|ending| EXTENSIONS.contains(&ending.as_str()));
        let is_other = path.file_name().and_then(|name| name.to_str());
        if is_table && path.is_file() && !is_other.is_some_and(|name| NOT_ROWS.contains(&name)) {
            found.insert(path);
        }
    }
    Ok(found.into_iter().collect())
}

fn stem(file: &Path) -> &str {
    file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

/// `train` of `train-00000-of-00004`, with 0 and 4.
fn shard_name(stem: &str) -> Option<(&str, usize, usize)> {
    let (front, total) = stem.rsplit_once("-of-")?;
    let (split, index) = front.rsplit_once('-')?;
    // A hash may follow the number of shards.
    let total = total.split('-').next()?;
    Some((split, index.parse().ok()?, total.parse().ok()?))
}

/// The split that a file's name announces; empty if it announces none.
fn split_of(file: &Path) -> &str {
    let stem = stem(file);
    shard_name(stem).map_or_else(
        || if ["train", "test", "validation"].contains(&stem) { stem } else { "" },
        |(split, ..)| split,
    )
}

/// Every shard that the names announce is there.
fn check_complete(files: &[&PathBuf]) -> Result<(), String> {
    let shards: Vec<_> = files.iter().filter_map(|file| shard_name(stem(file))).collect();
    let Some((split, _, total)) = shards.first().copied() else { return Ok(()) };
    let missing = (0..total).find(|idx| !shards.iter().any(|(_, found, _)| found == idx));
    match missing {
        Some(idx) => Err(format!("shard {idx:05} of {total:05} of the split `{split}` is missing")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_of_shards_are_taken_apart() {
        assert_eq!(shard_name("train-00000-of-00004"), Some(("train", 0, 4)));
        assert_eq!(shard_name("test_prefs-00001-of-00002-9f3a"), Some(("test_prefs", 1, 2)));
        assert_eq!(shard_name("one-of-many"), None);
        assert_eq!(split_of(Path::new("a/validation.jsonl")), "validation");
        assert_eq!(split_of(Path::new("a/pairs.jsonl")), "");
    }

    #[test]
    fn folders_are_read_by_split_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let add = |name: &str| fs::write(folder.path().join(name), "").unwrap();
        let files = |split: Option<&str>| {
            let found = files_of(&[folder.path().to_owned()], split, "rows");
            found.map(|files| files.iter().map(|file| stem(file).to_owned()).collect::<Vec<_>>().join(" "))
        };
        let error = |split| files(split).unwrap_err().to_string();
        assert!(error(None).contains("a folder without tables"));
        add("train-00001-of-00002.parquet");
        add("dataset_info.json");
        assert!(error(None).contains("shard 00000 of 00002 of the split `train` is missing"));
        add("train-00000-of-00002.parquet");
        assert_eq!(files(None).unwrap(), "train-00000-of-00002 train-00001-of-00002");
        add("test-00000-of-00001.parquet");
        assert!(error(None).contains("the splits test, train; say which one"));
        assert!(error(Some("dev")).contains("no split `dev`; it has: test, train"));
        assert_eq!(files(Some("test")).unwrap(), "test-00000-of-00001");
    }
}
