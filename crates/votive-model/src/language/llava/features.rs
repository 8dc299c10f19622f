//! From an image to vectors of the language model's width.

use super::config::LlavaConfig;
use crate::clip::ClipVisionLayers;
use crate::error::Result;
use crate::image_tokens::{ImageInput, ImageTokens};
use crate::nn::Linear;
use crate::params::Scope;
use candle_core::{Device, Tensor};
use votive_tensor::segment::Recorder;
use votive_tensor::{Activation, activate};

/// Image encoder and projector.
#[derive(Debug)]
pub(crate) struct ImageFeatures {
    tokens: ImageTokens,
    vision: ClipVisionLayers,
    feature_layers: Vec<usize>,
    keeps_class: bool,
    linear_1: Linear,
    activation: Activation,
    linear_2: Linear,
}

impl ImageFeatures {
    /// The networks below a LLaVA's `model`.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(super) fn new(model: &Scope, config: &LlavaConfig) -> Result<Self> {
        let (tower, projector) = (model.sub("vision_tower"), model.sub("multi_modal_projector"));
        let depth = config.feature_layers.iter().copied().max().unwrap_or(0);
        // What lies behind the layers that are read: the checkpoints hold it, and nothing comes of it.
        tower.sub("post_layernorm").ignore_all();
        for layer in depth..config.vision.num_hidden_layers {
            tower.sub("encoder.layers").sub(layer).ignore_all();
        }
        let (bias, width) = (config.projector_bias, config.text.sizes().hidden_size);
        let features = config.vision.hidden_size * config.feature_layers.len();
        Ok(Self {
            tokens: config.tokens(),
            vision: ClipVisionLayers::new(&tower, &config.vision, depth)?,
            feature_layers: config.feature_layers.clone(),
            keeps_class: config.keeps_class,
            linear_1: Linear::new(&projector.sub("linear_1"), features, width, bias)?,
            activation: config.projector_act,
            linear_2: Linear::new(&projector.sub("linear_2"), width, width, bias)?,
        })
    }

    pub(crate) fn tokens(&self) -> ImageTokens {
        self.tokens
    }

    /// P vectors for each of M images, one after another, `(M·P, D)`.
    ///
    /// # Errors
    /// If an image has another size than the encoder reads.
    pub(crate) fn forward(
        &self,
        images: &[&ImageInput],
        device: &Device,
        recorder: Option<&Recorder>,
    ) -> Result<Tensor> {
        let pixels = ImageInput::stack(images, self.tokens.side, device)?;
        let states = self.vision.states(&pixels, &self.feature_layers, recorder)?;
        let features = Tensor::cat(&states, 2)?;
        let features = match self.keeps_class {
            true => features,
            false => features.narrow(1, 1, features.dim(1)? - 1)?,
        };
        let features = self.linear_1.forward(&features.flatten_to(1)?.contiguous()?)?;
        self.linear_2.forward(&activate(&features, self.activation)?)
    }
}
