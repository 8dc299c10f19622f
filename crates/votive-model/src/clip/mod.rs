//! CLIP, `CLIPModel` in transformers: a text and an image tower that end in one space. Stable Diffusion takes its text
//! encoders from it; a score of how well an image fits its prompt takes both.
//!
//! Names, configuration fields and arithmetic are those of transformers 5.

mod aesthetic;
mod image_processor;
mod layer;
mod model;
mod open_clip;
mod text;
mod text_config;
mod text_projection;
mod vision;
mod vision_config;

pub use aesthetic::AestheticHead;
pub use image_processor::ClipImageProcessor;
pub(crate) use layer::{EncoderLayer, LayerConfig, activation};
pub use model::{ClipConfig, ClipModel, cosines};
pub use text::{ClipTextModel, HiddenStates};
pub use text_config::ClipTextConfig;
pub use text_projection::{ClipTextModelWithProjection, PooledStates};
pub use vision::ClipVisionModel;
pub use vision_config::ClipVisionConfig;
