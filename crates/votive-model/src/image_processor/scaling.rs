//! What transformers' image processors have in common: an image is scaled, and its bytes become numbers around 0.

use super::resample::{Interpolation, Rgb8};
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use serde_json::{Value, json};

/// Means and deviations of CLIP's training images, which transformers takes if a file has none.
const MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const DEVIATION: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// How images are scaled, and what becomes of their bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scaling {
    pub(crate) interpolation: Interpolation,
    /// What a byte is multiplied by.
    pub(crate) rescale: f64,
    pub(crate) mean: [f64; 3],
    pub(crate) deviation: [f64; 3],
}

impl Scaling {
    /// Reads the fields of an image processor; absent ones have transformers' defaults.
    ///
    /// # Errors
    /// If a field has the wrong type, or a value that is not supported.
    pub(crate) fn read(file: &ConfigFile) -> Result<Self> {
        for field in ["do_resize", "do_rescale", "do_normalize"] {
            file.only(field, &[json!(true)])?;
        }
        file.only("do_pad", &[json!(false)])?;
        let numbers = Interpolation::NUMBERS;
        let interpolation = match file.get("resample") {
            None => Interpolation::Bicubic,
            Some(value) => {
                let found = numbers.iter().find(|(number, _)| value.as_u64() == Some(*number));
                let supported = "supported: 1 (Lanczos), 2 (bilinear), 3 (bicubic)";
                found.ok_or_else(|| file.unsupported("resample", supported))?.1
            }
        };
        let read = Self {
            interpolation,
            rescale: file.maybe_f64("rescale_factor")?.unwrap_or(1.0 / 255.0),
            mean: channels(file, "image_mean")?.unwrap_or(MEAN),
            deviation: channels(file, "image_std")?.unwrap_or(DEVIATION),
        };
        match read.deviation.contains(&0.0) {
            true => Err(file.unsupported("image_std", "not 0")),
            false => Ok(read),
        }
    }

    /// An image in another size, both width and height.
    ///
    /// # Shapes
    /// `rgb` (H, W, 3)
    /// # Errors
    /// If there are not as many bytes as pixels ask for, or no pixels.
    pub(crate) fn scaled(
        &self,
        rgb: &[u8],
        (width, height): (usize, usize),
        to: (usize, usize),
    ) -> Result<Rgb8> {
        if rgb.len() != width * height * 3 || rgb.is_empty() {
            return Err(ModelError::Shape {
                what: "bytes of an image".to_owned(),
                expected: format!("3·{width}·{height}, not none"),
                found: rgb.len().to_string(),
            });
        }
        let image = Rgb8 { width, height, bytes: rgb.to_vec() };
        Ok(image.resized(to, self.interpolation))
    }

    /// (3, H, W), one number after another.
    pub(crate) fn numbers(&self, image: &Rgb8) -> Vec<f32> {
        let channel = |channel: usize| {
            let (mean, deviation) = (self.mean[channel] as f32, self.deviation[channel] as f32);
            let bytes = image.bytes.iter().skip(channel).step_by(3);
            bytes.map(move |byte| ((f64::from(*byte) * self.rescale) as f32 - mean) / deviation)
        };
        (0..3).flat_map(channel).collect()
    }
}

/// A number for each channel.
fn channels(file: &ConfigFile, field: &str) -> Result<Option<[f64; 3]>> {
    let Some(value) = file.get(field) else { return Ok(None) };
    let numbers: Option<Vec<f64>> =
        value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    let three = numbers.and_then(|numbers| <[f64; 3]>::try_from(numbers).ok());
    three.map(Some).ok_or_else(|| file.unsupported(field, "three numbers"))
}
