//! Two folders `chosen` and `rejected` whose images have equal names. A caption is the line of `metadata.jsonl` that
//! names the image, or else the `.txt` file beside the chosen image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::image::WHAT;
use super::records::Records;
use super::table::visit_rows;
use super::{IMAGE_ENDINGS, extension};
use crate::error::{DataError, Result};
use crate::record::ImagePair;

/// The captions of all images, as the image folders of `datasets` have them.
const CAPTIONS: &str = "metadata.jsonl";
const COLUMNS: &str = "a line of captions has the columns `file_name` and `text` or `prompt`";

/// What the layout is called in reports.
pub(super) const NAME: &str = "folders";

/// Whether a path is a folder that holds both folders of images.
pub(super) fn is_pair_of_folders(path: &Path) -> bool {
    path.join("chosen").is_dir() && path.join("rejected").is_dir()
}

/// Reads the pairs of two folders, in the order of their names.
///
/// # Errors
/// If an image of one folder has no partner in the other, or no caption.
pub(super) fn read(path: &Path) -> Result<Records<ImagePair>> {
    let names = image_names(&path.join("chosen"))?;
    let rejected = image_names(&path.join("rejected"))?;
    if let Some(name) = names.symmetric_difference(&rejected).next() {
        let (with, without) =
            if names.contains(name) { ("chosen", "rejected") } else { ("rejected", "chosen") };
        let message =
            format!("`{with}/{name}` has no partner `{without}/{name}`; images of a pair have the same name");
        return Err(DataError::Settings { file: path.to_owned(), message });
    }
    let captions = captions(&path.join(CAPTIONS))?;
    let pairs = names.iter().enumerate().map(|(idx, name)| pair(path, idx + 1, name, &captions));
    let mut records = Records::new(path, pairs.collect::<Result<_>>()?);
    records.format = Some(NAME);
    Ok(records)
}

/// Names of the images in a folder, sorted.
fn image_names(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(DataError::read(folder))? {
        let path = entry.map_err(DataError::read(folder))?.path();
        let is_image = extension(&path).is_some_and(|found| IMAGE_ENDINGS.contains(&found.as_str()));
        if let (true, Some(name)) = (is_image, path.file_name().and_then(|name| name.to_str())) {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// The captions that a table holds, by name of the image; none if there is no table.
fn captions(table: &Path) -> Result<BTreeMap<String, String>> {
    let mut captions = BTreeMap::new();
    if table.is_file() {
        visit_rows(table, WHAT, 0, &mut |mut row| {
            let name = row.string("file_name", COLUMNS)?;
            let column = if row.has("prompt") { "prompt" } else { "text" };
            captions.insert(name, row.string(column, COLUMNS)?);
            Ok(())
        })?;
    }
    Ok(captions)
}

fn pair(folder: &Path, row: usize, name: &str, captions: &BTreeMap<String, String>) -> Result<ImagePair> {
    let chosen = folder.join("chosen").join(name);
    let known = captions.get(name).or_else(|| captions.get(&format!("chosen/{name}")));
    let prompt = match known {
        Some(caption) => caption.clone(),
        None => {
            let caption = chosen.with_extension("txt");
            fs::read_to_string(&caption).map_err(DataError::read(&caption))?.trim().to_owned()
        }
    };
    Ok(ImagePair::new(row, prompt, chosen, folder.join("rejected").join(name)))
}
