//! `votive demo`: both embedded models aligned by one objective, from labelling to a gallery.
//!
//! ```text
//! training prompts ─ base model, several samples ─ critic ─▶ pairs on disk
//!   ─ the recipe of examples/recipes ─▶ run ─▶ aligned model (─▶ the next round's samples)
//! held-out prompts ─ base and aligned model, same seeds ─ exact checker, beside the critic ─▶ report.json, index.html
//! ```

mod image;
mod report;
mod rounds;
mod text;

use super::judges::{CHECKER, EMBEDDED, Subject};
use super::labels::Labeller;
use super::train::OnAlarm;
use super::world_pairs::FLIPPED;
use super::{Context, Failure, Outcome, embedded};
use image::Painter;
use serde_json::json;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Instant;
use text::Writer;
use votive_gallery::{Report, write_gallery};
use votive_train::recipe::Resolver;
use votive_train::{Plan, RunDirectory};

/// Align both embedded models and show what it did
///
/// Takes minutes on two cores and no network. The base models answer training prompts of their playground worlds, the
/// shipped critics label the pairs, one objective aligns both models, and held-out prompts are answered by base and aligned model
/// with the same seeds. The exact checker says how good the answers are in truth, and whether the critics were gamed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  votive demo\n  votive demo --judge checker --out runs/demo-true\n  votive demo --only image --rounds 3"
)]
pub(crate) struct Args {
    /// Folder for everything; a demo that is there already is replaced.
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Align one of the two models only.
    #[arg(long, value_enum, value_name = "MODEL")]
    only: Option<Only>,
    /// Who labels: `embedded` (the shipped critics), `checker` (the exact checker, with 10 % of the labels flipped on purpose), or a
    /// model's folder as in `votive label`.
    #[arg(long, value_name = "NAME|DIR", default_value = EMBEDDED)]
    judge: String,
    /// Rounds of labelling and training; from the second on, the model that was just trained is sampled from.
    #[arg(long, value_name = "N", default_value = "1")]
    rounds: NonZeroU64,
}

/// One of the two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// The language model.
    Text,
    /// The Stable Diffusion model.
    Image,
}

/// What both modalities are given.
struct Setting<'a> {
    /// The embedded model's folder.
    model: PathBuf,
    /// The modality's own folder below the demo's.
    out: PathBuf,
    /// The demo's folder, which the gallery's links are relative to.
    root: &'a Path,
    seed: u64,
    rounds: NonZeroU64,
    ctx: &'a Context,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let started = Instant::now();
    make_room(&args.out)?;
    let setting = |model: &str, name: &str| -> Outcome<Setting> {
        let out = args.out.join(name);
        std::fs::create_dir_all(&out).map_err(|error| Failure::file(&out, error))?;
        let (model, rounds) = (embedded::folder(model)?, args.rounds);
        Ok(Setting { model, out, root: &args.out, seed: args.seed, rounds, ctx })
    };
    // A critic is wrong often enough by itself.
    let flipped = if args.judge == CHECKER { FLIPPED } else { 0.0 };
    let wanted = |model: Only| args.only.is_none_or(|only| only == model);
    let mut text = None;
    if wanted(Only::Text) {
        ctx.output.note("the language model");
        let setting = setting("tiny-lm", "text")?;
        let labeller = Labeller::open(&args.judge, Subject::Texts, ctx)?;
        text = Some(rounds::run(&Writer::new(&setting), &setting, (&labeller, flipped))?);
    }
    let mut image = None;
    if wanted(Only::Image) {
        ctx.output.note("the Stable Diffusion model");
        let setting = setting("tiny-sd", "image")?;
        let labeller = Labeller::open(&args.judge, Subject::Images, ctx)?;
        image = Some(rounds::run(&Painter::new(&setting), &setting, (&labeller, flipped))?);
    }
    let report = Report {
        title: "Votive demo".to_owned(),
        command: command(args),
        seed: args.seed,
        objective: "one objective file aligned both models: crates/votive-objective/src/pair/dpo.rs"
            .to_owned(),
        settings: [
            ("threads".to_owned(), json!(ctx.threads)),
            ("device".to_owned(), json!(ctx.device_name())),
        ]
        .into(),
        text,
        image,
        ..Report::default()
    };
    report.write(&args.out)?;
    let page = write_gallery(&report, &args.out)?;
    ctx.output.note(format!("done in {}", super::progress::duration(started.elapsed().as_secs_f64())));
    if ctx.output.wants_json() {
        let short = |one: &Option<votive_gallery::ModalityReport>| {
            one.as_ref().map(|m| {
                json!({ "base": m.base, "aligned": m.aligned, "gain": m.gain, "gain_low": m.gain_low,
                        "gain_high": m.gain_high, "n_prompts": m.n_prompts, "rounds": m.rounds })
            })
        };
        let value = json!({ "text": short(&report.text), "image": short(&report.image), "gallery": page });
        return ctx.output.json(&value);
    }
    for (name, one) in [("text", &report.text), ("image", &report.image)] {
        let Some(one) = one else { continue };
        ctx.output.line(format!(
            "{name:6} exact on {} held-out prompts: {:.1} % -> {:.1} %, gain {:+.1} [{:+.1}, {:+.1}]",
            one.n_prompts, one.base, one.aligned, one.gain, one.gain_low, one.gain_high
        ))?;
        for (number, round) in (1..).zip(&one.rounds) {
            ctx.output.line(format!(
                "       round {number}: {} pairs, {:.1} % of them right; wins over the base {:.1} % by the critic, {:.1} % in truth, gap \
                 {:+.1} [{:+.1}, {:+.1}]",
                round.pairs, round.labels_right, round.labeller_wins, round.true_wins, round.gap, round.gap_low, round.gap_high
            ))?;
        }
        for line in &one.not_improved {
            ctx.output.line(format!("       not improved: {line}"))?;
        }
    }
    ctx.output.line(format!("gallery: {}", page.display()))
}

/// Empties a folder that an earlier demo filled; anything else that is not empty is left alone and refused.
fn make_room(out: &Path) -> Outcome {
    let occupied = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if !occupied {
        return Ok(());
    }
    if !out.join("text").is_dir() && !out.join(votive_gallery::REPORT_FILE).exists() {
        return Err(Failure::usage(format!("{}: not empty, and not a demo's folder", out.display()))
            .hint("choose another --out"));
    }
    for name in ["text", "image"] {
        let folder = out.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(|error| Failure::file(&folder, error))?;
        }
    }
    Ok(())
}

/// The command that makes the demo again.
fn command(args: &Args) -> String {
    let mut command = format!("votive demo --seed {}", args.seed);
    if args.judge != EMBEDDED {
        command += &format!(" --judge {}", args.judge);
    }
    if args.rounds.get() > 1 {
        command += &format!(" --rounds {}", args.rounds);
    }
    command
}

/// Trains the model of a folder by a shipped recipe on the pairs of `data`; the run lies below `out`.
fn align(recipe: &str, model: &Path, data: &Path, out: &Path, setting: &Setting) -> Outcome<RunDirectory> {
    let overrides = [
        format!("model.path={}", model.display()),
        format!("data.path={}", data.display()),
        format!("train.seed={}", setting.seed),
    ];
    let plan = Plan::resolve(Resolver::parse(Path::new("the demo's recipe"), recipe, &overrides)?)?;
    let run = RunDirectory::create(&out.join("run"), &plan)?;
    super::train::execute(&plan, &run, OnAlarm::Warn, setting.ctx)?;
    Ok(run)
}
