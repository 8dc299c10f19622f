//! From images to what CLIP's image encoder reads: transformers' `CLIPImageProcessor`.
//!
//! Departure: an image that a network has drawn is scaled as real numbers, without the rounding to 8 bits between the
//! two directions, so that the score has a gradient by the pixels.

use super::resample::{Interpolation, Rgb8, matrix};
use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use std::path::Path;
use votive_tensor::linear;

/// The file of an image processor by itself, and the field and file of one that was saved with its tokenizer.
const FILE: &str = "preprocessor_config.json";
const WITH_TOKENIZER: (&str, &str) = ("image_processor", "processor_config.json");

/// Means and deviations of CLIP's training images, which transformers takes if a file has none.
const MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const DEVIATION: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// What an image is scaled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resize {
    /// The shorter side to this many pixels, and the other to keep the shape.
    ShortestEdge(usize),
    /// To this width and height.
    Exact(usize, usize),
}

/// Scales, cuts and normalises images.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipImageProcessor {
    resize: Resize,
    /// Width and height of what is cut out of the middle.
    crop: Option<(usize, usize)>,
    interpolation: Interpolation,
    /// What a byte is multiplied by.
    rescale: f64,
    mean: [f64; 3],
    deviation: [f64; 3],
}

impl ClipImageProcessor {
    /// Reads `preprocessor_config.json` of a folder, or the image processor in its `processor_config.json`. Absent fields
    /// have transformers' defaults.
    ///
    /// # Errors
    /// If there is neither, a field has the wrong type, or a value that is not supported.
    pub fn read(folder: &Path) -> Result<Self> {
        Self::from_file(&Self::file(folder)?)
    }

    /// The same, where the file may only be that of one of these classes of transformers.
    ///
    /// # Errors
    /// As [`ClipImageProcessor::read`]; if it names another class.
    pub(crate) fn read_any(folder: &Path, classes: &[&str]) -> Result<Self> {
        let file = Self::file(folder)?;
        file.only("image_processor_type", &classes.iter().map(|class| json!(class)).collect::<Vec<_>>())?;
        Self::from_file(&file)
    }

    fn file(folder: &Path) -> Result<ConfigFile> {
        if folder.join(FILE).exists() {
            return ConfigFile::read(&folder.join(FILE));
        }
        let (field, file) = WITH_TOKENIZER;
        let own = || Some(ConfigFile::read(&folder.join(file)).ok()?.object(field));
        match own().flatten() {
            Some(own) => Ok(own),
            None => {
                let expected = format!("{FILE}, {file} with `{field}`");
                Err(ModelError::NotFound { folder: folder.into(), expected })
            }
        }
    }

    fn from_file(file: &ConfigFile) -> Result<Self> {
        for field in ["do_resize", "do_rescale", "do_normalize"] {
            file.only(field, &[json!(true)])?;
        }
        file.only("do_pad", &[json!(false)])?;
        let crop = match file.bool_or("do_center_crop", true)? {
            false => None,
            true => Some(match file.get("crop_size") {
                None => (224, 224),
                Some(_) => match size(file, "crop_size")? {
                    Resize::ShortestEdge(side) => (side, side),
                    Resize::Exact(width, height) => (width, height),
                },
            }),
        };
        let resize = match file.get("size") {
            None => Resize::ShortestEdge(224),
            Some(_) => size(file, "size")?,
        };
        let numbers = Interpolation::NUMBERS;
        let interpolation = match file.get("resample") {
            None => Interpolation::Bicubic,
            Some(value) => {
                let found = numbers.iter().find(|(number, _)| value.as_u64() == Some(*number));
                let supported = "supported: 1 (Lanczos), 2 (bilinear), 3 (bicubic)";
                found.ok_or_else(|| file.unsupported("resample", supported))?.1
            }
        };
        let processor = Self {
            resize,
            crop,
            interpolation,
            rescale: file.maybe_f64("rescale_factor")?.unwrap_or(1.0 / 255.0),
            mean: channels(file, "image_mean")?.unwrap_or(MEAN),
            deviation: channels(file, "image_std")?.unwrap_or(DEVIATION),
        };
        if processor.deviation.contains(&0.0) {
            return Err(file.unsupported("image_std", "not 0"));
        }
        if let (Some((width, height)), scaled) = (processor.crop, processor.least_scaled())
            && (width > scaled.0 || height > scaled.1)
        {
            let most = format!("at most `size`, {}×{}: what is missing is not filled up", scaled.0, scaled.1);
            return Err(file.unsupported("crop_size", &most));
        }
        Ok(processor)
    }

    /// The least width and height that an image is scaled to.
    fn least_scaled(&self) -> (usize, usize) {
        match self.resize {
            Resize::ShortestEdge(side) => (side, side),
            Resize::Exact(width, height) => (width, height),
        }
    }

    /// Width and height of what the encoder sees; none if it depends on the image.
    #[must_use]
    pub fn output_size(&self) -> Option<(usize, usize)> {
        match (self.crop, self.resize) {
            (Some(size), _) => Some(size),
            (None, Resize::Exact(width, height)) => Some((width, height)),
            (None, Resize::ShortestEdge(_)) => None,
        }
    }

    /// What an image of a width and height is scaled to, and where it is cut: size, and left and top of what is kept with
    /// its size.
    fn plan(&self, (width, height): (usize, usize)) -> Plan {
        let scaled = match self.resize {
            Resize::Exact(width, height) => (width, height),
            Resize::ShortestEdge(side) if width <= height => (side, side * height / width.max(1)),
            Resize::ShortestEdge(side) => (side * width / height.max(1), side),
        };
        let kept = self.crop.unwrap_or(scaled);
        Plan { scaled, corner: ((scaled.0 - kept.0) / 2, (scaled.1 - kept.1) / 2), kept }
    }

    /// What the encoder reads of an image.
    ///
    /// # Shapes
    /// `rgb` (H, W, 3) of `width` and `height` → (3, h, w), one number after another
    /// # Errors
    /// If there are not as many bytes as pixels ask for, or no pixels.
    pub fn pixels(&self, rgb: &[u8], (width, height): (usize, usize)) -> Result<Vec<f32>> {
        if rgb.len() != width * height * 3 || rgb.is_empty() {
            return Err(ModelError::Shape {
                what: "bytes of an image".to_owned(),
                expected: format!("3·{width}·{height}, not none"),
                found: rgb.len().to_string(),
            });
        }
        let plan = self.plan((width, height));
        let image = Rgb8 { width, height, bytes: rgb.to_vec() };
        let image = image.resized(plan.scaled, self.interpolation).cut(plan.corner, plan.kept);
        let channel = |channel: usize| {
            let (mean, deviation) = (self.mean[channel] as f32, self.deviation[channel] as f32);
            let bytes = image.bytes.iter().skip(channel).step_by(3);
            bytes.map(move |byte| ((f64::from(*byte) * self.rescale) as f32 - mean) / deviation)
        };
        Ok((0..3).flat_map(channel).collect())
    }

    /// What the encoder reads of images that a network has drawn, with a gradient by their pixels.
    ///
    /// # Shapes
    /// `images (B, 3, H, W)` from 0 to 1 → `(B, 3, h, w)`
    /// # Errors
    /// If they have no three channels.
    pub fn drawn(&self, images: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = images.dims4()?;
        if channels != 3 || width == 0 || height == 0 {
            return Err(ModelError::Shape {
                what: "images".to_owned(),
                expected: "(B, 3, H, W)".to_owned(),
                found: format!("{:?}", images.dims()),
            });
        }
        let (plan, kind) = (self.plan((width, height)), (images.dtype(), images.device()));
        let across = matrix((width, plan.scaled.0), (plan.corner.0, plan.kept.0), self.interpolation, kind)?;
        let down = matrix((height, plan.scaled.1), (plan.corner.1, plan.kept.1), self.interpolation, kind)?;
        let turned = linear(&images.contiguous()?, &across, None)?.transpose(2, 3)?.contiguous()?;
        let scaled = linear(&turned, &down, None)?.transpose(2, 3)?.contiguous()?;
        let table = |numbers: [f64; 3]| -> Result<Tensor> {
            let table = Tensor::new(&numbers.map(|number| number as f32), &Device::Cpu)?;
            Ok(table.to_device(kind.1)?.to_dtype(kind.0)?.reshape((1, 3, 1, 1))?)
        };
        let scaled = (scaled * (255.0 * self.rescale))?.broadcast_sub(&table(self.mean)?)?;
        Ok(scaled.broadcast_div(&table(self.deviation)?)?)
    }
}

struct Plan {
    /// Width and height.
    scaled: (usize, usize),
    /// Left and top of what is kept.
    corner: (usize, usize),
    /// Its width and height.
    kept: (usize, usize),
}

/// A size in each of the forms that transformers has written over time.
fn size(file: &ConfigFile, field: &str) -> Result<Resize> {
    const FORMS: &str =
        "supported: a number of pixels, {\"shortest_edge\"}, {\"height\", \"width\"}; at least 1";
    let whole = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let value = file.get(field);
    let of = |name: &str| value.and_then(|value| value.get(name)).and_then(whole);
    let sides = value.and_then(Value::as_object).map(|sides| {
        let mut names: Vec<&str> =
            sides.iter().filter(|(_, v)| !v.is_null()).map(|(n, _)| n.as_str()).collect();
        names.sort_unstable();
        names
    });
    let found = match sides.as_deref() {
        None => value.and_then(whole).map(Resize::ShortestEdge),
        Some(["shortest_edge"]) => of("shortest_edge").map(Resize::ShortestEdge),
        Some(["height", "width"]) => of("width").zip(of("height")).map(|(w, h)| Resize::Exact(w, h)),
        Some(_) => None,
    };
    found.ok_or_else(|| file.unsupported(field, FORMS))
}

/// A number for each channel.
fn channels(file: &ConfigFile, field: &str) -> Result<Option<[f64; 3]>> {
    let Some(value) = file.get(field) else { return Ok(None) };
    let numbers: Option<Vec<f64>> =
        value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    let three = numbers.and_then(|numbers| <[f64; 3]>::try_from(numbers).ok());
    three.map(Some).ok_or_else(|| file.unsupported(field, "three numbers"))
}
