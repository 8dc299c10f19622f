//! The demo's Stable Diffusion model.

use super::super::Outcome;
use super::super::image_model::ImageModel;
use super::super::world::{CFG, STEPS, Sampling, draw};
use super::super::world_pairs::{self, FLIPPED, save};
use super::{Setting, align, report};
use serde_json::json;
use std::path::PathBuf;
use votive_eval::grade_images;
use votive_gallery::{Labels, ModalityReport, Side};
use votive_playground::Split;
use votive_playground::image::prompts;

/// The recipe, as it is shipped.
const RECIPE: &str = include_str!("../../../examples/recipes/image/dpo.toml");
/// All captions that are kept for testing, if there are no more.
const TEST_PROMPTS: usize = 340;

pub(super) fn run(setting: &Setting) -> Outcome<ModalityReport> {
    let ctx = setting.ctx;
    let device = ctx.device()?;
    let base = ImageModel::load(&setting.model, None, &device)?;
    let (file, pairs) = world_pairs::make(&base, &setting.out, setting.seed, ctx)?;
    let run = align(RECIPE, setting, &file)?;
    let aligned = ImageModel::load(&run.final_folder(), None, &device)?;
    let tests = prompts(Split::Test, setting.seed, TEST_PROMPTS);
    let sampling = Sampling { steps: STEPS, cfg: CFG, seed: setting.seed << 32 };
    let (before, after) = (draw(&base, &tests, sampling, ctx)?, draw(&aligned, &tests, sampling, ctx)?);
    let grades = (grade_images(&tests, &before)?, grade_images(&tests, &after)?);
    let content = |i: usize, is_aligned: bool| {
        let path = sample_path(setting, i, is_aligned);
        let relative = path.strip_prefix(setting.root).unwrap_or(&path);
        Side { image: Some(relative.to_string_lossy().into_owned()), ..Side::default() }
    };
    let mut part = report::compare(&tests, (&grades.0, &grades.1), sampling.seed, setting.seed, &content);
    for (i, (before, after)) in before.iter().zip(&after).enumerate().take(part.entries.len()) {
        save(before, &sample_path(setting, i, false))?;
        save(after, &sample_path(setting, i, true))?;
    }
    part.settings = [("sampler".to_owned(), json!("ddim")), ("sampling".to_owned(), json!(sampling))].into();
    part.labels = Some(Labels { source: "exact checker".to_owned(), pairs, flipped: FLIPPED });
    part.training = report::training(run.path())?;
    Ok(part)
}

fn sample_path(setting: &Setting, i: usize, is_aligned: bool) -> PathBuf {
    let side = if is_aligned { "aligned" } else { "base" };
    setting.out.join(format!("samples/{i:04}-{side}.png"))
}
