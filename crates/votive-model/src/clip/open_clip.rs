//! Weights as open_clip names them, under the names of transformers: HPSv2 and many other CLIP models are published so.
//!
//! Source: Ilharco et al., open_clip, `src/open_clip/model.py` and `transformer.py`. The numbers are the same; open_clip keeps
//! the three projections of an attention in one matrix, and its last maps the other way round, as what rows are multiplied by.

use crate::error::{ModelError, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// A name that files of open_clip have, and no others.
const OWN: &str = "visual.conv1.weight";

/// Names outside the layers of what is the same in both.
const NAMES: [(&str, &str); 12] = [
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    (OWN, "vision_model.embeddings.patch_embedding.weight"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.weight", "vision_model.pre_layrnorm.weight"),
    ("visual.ln_pre.bias", "vision_model.pre_layrnorm.bias"),
    ("visual.ln_post.weight", "vision_model.post_layernorm.weight"),
    ("visual.ln_post.bias", "vision_model.post_layernorm.bias"),
    ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.weight", "text_model.final_layer_norm.weight"),
    ("ln_final.bias", "text_model.final_layer_norm.bias"),
    ("logit_scale", "logit_scale"),
];
/// Matrices that are turned.
const TURNED: [(&str, &str); 2] =
    [("visual.proj", "visual_projection.weight"), ("text_projection", "text_projection.weight")];

/// Where the layers of either tower are.
const TOWERS: [(&str, &str); 2] = [
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("transformer.resblocks.", "text_model.encoder.layers."),
];

/// Names within a layer.
const LAYER: [(&str, &str); 5] = [
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("attn.out_proj.", "self_attn.out_proj."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
];

/// The tensors under transformers' names, if they have open_clip's; as they are, if not. A name that is unknown stays, so that it
/// is complained of.
///
/// # Errors
/// If an attention's matrix is not that of three projections, or a matrix has another number of dimensions.
pub(super) fn as_in_transformers(tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    if !tensors.contains_key(OWN) {
        return Ok(tensors);
    }
    let mut renamed = BTreeMap::new();
    for (name, tensor) in tensors {
        if let Some((_, new)) = TURNED.iter().find(|(old, _)| *old == name) {
            renamed.insert((*new).to_owned(), tensor.t()?.contiguous()?);
        } else if let Some((layer, part)) = in_a_layer(&name) {
            renamed.extend(of_a_layer(&name, &layer, part, tensor)?);
        } else {
            let known = NAMES.iter().find(|(old, _)| *old == name);
            renamed.insert(known.map_or(name, |(_, new)| (*new).to_owned()), tensor);
        }
    }
    Ok(renamed)
}

/// transformers' place of a layer, and what open_clip calls a tensor within it.
fn in_a_layer(name: &str) -> Option<(String, &str)> {
    TOWERS.iter().find_map(|(old, new)| {
        let (number, part) = name.strip_prefix(old)?.split_once('.')?;
        Some((format!("{new}{number}."), part))
    })
}

fn of_a_layer(name: &str, layer: &str, part: &str, tensor: Tensor) -> Result<Vec<(String, Tensor)>> {
    if let Some(kind) = part.strip_prefix("attn.in_proj_") {
        let rows = tensor.dim(0)?;
        if !rows.is_multiple_of(3) {
            return Err(ModelError::Shape {
                what: format!("tensor `{name}`"),
                expected: "the rows of three projections".to_owned(),
                found: rows.to_string(),
            });
        }
        let parts = ["q", "k", "v"].into_iter().zip(tensor.chunk(3, 0)?);
        let one = |(projection, tensor): (&str, Tensor)| {
            Ok((format!("{layer}self_attn.{projection}_proj.{kind}"), tensor.contiguous()?))
        };
        return parts.map(one).collect();
    }
    let known = LAYER.iter().find_map(|(old, new)| Some((new, part.strip_prefix(old)?)));
    let name = known.map_or_else(|| name.to_owned(), |(new, kind)| format!("{layer}{new}{kind}"));
    Ok(vec![(name, tensor)])
}
