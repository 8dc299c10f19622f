//! What files call the modules of a network, which are known by their paths.
//!
//! kohya's files write every dot of a path as an underscore, which cannot be undone by itself, since names have
//! underscores of their own. So it goes the other way: each module of the network is spelled in all ways, and a name is
//! looked up among them.

use super::sgm::Sgm;
use std::collections::{BTreeMap, BTreeSet};

/// The modules of a network by all of their spellings.
pub(super) struct ModuleNames<'a> {
    modules: BTreeMap<String, &'a str>,
    /// Spellings of more than one module.
    ambiguous: BTreeSet<String>,
    sgm: Sgm,
}

impl<'a> ModuleNames<'a> {
    /// Spells the modules that have one of these tensors.
    pub(super) fn new<'b: 'a>(tensors: impl Iterator<Item = &'b str> + Clone) -> Self {
        let paths = tensors.filter_map(|name| name.strip_suffix(".weight"));
        let sgm = Sgm::of(paths.clone());
        let is_text = paths.clone().any(|path| path.ends_with("embeddings.token_embedding"));
        let mut names = Self { modules: BTreeMap::new(), ambiguous: BTreeSet::new(), sgm };
        for path in paths {
            let mut spellings = BTreeSet::from([path.to_owned(), flat(path)]);
            spellings.extend(names.sgm.name(path).map(|name| flat(&name)));
            if is_text {
                let other = other_root(path);
                spellings.extend([flat(&other), other]);
            }
            spellings.into_iter().for_each(|spelling| names.add(spelling, path));
        }
        names
    }

    fn add(&mut self, spelling: String, path: &'a str) {
        match self.modules.get(&spelling) {
            Some(known) if *known != path => {
                self.ambiguous.insert(spelling);
            }
            _ => {
                self.modules.insert(spelling, path);
            }
        }
    }

    /// The path of the module that a file calls `name`, or what is wrong with the name.
    pub(super) fn find(&self, name: &str) -> Result<&'a str, &'static str> {
        if self.ambiguous.contains(name) {
            return Err("the model has more than one module of this name");
        }
        self.modules.get(name).copied().ok_or("the model has no such module")
    }

    /// What kohya's files call the module of this path; sgm's name where the network is SDXL's.
    pub(super) fn of_kohya(&self, path: &str) -> String {
        let is_xl = self.modules.contains_key("add_embedding_linear_1");
        let is_text = self.modules.contains_key("text_model_embeddings_token_embedding");
        let sgm = is_xl.then(|| self.sgm.name(path)).flatten();
        match sgm {
            Some(name) => flat(&name),
            None if is_text => flat(&rooted(path)),
            None => flat(path),
        }
    }
}

fn flat(path: &str) -> String {
    path.replace('.', "_")
}

/// What transformers up to 4 put before the modules of CLIP's text encoder, and 5 does not.
const TEXT_ROOT: &str = "text_model.";

/// The path of a text encoder's module with that word if it is without, and without if it has it.
fn other_root(path: &str) -> String {
    path.strip_prefix(TEXT_ROOT).map_or_else(|| format!("{TEXT_ROOT}{path}"), str::to_owned)
}

/// The path of a text encoder's module as files name it; the projection lies outside.
pub(super) fn rooted(path: &str) -> String {
    let is_whole = path.starts_with(TEXT_ROOT) || path == "text_projection";
    if is_whole { path.to_owned() } else { format!("{TEXT_ROOT}{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tensors of a U-Net with two levels, of one and two residual blocks, attention in the second.
    const UNET: [&str; 16] = [
        "conv_in.weight",
        "add_embedding.linear_1.weight",
        "down_blocks.0.resnets.0.conv1.weight",
        "down_blocks.0.downsamplers.0.conv.weight",
        "down_blocks.1.resnets.0.conv1.weight",
        "down_blocks.1.resnets.1.conv_shortcut.weight",
        "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q.weight",
        "mid_block.resnets.1.time_emb_proj.weight",
        "mid_block.attentions.0.proj_in.weight",
        "up_blocks.0.resnets.2.conv2.weight",
        "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.0.proj.weight",
        "up_blocks.0.upsamplers.0.conv.weight",
        "up_blocks.1.resnets.1.conv1.weight",
        "conv_norm_out.weight",
        "conv_out.weight",
        "time_embedding.linear_2.weight",
    ];

    #[test]
    fn sgm_counts_through_the_levels() {
        let names = ModuleNames::new(UNET.into_iter());
        for (kohya, path) in [
            ("input_blocks_0_0", "conv_in"),
            ("label_emb_0_0", "add_embedding.linear_1"),
            ("input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"),
            ("input_blocks_2_0_op", "down_blocks.0.downsamplers.0.conv"),
            ("input_blocks_3_0_in_layers_2", "down_blocks.1.resnets.0.conv1"),
            ("input_blocks_4_0_skip_connection", "down_blocks.1.resnets.1.conv_shortcut"),
            (
                "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
                "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q",
            ),
            ("middle_block_2_emb_layers_1", "mid_block.resnets.1.time_emb_proj"),
            ("middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
            ("output_blocks_2_0_out_layers_3", "up_blocks.0.resnets.2.conv2"),
            (
                "output_blocks_2_1_transformer_blocks_0_ff_net_0_proj",
                "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.0.proj",
            ),
            ("output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
            ("output_blocks_4_0_in_layers_2", "up_blocks.1.resnets.1.conv1"),
            ("out_2", "conv_out"),
            ("time_embed_2", "time_embedding.linear_2"),
        ] {
            assert_eq!(names.find(kohya), Ok(path), "{kohya}");
            assert_eq!(names.of_kohya(path), kohya);
            assert_eq!(names.find(&flat(path)), Ok(path));
        }
        assert_eq!(names.find("input_blocks_9_0_op"), Err("the model has no such module"));
    }

    #[test]
    fn a_network_that_is_not_sdxls_is_written_with_its_own_names() {
        let names = ModuleNames::new(UNET.into_iter().filter(|name| !name.starts_with("add_")));
        assert_eq!(names.of_kohya("mid_block.attentions.0.proj_in"), "mid_block_attentions_0_proj_in");
    }

    #[test]
    fn a_text_encoder_goes_by_its_names_of_transformers_4_and_5() {
        for start in ["", "text_model."] {
            let tensors = ["embeddings.token_embedding.weight", "encoder.layers.0.self_attn.q_proj.weight"]
                .map(|name| format!("{start}{name}"));
            let names = ModuleNames::new(tensors.iter().map(String::as_str));
            let path = format!("{start}encoder.layers.0.self_attn.q_proj");
            for name in [
                "text_model_encoder_layers_0_self_attn_q_proj",
                "encoder_layers_0_self_attn_q_proj",
                if start.is_empty() {
                    "text_model.encoder.layers.0.self_attn.q_proj"
                } else {
                    "encoder.layers.0.self_attn.q_proj"
                },
            ] {
                assert_eq!(names.find(name), Ok(path.as_str()), "{name}");
            }
            assert_eq!(names.of_kohya(&path), "text_model_encoder_layers_0_self_attn_q_proj");
        }
    }

    #[test]
    fn a_name_of_two_modules_is_neither() {
        let names = ModuleNames::new(["a.b_c.weight", "a_b.c.weight", "a.d.weight"].into_iter());
        assert_eq!(names.find("a_b_c"), Err("the model has more than one module of this name"));
        assert_eq!(names.find("a_d"), Ok("a.d"));
    }
}
