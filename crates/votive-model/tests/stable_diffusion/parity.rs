//! Networks against the outputs of diffusers and transformers in `tests/fixtures/diffusion`.

use crate::CPU;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;
use votive_diffusion::Conditioning;
use votive_model::config::ConfigFile;
use votive_model::stable_diffusion::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, ClipTextModelWithProjection, Component,
    StableDiffusionFolder, UNet2DConditionModel, UNetConfig, VaeConfig,
};
use votive_model::{Denoiser, Params, files};

/// Against diffusers in f32 on another order of sums; its own f32 is within 1e-6 of its f64.
const PARITY: f64 = 2e-5;

/// The SDXL pipeline, below the folder of the others.
const XL: &str = "../sdxl/pipeline";

pub(crate) fn fixture(pipeline: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/diffusion").join(pipeline)
}

fn component(pipeline: &str, name: &str, stem: &str) -> (ConfigFile, Params) {
    let folder = fixture(pipeline).join(name);
    let config = ConfigFile::read(&folder.join("config.json")).unwrap();
    let tensors = files::read_folder(&folder, stem, &CPU).unwrap();
    (config, Params::new(name, tensors, &CPU))
}

fn expected(pipeline: &str, name: &str) -> BTreeMap<String, Tensor> {
    files::read(&fixture(pipeline).join("expected").join(format!("{name}.safetensors")), &CPU)
        .unwrap()
        .tensors
}

/// Largest difference, relative to the largest expected value.
fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let largest = |t: &Tensor| {
        t.abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap()
            .to_dtype(DType::F64)
            .unwrap()
            .to_scalar::<f64>()
            .unwrap()
    };
    largest(&(found - expected).unwrap()) / largest(expected)
}

#[track_caller]
fn check(what: &str, found: &Tensor, expected: &Tensor) {
    let error = distance(found, expected);
    assert!(error < PARITY, "{what}: {error}");
}

#[test]
fn unet_equals_diffusers() {
    for pipeline in ["sd1", "sd2", XL] {
        let (config, params) = component(pipeline, "unet", "diffusion_pytorch_model");
        let config = UNetConfig::from_file(&config).unwrap();
        let unet = params.build(|scope| UNet2DConditionModel::new(scope, &config)).unwrap();
        let expected = expected(pipeline, "unet");
        for shape in ["square", "oblong"] {
            let get = |name: &str| &expected[&format!("{shape}.{name}")];
            let timesteps = get("timesteps").to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
            let mut prompts = Conditioning::new(get("prompt_embeds").clone()).unwrap();
            if config.addition.is_some() {
                prompts = prompts.with_pooled(get("text_embeds").clone()).unwrap();
                prompts = prompts.with_time_ids(get("time_ids").clone()).unwrap();
            }
            let found = unet.predict(get("latents"), &timesteps, &prompts).unwrap();
            check(&format!("{pipeline} {shape}"), &found, get("output"));
        }
    }
}

#[test]
fn vae_equals_diffusers() {
    for pipeline in ["sd1", "sd2"] {
        let (config, params) = component(pipeline, "vae", "diffusion_pytorch_model");
        let config = VaeConfig::from_file(&config).unwrap();
        let vae = params.build(|scope| AutoencoderKl::new(scope, &config)).unwrap();
        let expected = expected(pipeline, "vae");
        let posterior = vae.encode(&expected["images"]).unwrap();
        check(pipeline, &posterior.mean, &expected["mean"]);
        check(pipeline, &posterior.log_variance, &expected["logvar"]);
        check(pipeline, &vae.decode(&expected["latents"]).unwrap(), &expected["decoded"]);
    }
}

#[test]
fn both_text_encoders_of_sdxl_equal_those_of_diffusers() {
    let folder = StableDiffusionFolder::open(&fixture(XL)).unwrap();
    let encoders = folder.read_text_encoders(&votive_model::PipelineLora::default(), &CPU).unwrap();
    let expected = expected(XL, "text_encoders");
    let ids = ["input_ids", "input_ids_2"].map(|name| expected[name].to_dtype(DType::U32).unwrap());
    let prompts = encoders.encode(&ids).unwrap();
    check("states", prompts.prompt_embeds(), &expected["prompt_embeds"]);
    check("pooled", prompts.pooled().unwrap(), &expected["pooled_prompt_embeds"]);
    // Configurations from before transformers 4.31 name another end token, and prompts end at their largest id.
    let config = ConfigFile::read(&fixture(XL).join("text_encoder_2/config.json")).unwrap();
    let config = ClipTextConfig { eos_token_id: 2, ..ClipTextConfig::with_projection(&config).unwrap() };
    let params = folder.params(Component::TextEncoder2, &CPU).unwrap();
    let old = params.build(|scope| ClipTextModelWithProjection::new(scope, &config)).unwrap();
    let ids_of_old = expected["input_ids_of_old_config"].to_dtype(DType::U32).unwrap();
    check("old", &old.forward(&ids_of_old).unwrap().pooled, &expected["pooled_of_old_config"]);
    assert!(encoders.encode(&ids[..1]).unwrap_err().to_string().contains("2 tables"));
}

#[test]
fn text_encoder_equals_transformers() {
    for pipeline in ["sd1", "sd2"] {
        let (config, params) = component(pipeline, "text_encoder", "model");
        let config = ClipTextConfig::from_file(&config).unwrap();
        let clip = params.build(|scope| ClipTextModel::new(scope, &config)).unwrap();
        let expected = expected(pipeline, "text_encoder");
        let ids = expected["input_ids"].to_dtype(DType::U32).unwrap();
        check(pipeline, &clip.forward(&ids).unwrap(), &expected["last_hidden_state"]);
    }
}
