//! Networks against the outputs of diffusers and transformers in `tests/fixtures/diffusion`.

use crate::CPU;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;
use votive_diffusion::Conditioning;
use votive_model::config::ConfigFile;
use votive_model::stable_diffusion::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, UNet2DConditionModel, UNetConfig, VaeConfig,
};
use votive_model::{Denoiser, Params, files};

/// Against diffusers in f32 on another order of sums; its own f32 is within 1e-6 of its f64.
const PARITY: f64 = 2e-5;

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
    for pipeline in ["sd1", "sd2"] {
        let (config, params) = component(pipeline, "unet", "diffusion_pytorch_model");
        let config = UNetConfig::from_file(&config).unwrap();
        let unet = params.build(|scope| UNet2DConditionModel::new(scope, &config)).unwrap();
        let expected = expected(pipeline, "unet");
        for shape in ["square", "oblong"] {
            let get = |name: &str| &expected[&format!("{shape}.{name}")];
            let timesteps = get("timesteps").to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
            let prompts = Conditioning::new(get("prompt_embeds").clone()).unwrap();
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
