//! Configuration of [`super::UNet2DConditionModel`]: the fields of diffusers' class of that name.

use super::transformer_layers::{TransformerLayers, transformer_layers};
use crate::config::ConfigFile;
use crate::error::Result;
use serde_json::{Value, json};
use votive_diffusion::{Conditioning, ImageSizes};

/// What a U-Net is told beside the time and the prompt (`addition_embed_type` "text_time"): the pooled prompt, and the
/// sizes of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdditionConfig {
    /// Sines and cosines of each size.
    pub time_embed_dim: usize,
    /// Numbers of the pooled prompt and of the sines and cosines of all sizes.
    pub input_dim: usize,
}

/// One resolution of a U-Net, with the blocks on the way down and on the way up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UNetLevel {
    /// Channels.
    pub channels: usize,
    /// Residual blocks on the way down; there is one more on the way up.
    pub layers: usize,
    /// Attention after each residual block on the way down (`CrossAttnDownBlock2D`).
    pub down_attention: bool,
    /// Attention after each residual block on the way up (`CrossAttnUpBlock2D`).
    pub up_attention: bool,
    /// Attention heads.
    pub heads: usize,
    /// Transformer blocks in each attention on the way down. Those of the first of the last level are the middle's too.
    pub down_transformers: TransformerLayers,
    /// Transformer blocks in each attention on the way up.
    pub up_transformers: TransformerLayers,
}

/// Shape of a conditional U-Net. The attention in its middle is that of the last level.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of the noisy latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Height and width of the latents that it was trained on; says nothing about the sizes that are accepted.
    pub sample_size: Option<(usize, usize)>,
    /// From full resolution down; each level after the first has half the size.
    pub levels: Vec<UNetLevel>,
    /// Width of the prompt embeddings.
    pub cross_attention_dim: usize,
    /// Groups of every group normalisation.
    pub norm_num_groups: usize,
    /// ε of the residual blocks' normalisation.
    pub norm_eps: f64,
    /// Project into the transformer blocks with a matrix (Stable Diffusion 2) or a 1×1 convolution (1).
    pub use_linear_projection: bool,
    /// Map the input from [0, 1] to [−1, 1].
    pub center_input_sample: bool,
    /// Put the cosines of the timestep before the sines.
    pub flip_sin_to_cos: bool,
    /// Shift of the timestep's frequencies.
    pub freq_shift: f64,
    /// Width of the time embedding; four times the first level's channels if none.
    pub time_embedding_dim: Option<usize>,
    /// Padding of the convolutions of stride two.
    pub downsample_padding: usize,
    /// What the residual blocks of the middle divide their sum by.
    pub mid_block_scale_factor: f64,
    /// What it is told beside the time and the prompt.
    pub addition: Option<AdditionConfig>,
}

impl Default for UNetConfig {
    /// The U-Net of Stable Diffusion 1.
    fn default() -> Self {
        let level = |channels, attention| UNetLevel {
            channels,
            layers: 2,
            down_attention: attention,
            up_attention: attention,
            heads: 8,
            down_transformers: TransformerLayers::Same(1),
            up_transformers: TransformerLayers::Same(1),
        };
        Self {
            in_channels: 4,
            out_channels: 4,
            sample_size: Some((64, 64)),
            levels: vec![level(320, true), level(640, true), level(1280, true), level(1280, false)],
            cross_attention_dim: 768,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            use_linear_projection: false,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            time_embedding_dim: None,
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            addition: None,
        }
    }
}

const DOWN: [&str; 2] = ["DownBlock2D", "CrossAttnDownBlock2D"];
const UP: [&str; 2] = ["UpBlock2D", "CrossAttnUpBlock2D"];
const MID: &str = "UNetMidBlock2DCrossAttn";
const TEXT_TIME: &str = "text_time";

impl UNetConfig {
    /// Reads a `config.json`. Absent fields have diffusers' defaults. Every field that changes the result is used, or
    /// refused unless it has its default; `upcast_attention` changes nothing here, because everything is computed in
    /// f32.
    ///
    /// # Errors
    /// If a field has the wrong type, or a value that is not supported.
    pub fn from_file(file: &ConfigFile) -> Result<Self> {
        refuse_other_variants(file)?;
        let or = |field: &str, default: usize| -> Result<usize> {
            Ok(file.maybe_usize(field)?.unwrap_or(default))
        };
        let number =
            |field: &str, default: f64| -> Result<f64> { Ok(file.maybe_f64(field)?.unwrap_or(default)) };
        let levels = levels(file)?;
        let contexts = file.per_level("cross_attention_dim", levels.len())?.unwrap_or_default();
        if contexts.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(file.unsupported("cross_attention_dim", "one width for all levels"));
        }
        let config = Self {
            in_channels: or("in_channels", 4)?,
            out_channels: or("out_channels", 4)?,
            sample_size: file.per_level("sample_size", 2)?.map(|side| (side[0], side[1])),
            cross_attention_dim: contexts.first().copied().unwrap_or(1280),
            levels,
            norm_num_groups: or("norm_num_groups", 32)?,
            norm_eps: number("norm_eps", 1e-5)?,
            use_linear_projection: file.bool_or("use_linear_projection", false)?,
            center_input_sample: file.bool_or("center_input_sample", false)?,
            flip_sin_to_cos: file.bool_or("flip_sin_to_cos", true)?,
            freq_shift: number("freq_shift", 0.0)?,
            time_embedding_dim: file.maybe_usize("time_embedding_dim")?,
            downsample_padding: or("downsample_padding", 1)?,
            mid_block_scale_factor: number("mid_block_scale_factor", 1.0)?,
            addition: addition(file)?,
        };
        config.check(file)?;
        Ok(config)
    }

    /// Refuses sizes that no network can have.
    fn check(&self, file: &ConfigFile) -> Result<()> {
        let groups = self.norm_num_groups;
        if self.levels.iter().any(|level| level.channels == 0 || !level.channels.is_multiple_of(groups)) {
            return Err(
                file.unsupported("block_out_channels", &format!("multiples of norm_num_groups, {groups}"))
            );
        }
        if self.levels.iter().any(|level| level.heads == 0 || level.heads > level.channels) {
            return Err(
                file.unsupported("attention_head_dim", "from 1 to the level's channels: the number of heads")
            );
        }
        if self.levels.iter().any(|level| level.layers == 0) {
            return Err(file.unsupported("layers_per_block", "at least 1"));
        }
        if self.mid_block_scale_factor == 0.0 {
            return Err(file.unsupported("mid_block_scale_factor", "not 0"));
        }
        Ok(())
    }

    /// Prompts, and the sizes of each picture if this network is told them.
    ///
    /// # Errors
    /// If there are not as many sizes as prompts.
    pub fn with_sizes(&self, prompts: Conditioning, sizes: &[ImageSizes]) -> Result<Conditioning> {
        Ok(if self.addition.is_some() { prompts.with_sizes(sizes)? } else { prompts })
    }

    /// What must be alike in two networks for the same latents and the same conditioning to go into both.
    #[must_use]
    pub fn inputs(&self) -> (usize, usize, Option<AdditionConfig>) {
        (self.in_channels, self.cross_attention_dim, self.addition)
    }

    /// The number of transformer blocks on the way up, level by level from below, if it is not that on the way down.
    fn reversed_layers(&self) -> Option<Vec<Value>> {
        let is_mirrored = |level: &UNetLevel| {
            matches!(level.down_transformers, TransformerLayers::Same(_))
                && level.down_transformers == level.up_transformers
        };
        let up = self.levels.iter().rev().map(|level| level.up_transformers.to_json());
        (!self.levels.iter().all(is_mirrored)).then(|| up.collect())
    }

    /// The `config.json` of this configuration.
    #[must_use]
    pub fn to_json(&self) -> Value {
        fn list<T>(levels: &[UNetLevel], read: impl Fn(&UNetLevel) -> T) -> Vec<T> {
            levels.iter().map(read).collect()
        }
        let mut up = list(&self.levels, |level| UP[usize::from(level.up_attention)]);
        up.reverse();
        let side = |(height, width)| if height == width { json!(height) } else { json!([height, width]) };
        json!({
            "_class_name": "UNet2DConditionModel",
            "_diffusers_version": super::DIFFUSERS_VERSION,
            "act_fn": "silu",
            "addition_embed_type": self.addition.map(|_| TEXT_TIME),
            "addition_time_embed_dim": self.addition.map(|addition| addition.time_embed_dim),
            "attention_head_dim": list(&self.levels, |level| level.heads),
            "block_out_channels": list(&self.levels, |level| level.channels),
            "center_input_sample": self.center_input_sample,
            "cross_attention_dim": self.cross_attention_dim,
            "down_block_types": list(&self.levels, |level| DOWN[usize::from(level.down_attention)]),
            "downsample_padding": self.downsample_padding,
            "flip_sin_to_cos": self.flip_sin_to_cos,
            "freq_shift": self.freq_shift,
            "in_channels": self.in_channels,
            "layers_per_block": list(&self.levels, |level| level.layers),
            "mid_block_scale_factor": self.mid_block_scale_factor,
            "mid_block_type": MID,
            "norm_eps": self.norm_eps,
            "norm_num_groups": self.norm_num_groups,
            "out_channels": self.out_channels,
            "projection_class_embeddings_input_dim": self.addition.map(|addition| addition.input_dim),
            "reverse_transformer_layers_per_block": self.reversed_layers(),
            "sample_size": self.sample_size.map(side),
            "time_embedding_dim": self.time_embedding_dim,
            "transformer_layers_per_block": list(&self.levels, |level| level.down_transformers.to_json()),
            "up_block_types": up,
            "use_linear_projection": self.use_linear_projection,
        })
    }
}

fn levels(file: &ConfigFile) -> Result<Vec<UNetLevel>> {
    let down = attention_levels(file, "down_block_types", DOWN, [true, true, true, false])?;
    let mut up = attention_levels(file, "up_block_types", UP, [false, true, true, true])?;
    up.reverse();
    let n = down.len();
    if up.len() != n || n == 0 {
        return Err(
            file.unsupported("up_block_types", &format!("as many as down_block_types, at least 1, here {n}"))
        );
    }
    let per_level = |field: &str, default: usize| -> Result<Vec<usize>> {
        Ok(file.per_level(field, n)?.unwrap_or_else(|| vec![default; n]))
    };
    let channels = match file.per_level("block_out_channels", n)? {
        Some(channels) => channels,
        None if n == 4 => vec![320, 640, 1280, 1280],
        None => return Err(file.unsupported("block_out_channels", &format!("a list of {n} numbers"))),
    };
    let layers = per_level("layers_per_block", 2)?;
    // diffusers named the field wrongly and kept the name: it holds the number of heads.
    let heads = per_level("attention_head_dim", 8)?;
    let (down_transformers, up_transformers) = transformer_layers(file, n, &layers)?;
    let level = |i: usize| UNetLevel {
        channels: channels[i],
        layers: layers[i],
        down_attention: down[i],
        up_attention: up[i],
        heads: heads[i],
        down_transformers: down_transformers[i].clone(),
        up_transformers: up_transformers[i].clone(),
    };
    Ok((0..n).map(level).collect())
}

/// What the network is told beside the time and the prompt.
fn addition(file: &ConfigFile) -> Result<Option<AdditionConfig>> {
    const FIELDS: [&str; 2] = ["addition_time_embed_dim", "projection_class_embeddings_input_dim"];
    file.only("addition_embed_type", &[json!(TEXT_TIME)])?;
    if file.get("addition_embed_type").is_none() {
        return FIELDS.into_iter().try_for_each(|field| file.only(field, &[])).map(|()| None);
    }
    let [time_embed_dim, input_dim] = [file.usize(FIELDS[0])?, file.usize(FIELDS[1])?];
    if time_embed_dim < 2 {
        return Err(file.unsupported(FIELDS[0], "at least 2"));
    }
    if time_embed_dim.saturating_mul(ImageSizes::COUNT) >= input_dim {
        let least = format!("more than {} times {}, {time_embed_dim}", ImageSizes::COUNT, FIELDS[0]);
        return Err(file.unsupported(FIELDS[1], &least));
    }
    Ok(Some(AdditionConfig { time_embed_dim, input_dim }))
}

/// Which blocks have attention, from the names of the block types without and with.
fn attention_levels(
    file: &ConfigFile,
    field: &str,
    names: [&str; 2],
    default: [bool; 4],
) -> Result<Vec<bool>> {
    if file.get(field).is_none() {
        return Ok(default.to_vec());
    }
    let types = file.strings(field)?;
    let read = |name: &String| names.iter().position(|known| known == name).map(|i| i == 1);
    let unknown = || file.unsupported(field, &format!("supported: {}, {}", names[0], names[1]));
    types.iter().map(read).collect::<Option<_>>().ok_or_else(unknown)
}

/// Refuses the fields that make another network than that of Stable Diffusion 1, 2 and XL.
fn refuse_other_variants(file: &ConfigFile) -> Result<()> {
    let one = [json!(1), json!(1.0)];
    let zero = [json!(0), json!(0.0)];
    let no = [json!(false)];
    let fields: [(&str, &[Value]); 17] = [
        ("_class_name", &[json!("UNet2DConditionModel")]),
        ("mid_block_type", &[json!(MID)]),
        ("act_fn", &[json!("silu"), json!("swish")]),
        ("dropout", &zero),
        ("dual_cross_attention", &no),
        ("resnet_time_scale_shift", &[json!("default")]),
        ("resnet_skip_time_act", &no),
        ("resnet_out_scale_factor", &one),
        ("time_embedding_type", &[json!("positional")]),
        ("conv_in_kernel", &[json!(3)]),
        ("conv_out_kernel", &[json!(3)]),
        ("attention_type", &[json!("default")]),
        ("class_embeddings_concat", &no),
        ("mid_block_only_cross_attention", &no),
        ("addition_embed_type_num_heads", &[json!(64)]),
        ("only_cross_attention", &no),
        ("upcast_attention", &[json!(false), json!(true)]),
    ];
    fields.into_iter().try_for_each(|(field, supported)| file.only(field, supported))?;
    let absent = [
        "num_attention_heads",
        "class_embed_type",
        "num_class_embeds",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "time_embedding_act_fn",
        "timestep_post_act",
        "time_cond_proj_dim",
        "cross_attention_norm",
    ];
    absent.into_iter().try_for_each(|field| file.only(field, &[]))?;
    // Null is not the default of these two: it takes a part of the network away.
    let given_null = |field: &&str| file.value().get(*field).is_some_and(Value::is_null);
    match ["mid_block_type", "norm_num_groups"].into_iter().find(given_null) {
        Some(field) => {
            Err(file.unsupported(field, "null takes this part away; leave the field out for its default"))
        }
        None => Ok(()),
    }
}
