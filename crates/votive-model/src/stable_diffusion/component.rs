//! One network of a pipeline's folder.

use crate::error::{ModelError, Result};
use crate::files;
use crate::params::Params;
use candle_core::DType;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A network that lies in a sub-folder with its configuration and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// `unet/`
    UNet,
    /// `vae/`
    Vae,
    /// `text_encoder/`
    TextEncoder,
    /// `text_encoder_2/`, of SDXL
    TextEncoder2,
}

impl Component {
    /// Name of the sub-folder.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::UNet => "unet",
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
        }
    }

    /// Library and class in `model_index.json`.
    pub(super) fn class(self) -> [&'static str; 2] {
        match self {
            Self::UNet => ["diffusers", "UNet2DConditionModel"],
            Self::Vae => ["diffusers", "AutoencoderKL"],
            Self::TextEncoder => ["transformers", "CLIPTextModel"],
            Self::TextEncoder2 => ["transformers", "CLIPTextModelWithProjection"],
        }
    }

    /// Name of the weight file without its extension.
    pub(super) fn stem(self) -> &'static str {
        match self {
            Self::UNet | Self::Vae => "diffusion_pytorch_model",
            Self::TextEncoder | Self::TextEncoder2 => "model",
        }
    }

    /// Writes `config.json` and the weights of this network into its place below `root`.
    ///
    /// `float` is the type that weights are stored in: F32, F16 or BF16.
    ///
    /// # Errors
    /// If a file cannot be written, or the parameters carry an adapter, which has files of its own.
    pub fn save(self, root: &Path, config: &Value, params: &Params, float: DType) -> Result<()> {
        if params.lora().is_some() {
            return Err(ModelError::Adapter(
                "merge it or save it by itself; a model folder holds whole weights".to_owned(),
            ));
        }
        let folder = root.join(self.folder());
        let tensors = params.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone()));
        files::write(&folder.join(format!("{}.safetensors", self.stem())), tensors, float, BTreeMap::new())?;
        files::write_json(&folder.join("config.json"), config)
    }
}
