//! From images to what CLIP's image encoder reads: transformers' `CLIPImageProcessor`.
//!
//! Departure: an image that a network has drawn is scaled as real numbers, without the rounding to 8 bits between the
//! two directions, so that the score has a gradient by the pixels.

use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::image_processor::{Scaling, matrix, processor_file};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use std::path::Path;
use votive_tensor::linear;

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
    scaling: Scaling,
}

impl ClipImageProcessor {
    /// Reads `preprocessor_config.json` of a folder, or the image processor in its `processor_config.json`. Absent fields
    /// have transformers' defaults.
    ///
    /// # Errors
    /// If there is neither, a field has the wrong type, or a value that is not supported.
    pub fn read(folder: &Path) -> Result<Self> {
        Self::from_file(&processor_file(folder)?)
    }

    /// The same, where the file may only be that of one of these classes of transformers.
    ///
    /// # Errors
    /// As [`ClipImageProcessor::read`]; if it names another class.
    pub(crate) fn read_any(folder: &Path, classes: &[&str]) -> Result<Self> {
        let file = processor_file(folder)?;
        file.only("image_processor_type", &classes.iter().map(|class| json!(class)).collect::<Vec<_>>())?;
        Self::from_file(&file)
    }

    fn from_file(file: &ConfigFile) -> Result<Self> {
        let class = file.maybe_str("image_processor_type")?.unwrap_or_default();
        let is_siglip = class.starts_with("Siglip");
        let file = &if is_siglip { file.clone().with_defaults(of_siglip()) } else { file.clone() };
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
        let processor = Self { resize, crop, scaling: Scaling::read(file)? };
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
        let plan = self.plan((width, height));
        let image = self.scaling.scaled(rgb, (width, height), plan.scaled)?.cut(plan.corner, plan.kept);
        Ok(self.scaling.numbers(&image))
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
        let across =
            matrix((width, plan.scaled.0), (plan.corner.0, plan.kept.0), self.scaling.interpolation, kind)?;
        let down =
            matrix((height, plan.scaled.1), (plan.corner.1, plan.kept.1), self.scaling.interpolation, kind)?;
        let turned = linear(&images.contiguous()?, &across, None)?.transpose(2, 3)?.contiguous()?;
        let scaled = linear(&turned, &down, None)?.transpose(2, 3)?.contiguous()?;
        let table = |numbers: [f64; 3]| -> Result<Tensor> {
            let table = Tensor::new(&numbers.map(|number| number as f32), &Device::Cpu)?;
            Ok(table.to_device(kind.1)?.to_dtype(kind.0)?.reshape((1, 3, 1, 1))?)
        };
        let scaled = (scaled * (255.0 * self.scaling.rescale))?.broadcast_sub(&table(self.scaling.mean)?)?;
        Ok(scaled.broadcast_div(&table(self.scaling.deviation)?)?)
    }
}

/// What transformers' `SiglipImageProcessor` takes if a file has no such fields.
fn of_siglip() -> [(&'static str, Value); 4] {
    [
        ("do_center_crop", json!(false)),
        ("size", json!({"height": 224, "width": 224})),
        ("image_mean", json!([0.5, 0.5, 0.5])),
        ("image_std", json!([0.5, 0.5, 0.5])),
    ]
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
