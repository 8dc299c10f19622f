//! `config.json` of Qwen3-VL: the fields of transformers' `Qwen3VLConfig`.

use crate::clip::activation;
use crate::config::ConfigFile;
use crate::error::Result;
use crate::image_tokens::{ImageTokens, ImageVectors};
use crate::language::llama::{LlamaConfig, Rope};
use crate::language::rope::{DEFAULT_THETA, rope_fields};
use crate::language::sizes::positive;
use crate::language::vision::{placeholder, text_part};
use serde_json::json;
use votive_tensor::Activation;

/// The text part's sizes in transformers' class, which a file may leave out.
const TEXT_DEFAULTS: [(&str, usize); 6] = [
    ("vocab_size", 151_936),
    ("hidden_size", 4096),
    ("intermediate_size", 22_016),
    ("num_hidden_layers", 32),
    ("num_attention_heads", 32),
    ("max_position_embeddings", 128_000),
];
const TEXT_THETA: f64 = 500_000.0;
/// Frequencies that turn by time, row and column.
const SECTION: [usize; 3] = [24, 20, 20];

/// The same of the image encoder.
const VISION_DEFAULTS: [(&str, usize); 9] = [
    ("depth", 27),
    ("hidden_size", 1152),
    ("intermediate_size", 4304),
    ("num_heads", 16),
    ("patch_size", 16),
    ("spatial_merge_size", 2),
    ("temporal_patch_size", 2),
    ("out_hidden_size", 3584),
    ("num_position_embeddings", 2304),
];
const DEEPSTACK: [usize; 3] = [8, 16, 24];

const IMAGE_TOKEN: usize = 151_655;

/// Shape of a Qwen3-VL.
#[derive(Debug)]
pub(super) struct Qwen3VlConfig {
    /// The language model: a Qwen3 with other positions.
    pub(super) text: LlamaConfig,
    /// Which of a position's three numbers each rotary frequency is multiplied by.
    pub(super) axes: Vec<usize>,
    /// The image encoder.
    pub(super) vision: VisionConfig,
    /// Token that stands for a vector of an image.
    image_token: u32,
}

/// Shape of the image encoder.
#[derive(Clone, Debug)]
pub(super) struct VisionConfig {
    pub(super) width: usize,
    /// Width inside the feed-forward nets.
    pub(super) inner: usize,
    pub(super) heads: usize,
    pub(super) layers: usize,
    pub(super) activation: Activation,
    /// Pixels along a side of a patch.
    pub(super) patch: usize,
    /// Pictures of a film that one patch spans.
    pub(super) frames: usize,
    /// Patches along a side of what becomes one vector.
    pub(super) merge: usize,
    /// Learned positions along a side of their square.
    pub(super) side: usize,
    /// Width of a vector: the language model's.
    pub(super) out: usize,
    /// Blocks, counted from 0, whose results are added behind the language model's first layers.
    pub(super) deepstack: Vec<usize>,
    /// Rotary positions of patches.
    pub(super) rope: Rope,
}

impl Qwen3VlConfig {
    /// Reads a `config.json`; absent fields are what transformers' configuration class makes them.
    ///
    /// # Errors
    /// If a field has the wrong type, or a value that is not supported.
    pub(super) fn read(file: &ConfigFile) -> Result<Self> {
        file.only("quantization_config", &[])?;
        let (text, axes) = read_text(file)?;
        let vision = file.object("vision_config").unwrap_or_else(|| file.empty_object("vision_config"));
        let vision = VisionConfig::read(&vision, &text)?;
        let image_token = placeholder(file, &["image_token_id"], IMAGE_TOKEN, text.sizes.vocab_size)?;
        Ok(Self { text, axes, vision, image_token })
    }

    /// How images are read among tokens.
    pub(super) fn tokens(&self) -> ImageTokens {
        let VisionConfig { patch, merge, .. } = self.vision;
        ImageTokens { placeholder: self.image_token, vectors: ImageVectors::Cells { side: patch * merge } }
    }
}

/// The language model, read as the Qwen3 that it is, and what its rotary frequencies turn by.
fn read_text(file: &ConfigFile) -> Result<(LlamaConfig, Vec<usize>)> {
    let text = text_part(file)?;
    text.only("model_type", &[json!("qwen3_vl_text")])?;
    // Qwen3 may have windows, and this class passes the field over.
    text.only("use_sliding_window", &[json!(false)])?;
    let text = text.with_defaults(TEXT_DEFAULTS).with_defaults([("rope_theta", TEXT_THETA)]);
    let read = LlamaConfig::read(&text.with(&[("model_type", json!("qwen3"))]))?;
    let axes = axes(&text, read.sizes.head_dim / 2)?;
    Ok((read, axes))
}

/// What each of the `pairs` frequencies is multiplied by, 0 time, 1 row, 2 column: from the first one on, one of each in turn, until
/// rows and columns have their share of `mrope_section`.
///
/// # Errors
/// If the shares do not add up, or lie in blocks, as those of Qwen2-VL do.
fn axes(text: &ConfigFile, pairs: usize) -> Result<Vec<usize>> {
    let fields = rope_fields(text)?.unwrap_or_else(|| text.empty_object("rope_parameters"));
    fields.only("mrope_interleaved", &[json!(true)])?;
    let section = fields.maybe_usizes("mrope_section")?.unwrap_or(SECTION.to_vec());
    if section.len() != 3 || section.iter().sum::<usize>() != pairs {
        let supported = format!("three numbers that add up to half the width of a head, {pairs}");
        return Err(fields.unsupported("mrope_section", &supported));
    }
    let axis = |pair: usize| if pair < 3 * section[pair % 3] { pair % 3 } else { 0 };
    Ok((0..pairs).map(axis).collect())
}

impl VisionConfig {
    /// The fields of transformers' `Qwen3VLVisionConfig`, for images before a language model.
    fn read(file: &ConfigFile, text: &LlamaConfig) -> Result<Self> {
        // The hub's files have the whole model's type here.
        file.only("model_type", &[json!("qwen3_vl_vision"), json!("qwen3_vl")])?;
        file.only("in_channels", &[json!(3)])?;
        let file = &file.clone().with_defaults(VISION_DEFAULTS);
        let vision = Self {
            width: positive(file, "hidden_size")?,
            inner: positive(file, "intermediate_size")?,
            heads: positive(file, "num_heads")?,
            layers: positive(file, "depth")?,
            activation: activation(file, "hidden_act", "gelu_pytorch_tanh")?,
            patch: positive(file, "patch_size")?,
            frames: positive(file, "temporal_patch_size")?,
            merge: positive(file, "spatial_merge_size")?,
            side: positive(file, "num_position_embeddings")?.isqrt(),
            out: positive(file, "out_hidden_size")?,
            deepstack: file.maybe_usizes("deepstack_visual_indexes")?.unwrap_or(DEEPSTACK.to_vec()),
            rope: grid_rope(file)?,
        };
        vision.check(file, text)
    }

    fn check(self, file: &ConfigFile, text: &LlamaConfig) -> Result<Self> {
        if !self.width.is_multiple_of(4 * self.heads) {
            return Err(file.unsupported("num_heads", "a divisor of a fourth of hidden_size"));
        }
        file.only("head_dim", &[json!(self.width / self.heads)])?;
        file.only("num_position_embeddings", &[json!(self.side * self.side)])?;
        if self.out != text.sizes.hidden_size {
            let supported = format!("the language model's hidden_size, {}", text.sizes.hidden_size);
            return Err(file.unsupported("out_hidden_size", &supported));
        }
        let blocks = &self.deepstack;
        let are_blocks = blocks.is_sorted_by(|a, b| a < b) && blocks.iter().all(|block| *block < self.layers);
        if !are_blocks || blocks.len() > text.sizes.num_hidden_layers {
            let supported = format!(
                "blocks from 0 to {} in their order, no more than the language model's {} layers",
                self.layers - 1,
                text.sizes.num_hidden_layers
            );
            return Err(file.unsupported("deepstack_visual_indexes", &supported));
        }
        Ok(self)
    }
}

/// The rotary positions of patches, which have no field in older files.
fn grid_rope(file: &ConfigFile) -> Result<Rope> {
    let fields = rope_fields(file)?.unwrap_or_else(|| file.empty_object("rope_parameters"));
    fields.only("rope_type", &[json!("axial"), json!("default")])?;
    let theta = fields.maybe_f64("rope_theta")?.or(file.maybe_f64("rope_theta")?);
    Ok(Rope { theta: theta.unwrap_or(DEFAULT_THETA), ..Rope::default() })
}
