//! A U-Net and its text encoder from nothing on the image world.

use super::super::{Failure, Outcome};
use super::{ELSEWHERE, Job, pixels};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use votive_data::ClipTokenizer;
use votive_diffusion::{NoiseSchedule, SchedulerConfig};
use votive_model::config::ConfigFile;
use votive_model::stable_diffusion::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, Component, StableDiffusionFolder, UNet2DConditionModel,
    UNetConfig, VaeConfig, save_index,
};
use votive_model::{Params, files};
use votive_playground::image;
use votive_train::pretrain::{DenoiserPretraining, DenoiserRecipe, Schedule, clip_tokenizer};
use votive_train::recipe::Resolver;

pub(super) fn run(job: &Job, mut r: Resolver) -> Outcome {
    let mut path = |key: &str, doc| {
        let given = r.string(key, None, doc);
        PathBuf::from(r.require(key, given).unwrap_or_default())
    };
    let unet = path("model.unet", "Architecture: a config.json of a UNet2DConditionModel.");
    let encoder = path("model.text_encoder", "Architecture: a config.json of a CLIPTextModel.");
    let scheduler = path("model.scheduler", "Noise levels: a scheduler_config.json.");
    let vae = path("model.vae", "Folder of the trained autoencoder.");
    let start_from = r
        .string(
            "model.start_from",
            None,
            "Stable Diffusion folder whose U-Net, text encoder and tokenizer the run starts from; fresh ones without.",
        )
        .map(PathBuf::from);
    let dropout = r.float("data.caption_dropout", 0.0, Some(0.1), "Share of captions that are emptied.");
    let floor =
        r.float("loss.snr_floor", 0.0, Some(0.0), "Least weight of the error in z₀, which is SNR above.");
    let gamma = r.float("loss.min_snr_gamma", 0.0, Some(5.0), "Largest weight of the error in z₀.");
    let schedule = Schedule::resolve(&mut r);
    job.settle(r)?;
    let vae_folder = vae.clone();
    let (vae_config, vae) = {
        let config = VaeConfig::from_file(&ConfigFile::read(&vae.join("config.json"))?)?;
        let tensors = files::read_folder(&vae, "diffusion_pytorch_model", &Device::Cpu)?;
        let params = Params::new("autoencoder", tensors, &Device::Cpu);
        (config.clone(), params.build(|scope| AutoencoderKl::new(scope, &config))?)
    };
    let unet_config = UNetConfig::from_file(&ConfigFile::read(&unet)?)?;
    let noise = NoiseSchedule::new(&SchedulerConfig::read(&scheduler)?)?;
    let folder = job.out.join("final");
    let tokens = folder.join("tokenizer");
    let world = job.world;
    let example = move |index: u64| {
        let (caption, picture) = image::training_example(world, index);
        (caption, pixels(&picture))
    };
    let text_file = ConfigFile::read(&encoder)?;
    let start = start_from.as_deref().map(StableDiffusionFolder::open).transpose()?;
    if let Some(start) = &start {
        start.copy_tokenizer(&tokens)?;
    } else if !tokens.join("vocab.json").exists() {
        let positions = text_file.usize("max_position_embeddings")?;
        clip_tokenizer((0..20_000).map(|i| example(ELSEWHERE + i).0), positions, &tokens)?;
    }
    let tokenizer = ClipTokenizer::load(&tokens)?;
    let text_config =
        ClipTextConfig { vocab_size: tokenizer.vocab_size(), ..ClipTextConfig::from_file(&text_file)? };
    let build_unet = |params: &Params| params.build(|scope| UNet2DConditionModel::new(scope, &unet_config));
    let build_text = |params: &Params| params.build(|scope| ClipTextModel::new(scope, &text_config));
    let seed = schedule.seed;
    let fresh = |which: u64| seed.wrapping_mul(2).wrapping_add(which);
    let (unet, text) = match &start {
        Some(start) => (
            start.params(Component::UNet, &Device::Cpu)?,
            start.params(Component::TextEncoder, &Device::Cpu)?,
        ),
        None => (
            Params::fresh(fresh(0), &Device::Cpu, |s| UNet2DConditionModel::new(s, &unet_config))?.1,
            Params::fresh(fresh(1), &Device::Cpu, |s| ClipTextModel::new(s, &text_config))?.1,
        ),
    };
    let (unet, text) = (unet.into_trainable()?, text.into_trainable()?);
    let prefixed = |params: &Params, prefix: &str| -> Vec<(String, Tensor)> {
        params.trainable().into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
    };
    let mut parameters = prefixed(&unet, UNET);
    parameters.extend(prefixed(&text, TEXT));
    let (denoiser, text_encoder) = (build_unet(&unet)?, build_text(&text)?);
    let recipe = DenoiserRecipe {
        caption_dropout: dropout.unwrap_or(0.1),
        snr_bounds: (floor.unwrap_or(0.0), gamma.unwrap_or(5.0)),
        seed,
        side: vae_config.sample_size,
    };
    let work = DenoiserPretraining {
        denoiser: &denoiser,
        text_encoder: &text_encoder,
        tokenizer: &tokenizer,
        vae: &vae,
        schedule: &noise,
        examples: &example,
        recipe: &recipe,
    };
    let result = job.train(&schedule, parameters, |examples| work.loss(examples))?;
    let part = |prefix: &str| -> BTreeMap<String, Tensor> {
        let own = result
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())));
        own.collect()
    };
    let params = |prefix: &str| Params::new("pretrained", part(prefix), &Device::Cpu);
    Component::UNet.save(&folder, &unet_config.to_json(), &params(UNET), DType::F16)?;
    Component::TextEncoder.save(&folder, &text_config.to_json(), &params(TEXT), DType::F16)?;
    for name in ["config.json", "diffusion_pytorch_model.safetensors"] {
        copy(&vae_folder.join(name), &folder.join("vae").join(name))?;
    }
    copy(&scheduler, &folder.join("scheduler/scheduler_config.json"))?;
    save_index(&folder, "DDIMScheduler")?;
    job.ctx.output.line(folder.display())
}

const UNET: &str = "unet.";
const TEXT: &str = "text_encoder.";

fn copy(from: &Path, to: &Path) -> Outcome {
    let bytes = std::fs::read(from).map_err(|error| Failure::file(from, error))?;
    Ok(files::write_bytes(to, &bytes)?)
}
