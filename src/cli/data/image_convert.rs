//! `votive data convert` for images: a table of pairs, with every embedded image in a file of its own.

use super::source::screen;
use crate::cli::{Context, Failure, Outcome};
use serde_json::json;
use std::path::{Path, PathBuf};
use votive_data::{
    ImageBytes, ImageLimits, ImagePair, ImageSource, Records, ScreenedPair, write_image_pairs,
};
use votive_model::files::write_bytes;

pub(super) fn convert(records: Records<ImagePair>, out: &Path, ctx: &Context) -> Outcome {
    let (pairs, report) = screen(records, ctx)?;
    let folder = out.with_extension("images");
    let writing = ctx.output.progress("writing", "pairs", pairs.len() as u64);
    let mut files = Files { folder: &folder, bytes: ImageBytes::new(), written: 0 };
    let mut rows = Vec::with_capacity(pairs.len());
    for pair in &pairs {
        rows.push(files.in_files(pair)?);
        writing.set(rows.len() as u64);
    }
    writing.finish();
    write_image_pairs(out, &rows)?;
    if ctx.output.wants_json() {
        let images = files.written;
        return ctx.output.json(&json!({"out": out, "rows": rows.len(), "images": images, "report": report}));
    }
    ctx.output.note(&report);
    let images = match files.written {
        0 => String::new(),
        written => format!(", {written} images to {}", folder.display()),
    };
    ctx.output.line(format!("{} rows written to {}{images}", rows.len(), out.display()))
}

/// Embedded images, written to files.
struct Files<'a> {
    folder: &'a Path,
    bytes: ImageBytes,
    written: usize,
}

impl Files<'_> {
    /// The pair with images that lie in files.
    fn in_files(&mut self, ScreenedPair { pair, images }: &ScreenedPair) -> Outcome<ImagePair> {
        let mut pair = pair.clone();
        pair.chosen = self.in_file(&pair.chosen, &images[0].digest)?;
        pair.rejected = self.in_file(&pair.rejected, &images[1].digest)?;
        Ok(pair)
    }

    /// A file is called by what it holds, so that an image which stands in many rows is written once.
    fn in_file(&mut self, image: &ImageSource, digest: &[u8; 32]) -> Outcome<ImageSource> {
        let ImageSource::Embedded(embedded) = image else {
            return Ok(absolute(image));
        };
        let most = ImageLimits::default().max_bytes;
        let failed =
            |message: String| Failure::data(format!("{}: {image}: {message}", embedded.file.display()));
        let stored = self.bytes.read(image, most).map_err(failed)?;
        let format = image::guess_format(&stored).map_err(|error| failed(error.to_string()))?;
        let ending = format.extensions_str().first().copied().unwrap_or("image");
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let file = self.folder.join(format!("{name}.{ending}"));
        if !file.exists() {
            std::fs::create_dir_all(self.folder).map_err(|error| Failure::file(self.folder, error))?;
            write_bytes(&file, &stored)?;
            self.written += 1;
        }
        Ok(ImageSource::File(file))
    }
}

/// A path that leads to the same image from anywhere.
fn absolute(image: &ImageSource) -> ImageSource {
    match image {
        ImageSource::File(file) => {
            ImageSource::File(std::path::absolute(file).unwrap_or_else(|_| PathBuf::from(file)))
        }
        embedded => embedded.clone(),
    }
}
