//! From an image to vectors of the language model's width.

use super::config::LlavaConfig;
use crate::error::Result;
use crate::image_tokens::{ImageInput, ImageTokens};
use crate::language::vision::ImageEncoder;
use crate::nn::Linear;
use crate::params::Scope;
use crate::vision_transformer::VisionLayers;
use candle_core::{Device, Tensor};
use votive_tensor::Recorder;
use votive_tensor::{Activation, activate};

/// Image encoder and projector.
#[derive(Debug)]
pub(crate) struct ImageFeatures {
    tokens: ImageTokens,
    /// Pixels along a side of an image.
    side: usize,
    vision: VisionLayers,
    feature_layers: Vec<usize>,
    drops_first: bool,
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
        let depth = config.depth();
        // What lies behind the layers that are read: the checkpoints hold it, and nothing comes of it.
        ["post_layernorm", "head"].iter().for_each(|part| tower.sub(part).ignore_all());
        for layer in depth..config.vision.layer.layers {
            tower.sub("encoder.layers").sub(layer).ignore_all();
        }
        let (bias, width) = (config.projector_bias, config.text.sizes().hidden_size);
        let features = config.vision.layer.width * config.feature_layers.len();
        Ok(Self {
            tokens: config.tokens(),
            side: config.vision.image_size,
            vision: VisionLayers::new(&tower, config.vision, depth)?,
            feature_layers: config.feature_layers.clone(),
            drops_first: config.drops_first,
            linear_1: Linear::new(&projector.sub("linear_1"), features, width, bias)?,
            activation: config.projector_act,
            linear_2: Linear::new(&projector.sub("linear_2"), width, width, bias)?,
        })
    }
}

impl ImageEncoder for ImageFeatures {
    fn tokens(&self) -> ImageTokens {
        self.tokens
    }

    fn forward(
        &self,
        images: &[&ImageInput],
        device: &Device,
        recorder: Option<&Recorder>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let pixels = ImageInput::stack(images, self.side, device)?;
        let states = self.vision.states(&pixels, &self.feature_layers, recorder)?;
        let features = Tensor::cat(&states, 2)?;
        let features = match self.drops_first {
            true => features.narrow(1, 1, features.dim(1)? - 1)?,
            false => features,
        };
        let features = self.linear_1.forward(&features.flatten_to(1)?.contiguous()?)?;
        let vectors = self.linear_2.forward(&activate(&features, self.activation)?)?;
        Ok((vectors, Vec::new()))
    }
}
