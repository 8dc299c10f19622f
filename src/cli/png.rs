//! PNG files with text in them: how an image was made.
//!
//! Other programs read the keyword `parameters`: the prompt, `Negative prompt: …`, and a line `Steps: …, Sampler: …, …`, in
//! a tEXt chunk if Latin-1 has all its letters and in an iTXt chunk if not. Checked against: the format that
//! AUTOMATIC1111's stable-diffusion-webui writes.

use crate::cli::{Failure, Outcome};
use image::RgbImage;
use png::{BitDepth, ColorType, Decoder, Encoder, EncodingError};
use serde_json::Value;
use std::fs::File;
use std::io::BufReader;
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

/// What an image was drawn of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The prompt.
    pub(crate) prompt: String,
    /// The seed, if it is named.
    pub(crate) seed: Option<u64>,
}

/// What a PNG file says of its origin, under `votive` or else under `parameters`; none if it says nothing, or is no PNG.
///
/// # Errors
/// If the file cannot be opened.
pub(crate) fn origin(file: &Path) -> Outcome<Option<Origin>> {
    let open = File::open(file).map_err(|error| Failure::file(file, error))?;
    let Ok(reader) = Decoder::new(BufReader::new(open)).read_info() else { return Ok(None) };
    let info = reader.info();
    let latin = info.uncompressed_latin1_text.iter().map(|chunk| (&chunk.keyword, Some(chunk.text.clone())));
    let utf8 = info.utf8_text.iter().map(|chunk| (&chunk.keyword, chunk.get_text().ok()));
    let texts: Vec<(&String, String)> =
        latin.chain(utf8).filter_map(|(keyword, text)| Some((keyword, text?))).collect();
    let under =
        |keyword: &str| texts.iter().find(|(found, _)| *found == keyword).map(|(_, text)| text.as_str());
    Ok(under("votive").and_then(of_json).or_else(|| under("parameters").and_then(of_parameters)))
}

fn of_json(text: &str) -> Option<Origin> {
    let value: Value = serde_json::from_str(text).ok()?;
    let prompt = value.get("prompt")?.as_str()?.to_owned();
    Some(Origin { prompt, seed: value.get("seed").and_then(Value::as_u64) })
}

/// The prompt is what stands before the line of the negative prompt or the last line, that of the settings.
fn of_parameters(text: &str) -> Option<Origin> {
    let (before, settings) = text.rsplit_once('\n')?;
    let seed = settings.split(", ").find_map(|setting| setting.strip_prefix("Seed: ")?.parse().ok());
    let prompt = before.split("\nNegative prompt: ").next().unwrap_or(before);
    settings.starts_with("Steps: ").then(|| Origin { prompt: prompt.to_owned(), seed })
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
    fn an_origin_reads_back_from_either_text() {
        let settings = vec![("Steps", "20".to_owned()), ("Seed", "7".to_owned())];
        let text = Parameters { prompt: "a cat,\non a mat", negative_prompt: "dogs", settings }.to_text();
        let origin = |prompt: &str, seed| Some(Origin { prompt: prompt.to_owned(), seed });
        assert_eq!(of_parameters(&text), origin("a cat,\non a mat", Some(7)));
        assert_eq!(of_parameters("a cat\nSteps: 3"), origin("a cat", None));
        assert_eq!(of_parameters("a cat"), None);
        assert_eq!(of_json(r#"{"prompt": "a cat", "seed": 3}"#), origin("a cat", Some(3)));
        assert_eq!(of_json("{"), None);
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
