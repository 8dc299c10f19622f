//! Keys of the tensors in adapters' files, in every spelling that is in use.

/// A network of an image pipeline that an adapter's file may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Adaptable {
    /// The denoiser.
    UNet,
    /// The text encoder.
    TextEncoder,
    /// The second text encoder of SDXL.
    TextEncoder2,
}

impl Adaptable {
    /// Every network that there is.
    pub const ALL: [Self; 3] = [Self::UNet, Self::TextEncoder, Self::TextEncoder2];

    /// Its folder in a pipeline, which is also what diffusers' keys start with.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::UNet => "unet",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
        }
    }
}

/// What kohya's keys start with. The first of a network is what is written for a pipeline with one text encoder.
pub(super) const KOHYA: [(&str, Adaptable); 4] = [
    ("lora_unet_", Adaptable::UNet),
    ("lora_te_", Adaptable::TextEncoder),
    ("lora_te1_", Adaptable::TextEncoder),
    ("lora_te2_", Adaptable::TextEncoder2),
];

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    A,
    B,
    /// Lengths of the rows of the adapted weight.
    Magnitude,
    /// The same as LyCORIS writes it, which may instead be lengths of columns.
    DoraScale,
    Alpha,
}

/// Endings of keys. `_lora.…` is what attention processors of diffusers up to 0.16 had.
const ENDINGS: [(&str, Part); 17] = [
    (".lora_A.weight", Part::A),
    (".lora_B.weight", Part::B),
    (".lora_A.default.weight", Part::A),
    (".lora_B.default.weight", Part::B),
    (".lora.down.weight", Part::A),
    (".lora.up.weight", Part::B),
    (".lora_linear_layer.down.weight", Part::A),
    (".lora_linear_layer.up.weight", Part::B),
    (".lora_down.weight", Part::A),
    (".lora_up.weight", Part::B),
    ("_lora.down.weight", Part::A),
    ("_lora.up.weight", Part::B),
    (".lora_magnitude_vector", Part::Magnitude),
    (".lora_magnitude_vector.weight", Part::Magnitude),
    (".lora_magnitude_vector.default.weight", Part::Magnitude),
    (".dora_scale", Part::DoraScale),
    (".alpha", Part::Alpha),
];

/// Splits a key into its module and what the tensor is to it.
pub(super) fn split(key: &str) -> Option<(&str, Part)> {
    ENDINGS.iter().find_map(|(ending, part)| Some((key.strip_suffix(ending)?, *part)))
}

/// Where a tensor of an image adapter belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) network: Adaptable,
    /// As the file spells it, but for what diffusers itself has renamed.
    pub(super) module: String,
    pub(super) part: Part,
}

/// Reads a key of diffusers' or kohya's; None for any other.
pub(super) fn of_pipeline(key: &str) -> Option<Key> {
    let (path, part) = split(key)?;
    let kohya = KOHYA.iter().find_map(|(start, network)| Some((*network, path.strip_prefix(start)?)));
    if let Some((network, module)) = kohya {
        return (!module.contains('.')).then(|| Key { network, module: module.to_owned(), part });
    }
    let named = Adaptable::ALL
        .into_iter()
        .find_map(|network| Some((network, path.strip_prefix(network.folder())?.strip_prefix('.')?)));
    // The first files were for the U-Net alone and did not say so.
    let (network, path) = named.unwrap_or((Adaptable::UNet, path));
    Some(Key { network, module: renamed(network, &path.replace(".processor.", ".")), part })
}

/// What an attention processor called the maps of its module.
fn renamed(network: Adaptable, path: &str) -> String {
    let names = [("to_q", "q_proj"), ("to_k", "k_proj"), ("to_v", "v_proj"), ("to_out", "out_proj")];
    match path.rsplit_once('.') {
        Some((module, "to_out")) if network == Adaptable::UNet => format!("{module}.to_out.0"),
        Some((module, old)) if network != Adaptable::UNet => {
            let new = names.iter().find(|(name, _)| *name == old).map_or(old, |(_, name)| name);
            format!("{module}.{new}")
        }
        _ => path.to_owned(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_the_same_module() {
        let query = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
        for key in [
            format!("unet.{query}.lora_A.weight"),
            format!("{query}.lora_A.weight"),
            format!("unet.{query}.lora.down.weight"),
            format!("unet.{}", query.replace(".to_q", ".processor.to_q_lora.down.weight")),
            query.replace(".to_q", ".processor.to_q_lora.down.weight"),
        ] {
            let found = of_pipeline(&key).unwrap();
            assert_eq!((found.network, found.module.as_str(), found.part), (Adaptable::UNet, query, Part::A));
        }
        let out = of_pipeline("unet.mid_block.attn1.processor.to_out_lora.up.weight").unwrap();
        assert_eq!((out.module.as_str(), out.part), ("mid_block.attn1.to_out.0", Part::B));
        let layer = "text_model.encoder.layers.0.self_attn";
        for key in [
            format!("text_encoder.{layer}.q_proj.lora_linear_layer.up.weight"),
            format!("text_encoder.{layer}.to_q_lora.up.weight"),
            format!("text_encoder.{layer}.q_proj.lora_B.weight"),
        ] {
            let found = of_pipeline(&key).unwrap();
            assert_eq!((found.network, found.module), (Adaptable::TextEncoder, format!("{layer}.q_proj")));
        }
    }

    #[test]
    fn kohyas_keys_keep_their_underscores() {
        for (key, network, module, part) in [
            ("lora_unet_conv_in.alpha", Adaptable::UNet, "conv_in", Part::Alpha),
            ("lora_te_text_model_x.dora_scale", Adaptable::TextEncoder, "text_model_x", Part::DoraScale),
            ("lora_te1_a_b.lora_down.weight", Adaptable::TextEncoder, "a_b", Part::A),
            ("lora_te2_a.lora_up.weight", Adaptable::TextEncoder2, "a", Part::B),
        ] {
            assert_eq!(of_pipeline(key), Some(Key { network, module: module.to_owned(), part }));
        }
        for other in
            ["lora_unet_a.hada_w1_a", "lora_unet_a.lora_mid.weight", "lora_unet_a.lokr_w1", "emb_params"]
        {
            assert_eq!(of_pipeline(other), None);
        }
    }
}
