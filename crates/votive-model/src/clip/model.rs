//! Both towers of CLIP with their projections, `CLIPModel` in transformers: how well an image fits a text.
//!
//! Source: Radford et al., "Learning transferable visual models from natural language supervision", arXiv:2103.00020,
//! Sec. 2.3.

use super::open_clip;
use super::text_config::ClipTextConfig;
use super::text_projection::ClipTextModelWithProjection;
use super::vision::ClipVisionModel;
use super::vision_config::ClipVisionConfig;
use crate::config::ConfigFile;
use crate::error::Result;
use crate::files;
use crate::nn::Linear;
use crate::params::{Init, Params, Scope};
use candle_core::{DType, Device, Tensor};
use serde_json::json;
use std::path::Path;

/// `ln(1/0.07)`, where training starts (Sec. 2.5), as transformers rounds it.
const LOGIT_SCALE: f64 = 2.6592;

/// Shape of both towers.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    /// The text encoder; its `projection_dim` is that of both.
    pub text: ClipTextConfig,
    /// The image encoder.
    pub vision: ClipVisionConfig,
}

impl ClipConfig {
    /// Reads a `config.json`. Absent fields have transformers' defaults. Files of old versions hold towers a second time as
    /// `text_config_dict` and `vision_config_dict`, which then count, as they do in transformers.
    ///
    /// # Errors
    /// If a field has the wrong type, or a value that is not supported.
    pub fn from_file(file: &ConfigFile) -> Result<Self> {
        if file.get("model_type") != Some(&json!("clip")) {
            return Err(file.unsupported("model_type", "supported: \"clip\", that is CLIPModel"));
        }
        let tower = |name: &str| {
            let older = file.object(&format!("{name}_dict"));
            older.or_else(|| file.object(name)).unwrap_or_else(|| file.empty_object(name))
        };
        let mut text = ClipTextConfig::with_projection(&tower("text_config"))?;
        text.projection_dim = file.maybe_usize("projection_dim")?.unwrap_or(512);
        Ok(Self { text, vision: ClipVisionConfig::from_file(&tower("vision_config"))? })
    }
}

/// Encodes images and texts into one space.
#[derive(Clone, Debug)]
pub struct ClipModel {
    text: ClipTextModelWithProjection,
    vision: ClipVisionModel,
    visual_projection: Linear,
    logit_scale: Tensor,
}

impl ClipModel {
    /// The networks on the parameters of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub fn new(scope: &Scope, config: &ClipConfig) -> Result<Self> {
        let (width, shared) = (config.vision.hidden_size, config.text.projection_dim);
        Ok(Self {
            text: ClipTextModelWithProjection::new(scope, &config.text)?,
            vision: ClipVisionModel::new(&scope.sub("vision_model"), &config.vision)?,
            visual_projection: Linear::new(&scope.sub("visual_projection"), width, shared, false)?,
            logit_scale: scope.get("logit_scale", &[], Init::Constant(LOGIT_SCALE))?,
        })
    }

    /// Reads `config.json` and the weights of a folder, without gradients by the weights; these may have open_clip's names.
    ///
    /// # Errors
    /// If a file is missing or malformed, or the weights don't fit the configuration.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let config = ClipConfig::from_file(&ConfigFile::read(&folder.join("config.json"))?)?;
        let tensors = open_clip::as_in_transformers(files::read_folder(folder, "model", device)?)?;
        let params = Params::new(&folder.display().to_string(), tensors, device);
        params.build(|scope| Self::new(scope, &config))
    }

    /// The text encoder's configuration.
    #[must_use]
    pub fn text_config(&self) -> &ClipTextConfig {
        self.text.config()
    }

    /// The image encoder's configuration.
    #[must_use]
    pub fn vision_config(&self) -> &ClipVisionConfig {
        self.vision.config()
    }

    /// Images in the shared space, with a gradient by their pixels.
    ///
    /// # Shapes
    /// As [`ClipVisionModel::forward`] → `(B, projection_dim)`
    /// # Errors
    /// As [`ClipVisionModel::forward`].
    pub fn image_embeds(&self, pixels: &Tensor) -> Result<Tensor> {
        self.visual_projection.forward(&self.vision.forward(pixels)?)
    }

    /// Texts in the shared space.
    ///
    /// # Shapes
    /// `ids (B, S)` u32 → `(B, projection_dim)`
    /// # Errors
    /// As [`super::ClipTextModel::forward`].
    pub fn text_embeds(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(self.text.forward(ids)?.pooled)
    }

    /// Logarithm of what cosines are multiplied by to be logits; it is trained. No shape: one number.
    #[must_use]
    pub fn logit_scale(&self) -> &Tensor {
        &self.logit_scale
    }

    /// What cosines are multiplied by to be logits, `exp(logit_scale)`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn scale(&self) -> Result<f64> {
        Ok(self.logit_scale.to_dtype(DType::F64)?.to_scalar::<f64>()?.exp())
    }
}

/// Cosine of the angle between each row of `a` and that of `b`.
///
/// # Shapes
/// `(B, D)`, `(B, D)` → `(B,)`
/// # Errors
/// If the shapes differ.
pub fn cosines(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let length = |x: &Tensor| x.sqr()?.sum(1)?.sqrt();
    Ok(((a * b)?.sum(1)? / (length(a)? * length(b)?)?)?)
}
