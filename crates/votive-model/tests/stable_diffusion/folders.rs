//! Configurations field by field, and folders in and out.

use crate::CPU;
use crate::gradients::{clip_config, unets, vae_config};
use crate::parity::fixture;
use candle_core::{DType, Tensor};
use serde_json::{Value, json};
use std::path::Path;
use votive_model::config::ConfigFile;
use votive_model::stable_diffusion::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, Component, PipelineClass, StableDiffusionFolder,
    UNet2DConditionModel, UNetConfig, VaeConfig, save_index,
};
use votive_model::{LoraConfig, Params, files};

/// A configuration file with some fields changed.
fn changed(base: &Value, changes: &[(&str, Value)]) -> ConfigFile {
    let folder = tempfile::tempdir().unwrap();
    let mut value = base.clone();
    for (field, change) in changes {
        value[*field] = change.clone();
    }
    let path = folder.path().join("config.json");
    files::write_json(&path, &value).unwrap();
    ConfigFile::read(&path).unwrap()
}

fn saved(pipeline: &str, component: &str) -> Value {
    ConfigFile::read(&fixture(pipeline).join(component).join("config.json")).unwrap().value().clone()
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(result: votive_model::Result<T>, field: &str) {
    let message = result.unwrap_err().to_string();
    assert!(message.contains(&format!("`{field}`")) && message.contains("config.json"), "{field}: {message}");
}

#[test]
fn the_unet_s_other_variants_are_refused_by_name() {
    let base = saved("sd1", "unet");
    let refused = [
        ("_class_name", json!("UNet2DModel")),
        ("act_fn", json!("gelu")),
        ("addition_embed_type", json!("text")),
        ("addition_embed_type_num_heads", json!(32)),
        ("addition_time_embed_dim", json!(256)),
        ("attention_head_dim", json!([2, 2])),
        ("attention_head_dim", json!(0)),
        ("attention_type", json!("gated")),
        ("block_out_channels", json!([8, 16, 25])),
        ("class_embed_type", json!("timestep")),
        ("class_embeddings_concat", json!(true)),
        ("conv_in_kernel", json!(5)),
        ("conv_out_kernel", json!(5)),
        ("cross_attention_dim", json!([32, 32, 16])),
        ("cross_attention_norm", json!("layer_norm")),
        ("down_block_types", json!(["CrossAttnDownBlock2D", "AttnDownBlock2D", "DownBlock2D"])),
        ("dropout", json!(0.1)),
        ("dual_cross_attention", json!(true)),
        ("encoder_hid_dim", json!(16)),
        ("encoder_hid_dim_type", json!("text_proj")),
        ("in_channels", json!("four")),
        ("layers_per_block", json!(0)),
        ("mid_block_only_cross_attention", json!(true)),
        ("mid_block_scale_factor", json!(0)),
        ("mid_block_type", json!("UNetMidBlock2D")),
        ("mid_block_type", Value::Null),
        ("norm_num_groups", json!(0)),
        ("norm_num_groups", Value::Null),
        ("num_attention_heads", json!(8)),
        ("num_class_embeds", json!(10)),
        ("only_cross_attention", json!(true)),
        ("projection_class_embeddings_input_dim", json!(10)),
        ("resnet_out_scale_factor", json!(2.0)),
        ("resnet_skip_time_act", json!(true)),
        ("resnet_time_scale_shift", json!("scale_shift")),
        ("reverse_transformer_layers_per_block", json!(1)),
        ("reverse_transformer_layers_per_block", json!([1, [1, 1], 1])),
        ("time_cond_proj_dim", json!(32)),
        ("time_embedding_act_fn", json!("silu")),
        ("time_embedding_type", json!("fourier")),
        ("timestep_post_act", json!("silu")),
        ("transformer_layers_per_block", json!([[1, 1], [1, 1], [1, 1]])),
        ("up_block_types", json!(["UpBlock2D", "CrossAttnUpBlock2D"])),
    ];
    for (field, value) in refused {
        let names =
            if field == "norm_num_groups" && value == json!(0) { "block_out_channels" } else { field };
        check_refused(UNetConfig::from_file(&changed(&base, &[(field, value)])), names);
    }
    UNetConfig::from_file(&changed(&base, &[("upcast_attention", json!(true)), ("act_fn", json!("swish"))]))
        .unwrap();
}

#[test]
fn every_field_that_diffusers_writes_for_a_unet_is_used_or_refused() {
    // What a value that differs from the saved one does: another configuration, or an error. The rest is harmless.
    let base = saved("sd1", "unet");
    let harmless = ["_diffusers_version", "upcast_attention"];
    let original = UNetConfig::from_file(&changed(&base, &[])).unwrap();
    for (field, value) in base.as_object().unwrap() {
        let other = match value {
            Value::Bool(yes) => json!(!yes),
            Value::Number(_) => json!(12),
            Value::Array(_) => json!([12, 12, 12]),
            Value::Null => json!(7),
            _ => json!("other"),
        };
        let read = UNetConfig::from_file(&changed(&base, &[(field, other)]));
        let noticed = read.map_or(true, |config| config != original);
        assert!(noticed != harmless.contains(&field.as_str()), "{field}");
    }
}

#[test]
fn the_autoencoder_s_other_variants_are_refused_by_name() {
    let base = saved("sd1", "vae");
    let refused = [
        ("_class_name", json!("AutoencoderTiny")),
        ("act_fn", json!("gelu")),
        ("block_out_channels", json!([8, 16, 18])),
        ("down_block_types", json!(["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"])),
        ("latents_mean", json!([0.0, 0.0, 0.0, 0.0])),
        ("latents_std", json!([1.0, 1.0, 1.0, 1.0])),
        ("scaling_factor", json!(0.0)),
        ("shift_factor", json!(0.1)),
        ("up_block_types", json!(["UpDecoderBlock2D"])),
    ];
    for (field, value) in refused {
        check_refused(VaeConfig::from_file(&changed(&base, &[(field, value)])), field);
    }
}

#[test]
fn the_text_encoder_s_other_variants_are_refused_by_name() {
    let base = saved("sd1", "text_encoder");
    let refused = [
        ("hidden_act", json!("relu")),
        ("model_type", json!("t5")),
        ("num_attention_heads", json!(5)),
        ("hidden_size", json!("wide")),
    ];
    for (field, value) in refused {
        check_refused(ClipTextConfig::from_file(&changed(&base, &[(field, value)])), field);
    }
}

#[test]
fn configurations_survive_writing_and_reading() {
    for config in unets() {
        assert_eq!(UNetConfig::from_file(&changed(&config.to_json(), &[])).unwrap(), config);
    }
    assert_eq!(
        UNetConfig::from_file(&changed(
            &json!({}),
            &[("cross_attention_dim", json!(768)), ("sample_size", json!(64))]
        ))
        .unwrap(),
        UNetConfig::default()
    );
    assert_eq!(VaeConfig::from_file(&changed(&vae_config().to_json(), &[])).unwrap(), vae_config());
    assert_eq!(ClipTextConfig::from_file(&changed(&clip_config().to_json(), &[])).unwrap(), clip_config());
}

fn values(params: &Params) -> Vec<(String, Vec<f32>)> {
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    params.iter().map(|(name, tensor)| (name.to_owned(), flat(tensor))).collect()
}

#[test]
fn a_trained_unet_is_saved_among_copies_of_the_other_parts() {
    for pipeline in ["sd1", "sd2", "../sdxl/pipeline"] {
        let folder = StableDiffusionFolder::open(&fixture(pipeline)).unwrap();
        let unet = folder.params(Component::UNet, &CPU).unwrap();
        let target = tempfile::tempdir().unwrap();
        folder.save_with_unet(target.path(), &unet, DType::F32).unwrap();
        let again = StableDiffusionFolder::open(target.path()).unwrap();
        assert_eq!(again.unet_config(), folder.unet_config());
        assert_eq!(values(&again.params(Component::UNet, &CPU).unwrap()), values(&unet));
        for part in [
            "unet/config.json",
            "vae/diffusion_pytorch_model.safetensors",
            "tokenizer/merges.txt",
            "scheduler/scheduler_config.json",
        ] {
            let read = |root: &Path| std::fs::read(root.join(part)).unwrap();
            let (before, after) = (read(folder.root()), read(target.path()));
            let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
            assert!(before == after || json(&before) == json(&after), "{part}");
        }
        // Onto itself would truncate the files that are being copied.
        assert!(again.save_with_unet(target.path(), &unet, DType::F32).is_err());
        assert_eq!(again.class(), folder.class());
        assert_eq!(again.forces_zeros_for_no_prompt(), folder.forces_zeros_for_no_prompt());
        again.read_vae(&CPU).unwrap();
        again.read_text_encoders(&votive_model::PipelineLora::default(), &CPU).unwrap();
    }
}

/// Fresh networks that fit together, saved in f16.
fn save_fresh(root: &Path) {
    let unet = UNetConfig { cross_attention_dim: 8, ..unets()[0].clone() };
    let (_, params) = Params::fresh(1, &CPU, |scope| UNet2DConditionModel::new(scope, &unet)).unwrap();
    Component::UNet.save(root, &unet.to_json(), &params, DType::F16).unwrap();
    let (_, params) = Params::fresh(1, &CPU, |scope| AutoencoderKl::new(scope, &vae_config())).unwrap();
    Component::Vae.save(root, &vae_config().to_json(), &params, DType::F16).unwrap();
    let (_, params) = Params::fresh(1, &CPU, |scope| ClipTextModel::new(scope, &clip_config())).unwrap();
    Component::TextEncoder.save(root, &clip_config().to_json(), &params, DType::F16).unwrap();
    files::write_json(
        &root.join("scheduler/scheduler_config.json"),
        &json!({"_class_name": "DDIMScheduler"}),
    )
    .unwrap();
    save_index(root, "DDIMScheduler").unwrap();
}

#[test]
fn fresh_networks_are_saved_and_read() {
    let target = tempfile::tempdir().unwrap();
    save_fresh(target.path());
    let folder = StableDiffusionFolder::open(target.path()).unwrap();
    let unet = folder.params(Component::UNet, &CPU).unwrap();
    unet.build(|scope| UNet2DConditionModel::new(scope, folder.unet_config())).unwrap();
    folder.read_vae(&CPU).unwrap();
    folder.read_text_encoders(&votive_model::PipelineLora::default(), &CPU).unwrap();
}

#[test]
fn folders_that_do_not_fit_are_refused() {
    let target = tempfile::tempdir().unwrap();
    save_fresh(target.path());
    let open = || StableDiffusionFolder::open(target.path()).unwrap_err().to_string();
    let (unet, index) = (target.path().join("unet/config.json"), target.path().join("model_index.json"));
    let replace = |path: &Path, field: &str, value: Value| {
        let mut config = ConfigFile::read(path).unwrap().value().clone();
        let before = std::mem::replace(&mut config[field], value);
        files::write_json(path, &config).unwrap();
        before
    };
    let before = replace(&unet, "cross_attention_dim", json!(6));
    assert!(
        open().contains("`cross_attention_dim`: expected 8, the text encoder's width, found 6"),
        "{}",
        open()
    );
    replace(&unet, "cross_attention_dim", before);
    let before = replace(&unet, "in_channels", json!(9));
    assert!(open().contains("`in_channels`: expected 4"), "{}", open());
    replace(&unet, "in_channels", before);
    let before = replace(&index, "unet", json!(["diffusers", "Transformer2DModel"]));
    assert!(open().contains("`unet`") && open().contains("Transformer2DModel"), "{}", open());
    replace(&index, "unet", before);
    replace(&index, "_class_name", json!("StableDiffusion3Pipeline"));
    assert!(open().contains("StableDiffusion3Pipeline"), "{}", open());
}

#[test]
fn an_adapter_is_not_lost_in_saving() {
    let (_, params) = Params::fresh(1, &CPU, |scope| UNet2DConditionModel::new(scope, &unets()[0])).unwrap();
    let config = LoraConfig::new(2, 2.0, vec!["to_q".to_owned()]);
    let adapted = params.with_new_lora(config, 1).unwrap();
    let target = tempfile::tempdir().unwrap();
    let save =
        |params: &Params| Component::UNet.save(target.path(), &unets()[0].to_json(), params, DType::F32);
    assert!(save(&adapted).unwrap_err().to_string().contains("merge"));
    save(&adapted.merged().unwrap()).unwrap();
}

#[test]
fn old_buffers_of_the_text_encoder_are_no_parameters() {
    let source = fixture("sd1").join("text_encoder");
    let mut tensors = files::read_folder(&source, "model", &CPU).unwrap();
    let positions = Tensor::arange(0i64, 77, &CPU).unwrap().unsqueeze(0).unwrap();
    tensors.insert("text_model.embeddings.position_ids".to_owned(), positions);
    let params = Params::new("old", tensors, &CPU);
    let config = ClipTextConfig::from_file(&ConfigFile::read(&source.join("config.json")).unwrap()).unwrap();
    params.build(|scope| ClipTextModel::new(scope, &config)).unwrap();
}

/// The SDXL fixture in a folder of its own, its small files only: what is refused is refused before weights are read.
fn xl_configs() -> tempfile::TempDir {
    let (source, target) = (fixture("../sdxl/pipeline"), tempfile::tempdir().unwrap());
    for part in ["unet", "vae", "text_encoder", "text_encoder_2"] {
        std::fs::create_dir(target.path().join(part)).unwrap();
        let file = Path::new(part).join("config.json");
        std::fs::copy(source.join(&file), target.path().join(&file)).unwrap();
    }
    std::fs::create_dir(target.path().join("scheduler")).unwrap();
    for file in ["model_index.json", "scheduler/scheduler_config.json"] {
        std::fs::copy(source.join(file), target.path().join(file)).unwrap();
    }
    target
}

#[test]
fn an_sdxl_folder_that_does_not_fit_is_refused_by_name() {
    let target = xl_configs();
    let open = || StableDiffusionFolder::open(target.path()).map(|folder| folder.class());
    assert_eq!(open().unwrap(), PipelineClass::StableDiffusionXl);
    let cases = [
        ("model_index.json", "requires_aesthetics_score", json!(true), "refiner"),
        ("model_index.json", "_class_name", json!("StableDiffusionXLImg2ImgPipeline"), "`_class_name`"),
        ("model_index.json", "text_encoder", json!([null, null]), "`text_encoder` = [null,null]"),
        ("model_index.json", "force_zeros_for_empty_prompt", json!("yes"), "true or false"),
        ("unet/config.json", "addition_embed_type", json!(null), "`addition_time_embed_dim`"),
        ("unet/config.json", "projection_class_embeddings_input_dim", json!(5 * 6 + 20), "refiner"),
        ("unet/config.json", "projection_class_embeddings_input_dim", json!(7), "more than 6 times"),
        ("unet/config.json", "cross_attention_dim", json!(9), "both text encoders together"),
        ("text_encoder_2/config.json", "eos_token_id", json!([1, 2]), "one token id"),
        ("text_encoder_2/config.json", "projection_dim", json!(null), "`projection_dim`"),
    ];
    for (file, field, value, part) in cases {
        let path = target.path().join(file);
        let before = ConfigFile::read(&path).unwrap().value().clone();
        let mut config = before.clone();
        config[field] = value;
        files::write_json(&path, &config).unwrap();
        let message = open().unwrap_err().to_string();
        assert!(message.contains(part) && message.contains(file), "{field}: {message}");
        files::write_json(&path, &before).unwrap();
    }
    open().unwrap();
}

#[test]
fn parts_that_nothing_reads_are_named() {
    let target = xl_configs();
    let path = target.path().join("model_index.json");
    let mut index = ConfigFile::read(&path).unwrap().value().clone();
    index["image_encoder"] = json!(["transformers", "CLIPVisionModelWithProjection"]);
    index["safety_checker"] = json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
    index["controlnet"] = json!(["diffusers", "ControlNetModel"]);
    files::write_json(&path, &index).unwrap();
    let unused = StableDiffusionFolder::open(target.path()).unwrap().unused();
    assert_eq!(unused, ["image_encoder", "safety_checker", "controlnet"]);
}
