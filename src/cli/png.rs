//! PNG files with text in them: how an image was made.
//!
//! Other programs read the keyword `parameters`: the prompt, `Negative prompt: …`, and a line `Steps: …, Sampler: …, …`, in
//! a tEXt chunk if Latin-1 has all its letters and in an iTXt chunk if not. Checked against: the format that
//! AUTOMATIC1111's stable-diffusion-webui writes.

use crate::cli::{Failure, Outcome};
use image::RgbImage;
use png::{BitDepth, ColorType, Encoder, EncodingError};
use std::path::Path;
use votive_model::files;

/// What `parameters` says, in the order in which it says it.
#[derive(Debug)]
pub(crate) struct Parameters<'a> {
    /// The prompt, which may have several lines.
    pub(crate) prompt: &'a str,
    /// What was guided away from; left out if empty.
    pub(crate) negative_prompt: &'a str,
    /// Names with values.
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Parameters<'_> {
    /// The text under `parameters`.
    pub(crate) fn to_text(&self) -> String {
        let mut lines = vec![self.prompt.to_owned()];
        if !self.negative_prompt.is_empty() {
            lines.push(format!("Negative prompt: {}", self.negative_prompt));
        }
        let settings: Vec<String> =
            self.settings.iter().map(|(name, value)| format!("{name}: {}", quoted(value))).collect();
        lines.push(settings.join(", "));
        lines.join("\n")
    }
}

/// A value as it stands, or as a JSON string if it would end early or run into the next.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n', '"']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

/// Writes an image with texts under keywords.
///
/// # Errors
/// If it cannot be encoded or the file cannot be written.
pub(crate) fn write_png(image: &RgbImage, texts: &[(&str, String)], file: &Path) -> Outcome {
    let bytes =
        encoded(image, texts).map_err(|error| Failure::resources(format!("{}: {error}", file.display())))?;
    Ok(files::write_bytes(file, &bytes)?)
}

fn encoded(image: &RgbImage, texts: &[(&str, String)]) -> Result<Vec<u8>, EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    for (keyword, text) in texts {
        if text.chars().all(|letter| u32::from(letter) < 256) {
            encoder.add_text_chunk((*keyword).to_owned(), text.clone())?;
        } else {
            encoder.add_itxt_chunk((*keyword).to_owned(), text.clone())?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.as_raw())?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parameters(prompt: &str, negative_prompt: &str) -> String {
        let settings = vec![("Steps", "20".to_owned()), ("Model", "a, b".to_owned())];
        Parameters { prompt, negative_prompt, settings }.to_text()
    }

    #[test]
    fn parameters_read_as_other_programs_write_them() {
        assert_eq!(parameters("a cat", ""), "a cat\nSteps: 20, Model: \"a, b\"");
        assert_eq!(
            parameters("a cat\non a mat", "dogs"),
            "a cat\non a mat\nNegative prompt: dogs\nSteps: 20, Model: \"a, b\""
        );
    }

    #[test]
    fn text_of_any_letters_reads_back_and_the_pixels_with_it() {
        let image = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 200]));
        let texts = [("parameters", "caf\u{e9}\nSteps: 1".to_owned()), ("votive", "猫 🎨".to_owned())];
        let bytes = encoded(&image, &texts).unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let info = reader.info();
        assert_eq!(info.uncompressed_latin1_text[0].text, texts[0].1);
        assert_eq!(info.utf8_text[0].get_text().unwrap(), texts[1].1);
        assert_eq!(image::load_from_memory(&bytes).unwrap().into_rgb8(), image);
    }
}
