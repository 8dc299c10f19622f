//! The work on Stable Diffusion.

use super::laps::Laps;
use super::update::{RANK, Sides, Update};
use super::{DiffusionStepArgs, Measured, Mode, SampleArgs};
use crate::cli::image_model::{ImageModel, as_network};
use crate::cli::{Context, Failure, Outcome};
use candle_core::{Device, Tensor};
use serde_json::json;
use votive_diffusion::{
    Conditioning, Guidance, ImageSizes, NoisePolicy, NoiseSchedule, SamplerKind, StepNoise, TimestepPolicy,
    TimestepSharing, initial_latents,
};
use votive_model::stable_diffusion::{Component, StableDiffusionFolder, UNet2DConditionModel, UNetConfig};
use votive_model::{Denoiser, LoraConfig, predict_in_parts};
use votive_tensor::Recorder;
use votive_tensor::random::{Draws, Stream};

/// Diffusion-DPO's β, in the convention in which the paper's 5000 is written.
const BETA: f64 = 5000.0;
/// torch's default, which the peer keeps.
const WEIGHT_DECAY: f64 = 0.01;
const TARGETS: [&str; 4] = ["to_q", "to_k", "to_v", "to_out.0"];
const PROMPT_TOKENS: usize = 77;

/// Diffusion-DPO steps on random latents and embeddings; text encoder and VAE stay out.
pub(super) fn step(args: &DiffusionStepArgs, ctx: &Context) -> Outcome<Measured> {
    let (device, side, micro_batch) = (ctx.device()?, args.latent.get(), args.micro_batch.get());
    let args = &args.step;
    let folder = StableDiffusionFolder::open(&args.model)?;
    let config = folder.unet_config();
    let schedule = NoiseSchedule::new(folder.scheduler())?;
    let adapter = LoraConfig::new(RANK, RANK as f64, TARGETS.map(str::to_owned).to_vec());
    let sides = Sides::new(folder.params(Component::UNet, &device)?, args.mode, adapter)?;
    let policy = sides.policy.build(|scope| UNet2DConditionModel::new(scope, config))?;
    let reference = sides.reference.build(|scope| UNet2DConditionModel::new(scope, config))?;
    let mut update = Update::new(&sides.policy, BETA, WEIGHT_DECAY);
    // As `votive train` does it.
    let parts = if matches!(args.mode, Mode::Lora) && device.is_cpu() { 2 } else { 1 };

    let pairs: Vec<u64> = (0..args.batch.get() as u64).collect();
    let latent = (config.in_channels, side, side);
    let progress = ctx.output.progress("measuring", "steps", args.steps.get() as u64);
    let (mut laps, mut losses) = (Laps::default(), Vec::new());
    for step in 0..args.steps.get() as u64 {
        let latents = normals(step, 0, &[2 * pairs.len(), config.in_channels, side, side], &device)?;
        let prompts = random_prompts(step, pairs.len(), config, &device)?;
        losses.push(laps.lap(|| {
            let noise = NoisePolicy::Shared.for_pairs(latent, 0, step, &pairs, &device)?;
            let timesteps =
                TimestepPolicy::Uniform.for_pairs(TimestepSharing::Pair, &schedule, 0, step, &pairs)?;
            let noisy_latents = schedule.add_noise(&latents, &noise, &timesteps)?;
            let target = schedule.target(&latents, &noise, &timesteps)?;
            let mut loss = 0.0;
            for part in pairs.chunks(micro_batch) {
                // Chosen and rejected of the same pairs.
                let both = |whole: &Tensor| -> Outcome<Tensor> {
                    let side =
                        |side: usize| whole.narrow(0, side * pairs.len() + part[0] as usize, part.len());
                    Ok(Tensor::cat(&[side(0)?, side(1)?], 0)?)
                };
                let (noisy_latents, target) = (both(&noisy_latents)?, both(&target)?);
                let times: Vec<f64> = part.iter().map(|pair| timesteps[*pair as usize] as f64).collect();
                let times = times.repeat(2);
                let prompts = prompts.narrow(part[0] as usize, part.len())?;
                let prompts = Conditioning::cat(&[&prompts, &prompts])?;
                // Minus half the error is the log-probability that makes β the paper's.
                let logps = |unet: &dyn Denoiser, recorder: Option<&Recorder>| -> Outcome<Tensor> {
                    let inputs = (&noisy_latents, &*times, &prompts);
                    let model_pred = predict_in_parts(unet, parts, inputs, recorder)?;
                    Ok(((model_pred - &target)?.sqr()?.flatten_from(1)?.mean(1)? * -0.5)?)
                };
                let reference_logps = logps(&reference, None)?.detach();
                let policy_logps = logps(&policy, Some(update.recorder()))?;
                loss += update.add(&policy_logps, &reference_logps, pairs.len())?;
            }
            update.finish()?;
            Ok::<_, Failure>(loss)
        })?);
        progress.set(step + 1);
    }
    progress.finish();
    let details = json!({
        "mode": args.mode.name(),
        "batch": args.batch,
        "micro_batch": micro_batch,
        "trainable_params": update.count(),
        "latent": side,
        "losses": losses,
    });
    Ok(Measured { bench: "diffusion-step", laps, details })
}

/// Stand-ins for prompts, and for what SDXL is told beside them.
fn random_prompts(step: u64, rows: usize, config: &UNetConfig, device: &Device) -> Outcome<Conditioning> {
    let embeds = normals(step, 1, &[rows, PROMPT_TOKENS, config.cross_attention_dim], device)?;
    let prompts = Conditioning::new(embeds)?;
    let Some(addition) = config.addition else { return Ok(prompts) };
    let pooled = addition.input_dim - ImageSizes::COUNT * addition.time_embed_dim;
    let prompts = prompts.with_pooled(normals(step, 2, &[rows, pooled], device)?)?;
    Ok(config.with_sizes(prompts, &vec![ImageSizes::whole(1024, 1024); rows])?)
}

/// Stand-ins for latents and embeddings, which have about unit variance too.
fn normals(step: u64, which: u64, shape: &[usize], device: &Device) -> Outcome<Tensor> {
    let values = Draws::new(0, Stream::World, step, which).normals(shape.iter().product());
    Ok(Tensor::from_vec(values, shape, device)?)
}

/// Images from a prompt, from text to pixels.
pub(super) fn sample(args: &SampleArgs, ctx: &Context) -> Outcome<Measured> {
    const STEPS: usize = 50;
    const CFG: f64 = 7.5;
    let device = ctx.device()?;
    let model = ImageModel::load(&args.model, None, &device)?;
    let size = model.square_size(args.latent.get());
    let shape = model.latent_shape(size)?;
    let prompts = vec!["a small test prompt".to_owned(); args.batch.get()];
    let progress = ctx.output.progress("measuring", "steps", args.steps.get() as u64);
    let mut laps = Laps::default();
    for step in 0..args.steps.get() as u64 {
        laps.lap(|| -> Outcome {
            let seeds: Vec<u64> =
                (0..args.batch.get() as u64).map(|i| step * args.batch.get() as u64 + i).collect();
            let embedded = model.embed(&prompts, size, &ctx.output)?;
            let negative = model.embed_negative(None, size, &ctx.output)?;
            let network = as_network(&model.unet);
            let guidance = Guidance::new(&network, &embedded, &negative, CFG)?;
            let mut sampler = SamplerKind::Ddim.build(&model.scheduler, STEPS)?;
            let latents = initial_latents(&seeds, shape, &device)?;
            let noise = StepNoise::Seeded(seeds);
            let latents = votive_diffusion::sample(sampler.as_mut(), &guidance, &latents, &noise, |_, _| {})?;
            model.decode(&latents).map(drop)
        })?;
        progress.set(step + 1);
    }
    progress.finish();
    let details = json!({"batch": args.batch, "latent": args.latent, "sampling_steps": STEPS, "cfg": CFG});
    Ok(Measured { bench: "sample", laps, details })
}
