//! `votive pretrain`: the shipped models, made from nothing on the playground worlds.

use super::{Context, Failure, Outcome};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use votive_data::{ClipTokenizer, TextTokenizer};
use votive_diffusion::{NoiseSchedule, SchedulerConfig};
use votive_model::config::ConfigFile;
use votive_model::stable_diffusion::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, Component, UNet2DConditionModel, UNetConfig, VaeConfig,
    save_index,
};
use votive_model::{Llama, LlamaConfig, Params, Scope, files, save_causal_lm};
use votive_playground::image::{self, Picture};
use votive_playground::text;
use votive_train::TrainError;
use votive_train::pretrain::{
    DenoiserPretraining, DenoiserRecipe, LanguagePretraining, Progress, Schedule, Trainer, VaePretraining,
    clip_tokenizer, text_tokenizer, whiten,
};
use votive_train::recipe::{Resolver, to_toml};

/// Train a small model from nothing on a playground world
///
/// This is how the models in `models/` were made. A stopped run goes on where it was if it is started again with the
/// same recipe and folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Recipe with `model.kind` = "language", "autoencoder" or "denoiser".
    recipe: PathBuf,
    /// Override a setting of the recipe.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Folder of the run; the model will lie in its `final/`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let mut r = Resolver::read(&args.recipe, &args.overrides)?;
    let kind =
        r.choice("model.kind", &["language", "autoencoder", "denoiser"], "language", "What is trained.");
    let world = r.whole("data.seed", 0, Some(1), "Seed of the world's examples.").unwrap_or(1);
    let job = Job { ctx, out: &args.out, world };
    match kind.as_str() {
        "language" => job.language(r),
        "autoencoder" => job.autoencoder(r),
        _ => job.denoiser(r),
    }
}

struct Job<'a> {
    ctx: &'a Context,
    out: &'a Path,
    world: u64,
}

/// A whole number of the recipe with a default.
fn size(r: &mut Resolver, key: &str, default: u64, doc: &'static str) -> usize {
    r.whole(key, 1, Some(default), doc).unwrap_or(default) as usize
}

fn pixels(picture: &Picture) -> Vec<f32> {
    let plane = picture.width * picture.height;
    (0..3 * plane).map(|i| f32::from(picture.rgb[i % plane * 3 + i / plane]) / 127.5 - 1.0).collect()
}

impl Job<'_> {
    /// Settles the recipe, and writes what was settled beside the run.
    fn settle(&self, r: Resolver) -> Outcome {
        files::write_bytes(&self.out.join("plan.toml"), to_toml(&r.finish()?).as_bytes())?;
        Ok(())
    }

    fn train(
        &self,
        schedule: &Schedule,
        parameters: Vec<(String, Tensor)>,
        loss: impl FnMut(u64) -> votive_train::Result<Tensor>,
    ) -> Outcome<BTreeMap<String, Tensor>> {
        let count: usize = parameters.iter().map(|(_, tensor)| tensor.elem_count()).sum();
        self.ctx.output.note(format!("{count} parameters, {} steps", schedule.steps));
        let checkpoints = self.out.join("checkpoints");
        let mut trainer = Trainer::start(schedule.clone(), parameters, &checkpoints)?;
        let progress =
            self.ctx.output.progress("pretraining", "steps", schedule.steps).starting_at(trainer.step());
        let log_path = self.out.join("metrics.jsonl");
        let open = std::fs::OpenOptions::new().create(true).append(true).open(&log_path);
        let mut log = open.map_err(|error| Failure::file(&log_path, error))?;
        let stop = super::signal::stop_flag();
        let (mut sum, mut count) = (0.0, 0u32);
        let trained = trainer.run(&checkpoints, stop, loss, |p: &Progress| {
            progress.set(p.step);
            (sum, count) = (sum + p.loss, count + 1);
            if p.step.is_multiple_of(50) {
                let mean = sum / f64::from(count);
                progress.detail(format!("loss {mean:.4}"));
                let line = serde_json::json!({ "step": p.step, "loss": mean, "grad_norm": p.grad_norm, "learning_rate": p.lr });
                // The log is a convenience: a full disk will be reported by the next checkpoint.
                let _ = writeln!(log, "{line}");
                (sum, count) = (0.0, 0);
            }
        });
        match trained {
            Err(TrainError::Interrupted { step, .. }) => {
                let stopped = Failure::interrupted(format!("stopped after step {step}; everything is saved"));
                return Err(stopped.hint("the same command goes on"));
            }
            other => other?,
        }
        progress.finish();
        Ok(trainer.result()?)
    }

    fn language(&self, mut r: Resolver) -> Outcome {
        let vocabulary = size(&mut r, "model.vocab_size", 1024, "Entries of the tokenizer.");
        let hidden = size(&mut r, "model.hidden_size", 128, "Width of the model.");
        let inner = size(&mut r, "model.intermediate_size", 352, "Width inside the SwiGLU.");
        let layers = size(&mut r, "model.num_hidden_layers", 5, "Layers.");
        let heads = size(&mut r, "model.num_attention_heads", 4, "Attention heads.");
        let positions = size(&mut r, "model.max_position_embeddings", 256, "Longest row in tokens.");
        let schedule = Schedule::resolve(&mut r);
        self.settle(r)?;
        let world = self.world;
        let example = move |index: u64| {
            let (prompt, answer) = text::training_example(world, index);
            (format!("{prompt}\n"), answer)
        };
        let folder = self.out.join("final");
        if !folder.join("tokenizer.json").exists() {
            // Examples far behind those that are trained on: the tokenizer sees the same world, not the same rows.
            let texts =
                (0..20_000).map(|i| example(ELSEWHERE + i)).flat_map(|(prompt, answer)| [prompt, answer]);
            text_tokenizer(texts, vocabulary, positions, &folder)?;
        }
        let tokenizer = TextTokenizer::load(&folder)?;
        let mut config =
            LlamaConfig::llama(tokenizer.vocab_size(), (hidden, inner), layers, (heads, heads), positions);
        config.tie_word_embeddings = true;
        config.bos_token_id = tokenizer.bos_id();
        config.eos_token_id = vec![tokenizer.eos_id()?];
        config.pad_token_id = Some(tokenizer.pad_id()?);
        let (_, params) = Params::fresh(schedule.seed, &Device::Cpu, |scope| Llama::new(&config, scope))?;
        let params = params.into_trainable()?;
        let model = params.build(|scope| Llama::new(&config, scope))?;
        let work = LanguagePretraining {
            model: &model,
            tokenizer: &tokenizer,
            examples: &example,
            batch_size: schedule.batch_size,
        };
        let result =
            self.train(&schedule, params.trainable(), |step| work.loss(step * schedule.batch_size))?;
        save_causal_lm(&folder, &config, &Params::new("pretrained", result, &Device::Cpu), DType::F16)?;
        self.ctx.output.line(folder.display())
    }

    fn autoencoder(&self, mut r: Resolver) -> Outcome {
        let config = r.string("model.config", None, "Architecture: a config.json of an AutoencoderKL.");
        let config = r.require("model.config", config).unwrap_or_default();
        let decoder_of = r.string(
            "model.decoder_of",
            None,
            "Folder of an autoencoder whose decoder alone is trained further.",
        );
        let object_weight =
            r.float("loss.object_weight", 0.0, Some(4.0), "Weight of pixels off the background.");
        let divergence =
            r.float("loss.divergence_weight", 0.0, Some(1e-4), "Weight of the divergence per latent number.");
        let schedule = Schedule::resolve(&mut r);
        self.settle(r)?;
        let config = VaeConfig::from_file(&ConfigFile::read(Path::new(&config))?)?;
        let world = self.world;
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
            batch_size: schedule.batch_size,
            seed: schedule.seed,
            object_weight: object_weight.unwrap_or(4.0) as f32,
            divergence_weight: divergence.unwrap_or(1e-4),
        };
        let trained =
            self.train(&schedule, params.trainable(), |step| work.loss(step * schedule.batch_size))?;
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
        let folder = self.out.join("final");
        files::write(
            &folder.join("diffusion_pytorch_model.safetensors"),
            result,
            DType::F16,
            BTreeMap::new(),
        )?;
        let config = VaeConfig { scaling_factor: 1.0, ..config };
        files::write_json(&folder.join("config.json"), &config.to_json())?;
        self.report_reconstructions(&folder, &config)?;
        self.ctx.output.line(folder.display())
    }

    /// Says how many pictures without flaws the checker still reads exactly after encoding and decoding.
    fn report_reconstructions(&self, folder: &Path, config: &VaeConfig) -> Outcome {
        const PICTURES: u64 = 1000;
        let tensors = files::read_folder(folder, "diffusion_pytorch_model", &Device::Cpu)?;
        let params = Params::new("autoencoder", tensors, &Device::Cpu);
        let vae = params.build(|scope| AutoencoderKl::new(scope, config))?;
        let mut exact = Vec::new();
        for first in (0..PICTURES).step_by(50) {
            let originals: Vec<_> = (first..first + 50)
                .map(|i| image::clean_example(self.world, ELSEWHERE + 100_000 + i))
                .collect();
            let pixels: Vec<f32> = originals.iter().flat_map(|(_, picture)| pixels(picture)).collect();
            let side = config.sample_size;
            let images = Tensor::from_vec(pixels, (50, 3, side, side), &Device::Cpu)?;
            let images = vae.decode(&vae.encode(&images)?.mean)?.permute((0, 2, 3, 1))?.flatten_from(1)?;
            for ((caption, original), values) in originals.iter().zip(images.to_vec2::<f32>()?) {
                let rgb =
                    values.iter().map(|x| ((x + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8).collect();
                let picture = Picture { rgb, ..original.clone() };
                exact.push(image::check(caption, &picture)?.exact);
            }
        }
        let share = votive_eval::share(&exact);
        let (value, low, high) = (share.value, share.low, share.high);
        self.ctx
            .output
            .note(format!("{value:.1} % [{low:.1}, {high:.1}] of {PICTURES} reconstructions are exact"));
        Ok(())
    }

    fn denoiser(&self, mut r: Resolver) -> Outcome {
        let mut path = |key: &str, doc| {
            let given = r.string(key, None, doc);
            PathBuf::from(r.require(key, given).unwrap_or_default())
        };
        let unet = path("model.unet", "Architecture: a config.json of a UNet2DConditionModel.");
        let encoder = path("model.text_encoder", "Architecture: a config.json of a CLIPTextModel.");
        let scheduler = path("model.scheduler", "Noise levels: a scheduler_config.json.");
        let vae = path("model.vae", "Folder of the trained autoencoder.");
        let dropout = r.float("data.caption_dropout", 0.0, Some(0.1), "Share of captions that are emptied.");
        let gamma = r.float("loss.min_snr_gamma", 0.0, Some(5.0), "γ of the min-SNR weights.");
        let schedule = Schedule::resolve(&mut r);
        self.settle(r)?;
        let vae_folder = vae.clone();
        let (vae_config, vae) = {
            let config = VaeConfig::from_file(&ConfigFile::read(&vae.join("config.json"))?)?;
            let tensors = files::read_folder(&vae, "diffusion_pytorch_model", &Device::Cpu)?;
            let params = Params::new("autoencoder", tensors, &Device::Cpu);
            (config.clone(), params.build(|scope| AutoencoderKl::new(scope, &config))?)
        };
        let unet_config = UNetConfig::from_file(&ConfigFile::read(&unet)?)?;
        let noise = NoiseSchedule::new(&SchedulerConfig::read(&scheduler)?)?;
        let folder = self.out.join("final");
        let tokens = folder.join("tokenizer");
        let world = self.world;
        let example = move |index: u64| {
            let (caption, picture) = image::training_example(world, index);
            (caption, pixels(&picture))
        };
        let text_file = ConfigFile::read(&encoder)?;
        if !tokens.join("vocab.json").exists() {
            let positions = text_file.usize("max_position_embeddings")?;
            clip_tokenizer((0..20_000).map(|i| example(ELSEWHERE + i).0), positions, &tokens)?;
        }
        let tokenizer = ClipTokenizer::load(&tokens)?;
        let text_config =
            ClipTextConfig { vocab_size: tokenizer.vocab_size(), ..ClipTextConfig::from_file(&text_file)? };
        let build_unet =
            |params: &Params| params.build(|scope| UNet2DConditionModel::new(scope, &unet_config));
        let build_text = |params: &Params| params.build(|scope| ClipTextModel::new(scope, &text_config));
        let seed = schedule.seed;
        let fresh = |which: u64| seed.wrapping_mul(2).wrapping_add(which);
        let (_, unet) =
            Params::fresh(fresh(0), &Device::Cpu, |s| UNet2DConditionModel::new(s, &unet_config))?;
        let (_, text) = Params::fresh(fresh(1), &Device::Cpu, |s| ClipTextModel::new(s, &text_config))?;
        let (unet, text) = (unet.into_trainable()?, text.into_trainable()?);
        let prefixed = |params: &Params, prefix: &str| -> Vec<(String, Tensor)> {
            params.trainable().into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
        };
        let mut parameters = prefixed(&unet, UNET);
        parameters.extend(prefixed(&text, TEXT));
        let (denoiser, text_encoder) = (build_unet(&unet)?, build_text(&text)?);
        let recipe = DenoiserRecipe {
            batch_size: schedule.batch_size,
            caption_dropout: dropout.unwrap_or(0.1),
            min_snr_gamma: gamma.unwrap_or(5.0),
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
        let result = self.train(&schedule, parameters, |step| work.loss(step * schedule.batch_size))?;
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
        self.ctx.output.line(folder.display())
    }
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

fn copy(from: &Path, to: &Path) -> Outcome {
    let bytes = std::fs::read(from).map_err(|error| Failure::file(from, error))?;
    Ok(files::write_bytes(to, &bytes)?)
}

const UNET: &str = "unet.";
const TEXT: &str = "text_encoder.";

/// The first of the examples that tokenizers and statistics are made from, far behind all that are trained on.
const ELSEWHERE: u64 = 3_000_000_000;
