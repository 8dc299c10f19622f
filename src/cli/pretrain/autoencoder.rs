//! An image autoencoder from nothing on the image world, or its decoder further on.

use super::super::Outcome;
use super::{ELSEWHERE, Job, pixels};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;
use std::path::Path;
use votive_model::config::ConfigFile;
use votive_model::stable_diffusion::{AutoencoderKl, VaeConfig};
use votive_model::{Params, Scope, files};
use votive_playground::image::{self, Picture};
use votive_train::pretrain::{Schedule, VaePretraining, whiten};
use votive_train::recipe::Resolver;

pub(super) fn run(job: &Job, mut r: Resolver) -> Outcome {
    let config = r.string("model.config", None, "Architecture: a config.json of an AutoencoderKL.");
    let config = r.require("model.config", config).unwrap_or_default();
    let decoder_of = r.string(
        "model.decoder_of",
        None,
        "Folder of an autoencoder whose decoder alone is trained further.",
    );
    let object_weight = r.float("loss.object_weight", 0.0, Some(4.0), "Weight of pixels off the background.");
    let divergence =
        r.float("loss.divergence_weight", 0.0, Some(1e-4), "Weight of the divergence per latent number.");
    let schedule = Schedule::resolve(&mut r);
    job.settle(r)?;
    let config = VaeConfig::from_file(&ConfigFile::read(Path::new(&config))?)?;
    let world = job.world;
    // Half of the pictures without flaws, half as the denoiser will see them.
    let example = move |index: u64| {
        let make = if index.is_multiple_of(2) { image::clean_example } else { image::training_example };
        let (caption, picture) = make(world, index);
        (caption, pixels(&picture))
    };
    let params = match &decoder_of {
        None => {
            let build = |scope: &Scope| AutoencoderKl::new(scope, &config);
            Params::fresh(schedule.seed, &Device::Cpu, build)?.1.into_trainable()?
        }
        Some(folder) => decoder_only(Path::new(folder))?,
    };
    let vae = params.build(|scope| AutoencoderKl::new(scope, &config))?;
    let work = VaePretraining {
        vae: &vae,
        examples: &example,
        side: config.sample_size,
        seed: schedule.seed,
        object_weight: object_weight.unwrap_or(4.0) as f32,
        divergence_weight: divergence.unwrap_or(1e-4),
    };
    let trained = job.train(&schedule, params.trainable(), |examples| work.loss(examples))?;
    // What was not trained stays as it was.
    let mut result: BTreeMap<String, Tensor> =
        params.iter().map(|(name, tensor)| (name.to_owned(), tensor.detach())).collect();
    result.extend(trained);
    if decoder_of.is_none() {
        let vae = Params::new("pretrained", result.clone(), &Device::Cpu);
        let vae = vae.build(|scope| AutoencoderKl::new(scope, &config))?;
        let samples: Vec<f32> = (0..1024).flat_map(|i| example(ELSEWHERE + i).1).collect();
        let side = config.sample_size;
        let samples = Tensor::from_vec(samples, (1024, 3, side, side), &Device::Cpu)?;
        whiten(&mut result, &vae.encode(&samples)?.mean)?;
    }
    let folder = job.out.join("final");
    files::write(&folder.join("diffusion_pytorch_model.safetensors"), result, DType::F16, BTreeMap::new())?;
    let config = VaeConfig { scaling_factor: 1.0, ..config };
    files::write_json(&folder.join("config.json"), &config.to_json())?;
    report_reconstructions(job, &folder, &config)?;
    job.ctx.output.line(folder.display())
}

/// Says how many pictures without flaws the checker still reads exactly after encoding and decoding.
fn report_reconstructions(job: &Job, folder: &Path, config: &VaeConfig) -> Outcome {
    const PICTURES: u64 = 1000;
    let tensors = files::read_folder(folder, "diffusion_pytorch_model", &Device::Cpu)?;
    let params = Params::new("autoencoder", tensors, &Device::Cpu);
    let vae = params.build(|scope| AutoencoderKl::new(scope, config))?;
    let mut exact = Vec::new();
    for first in (0..PICTURES).step_by(50) {
        let originals: Vec<_> =
            (first..first + 50).map(|i| image::clean_example(job.world, ELSEWHERE + 100_000 + i)).collect();
        let pixels: Vec<f32> = originals.iter().flat_map(|(_, picture)| pixels(picture)).collect();
        let side = config.sample_size;
        let images = Tensor::from_vec(pixels, (50, 3, side, side), &Device::Cpu)?;
        let images = vae.decode(&vae.encode(&images)?.mean)?.permute((0, 2, 3, 1))?.flatten_from(1)?;
        for ((caption, original), values) in originals.iter().zip(images.to_vec2::<f32>()?) {
            let rgb = values.iter().map(|x| ((x + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8).collect();
            let picture = Picture { rgb, ..original.clone() };
            exact.push(image::check(caption, &picture)?.exact);
        }
    }
    let share = votive_eval::share(&exact);
    let (value, low, high) = (share.value, share.low, share.high);
    job.ctx
        .output
        .note(format!("{value:.1} % [{low:.1}, {high:.1}] of {PICTURES} reconstructions are exact"));
    Ok(())
}

/// An autoencoder whose decoder is trainable and whose latents stay what they are.
fn decoder_only(folder: &Path) -> Outcome<Params> {
    let mut tensors = files::read_folder(folder, "diffusion_pytorch_model", &Device::Cpu)?;
    for (name, tensor) in &mut tensors {
        if name.starts_with("decoder.") || name.starts_with("post_quant_conv.") {
            *tensor = Var::from_tensor(tensor)?.into_inner();
        }
    }
    Ok(Params::new(&folder.display().to_string(), tensors, &Device::Cpu))
}
