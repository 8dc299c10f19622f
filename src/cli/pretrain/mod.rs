//! `votive pretrain`: the shipped models, made from nothing on the playground worlds.

mod autoencoder;
mod clip;
mod critic;
mod denoiser;
mod language;

use super::{Context, Failure, Outcome, signal};
use candle_core::Tensor;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use votive_model::files;
use votive_playground::image::{Picture, SIDE};
use votive_train::TrainError;
use votive_train::pretrain::{Progress, Schedule, Trainer};
use votive_train::recipe::{Resolver, to_toml};

/// Train a small model from nothing on a playground world
///
/// This is how the models in `models/` were made. A stopped run goes on where it was if it is started again with the
/// same recipe and folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Recipe with `model.kind` = "language", "critic", "clip", "autoencoder" or "denoiser".
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
    let kind = r.choice(
        "model.kind",
        &["language", "critic", "clip", "autoencoder", "denoiser"],
        "language",
        "What is trained.",
    );
    let world = r.whole("data.seed", 0, Some(1), "Seed of the world's examples.").unwrap_or(1);
    let job = Job { ctx, out: &args.out, world };
    match kind.as_str() {
        "language" => language::run(&job, r),
        "critic" => critic::run(&job, r),
        "clip" => clip::run(&job, r),
        "autoencoder" => autoencoder::run(&job, r),
        _ => denoiser::run(&job, r),
    }
}

/// What every kind of pretraining is given.
struct Job<'a> {
    ctx: &'a Context,
    /// The run's folder.
    out: &'a Path,
    /// Seed of the world.
    world: u64,
}

/// A picture as the networks see it: `(3, H, W)` in [−1, 1].
fn pixels(picture: &Picture) -> Vec<f32> {
    let plane = picture.width * picture.height;
    (0..3 * plane).map(|i| f32::from(picture.rgb[i % plane * 3 + i / plane]) / 127.5 - 1.0).collect()
}

/// How transformers prepares a picture of the playground for CLIP's image encoder: as it is, in [−1, 1].
fn image_processor() -> Value {
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": true,
        "do_resize": true,
        "size": { "shortest_edge": SIDE },
        "resample": 3,
        "do_center_crop": true,
        "crop_size": { "height": SIDE, "width": SIDE },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    })
}

/// A whole number of the recipe with a default.
fn size(r: &mut Resolver, key: &str, default: u64, doc: &'static str) -> usize {
    r.whole(key, 1, Some(default), doc).unwrap_or(default) as usize
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
        loss: impl Fn(Range<u64>) -> votive_train::Result<Tensor> + Sync,
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
        let stop = signal::stop_flag();
        let (mut sum, mut count) = (0.0, 0u32);
        let trained = trainer.run(&checkpoints, stop, loss, |p: &Progress| {
            progress.set(p.step);
            (sum, count) = (sum + p.loss, count + 1);
            if p.step.is_multiple_of(50) {
                let mean = sum / f64::from(count);
                progress.detail(format!("loss {mean:.4}"));
                let line =
                    json!({ "step": p.step, "loss": mean, "grad_norm": p.grad_norm, "learning_rate": p.lr });
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
}

/// The first of the examples that tokenizers and statistics are made from, far behind all that are trained on.
const ELSEWHERE: u64 = 3_000_000_000;
