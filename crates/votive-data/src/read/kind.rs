//! Whether a data set is of texts or of images, by its first row.

use std::path::PathBuf;

use super::image_column::EmbeddedImages;
use super::image_folders;
use super::image_format::{IMAGE_COLUMNS, ImageFormat};
use super::row::Row;
use super::shards::files_of;
use super::table::visit_rows_beside_images;
use crate::error::DataError;

const WHAT: &str = "preference data";

/// Whether files or folders hold preferences about images: two folders of them, or a first row that is of a layout of
/// images. What cannot be read does not, and says so when it is read.
#[must_use]
pub fn holds_images(paths: &[PathBuf], split: Option<&str>) -> bool {
    if let [path] = paths
        && image_folders::is_pair_of_folders(path)
    {
        return true;
    }
    let files = files_of(paths, split, WHAT).unwrap_or_default();
    let mut is_of_images = false;
    for file in &files {
        let mut has_row = false;
        let seen = visit_rows_beside_images(file, WHAT, 0, &IMAGE_COLUMNS, &mut |row| {
            is_of_images = is_row_of_images(&row);
            has_row = true;
            // One row is enough; the error is what ends the visit.
            Err(DataError::MissingField { place: row.place(""), expected: "" })
        });
        if has_row || seen.is_err() {
            break;
        }
    }
    is_of_images
}

fn is_row_of_images(row: &Row) -> bool {
    let Some(format) = ImageFormat::of(row) else { return false };
    // Texts may be kept as bytes, in columns of the same names.
    let mut bytes = EmbeddedImages::default();
    let mut begins_as_image = |stored| match bytes.read(stored) {
        Ok(Some(bytes)) => image::guess_format(bytes.data()).is_ok(),
        Ok(None) | Err(_) => true,
    };
    !format.may_be_text() || row.embedded_images().all(&mut begins_as_image)
}
