//! The demo's Stable Diffusion model.

use super::super::image_model::ImageModel;
use super::super::world::{CFG, STEPS, Sampling, draw};
use super::super::{Failure, Outcome};
use super::labels::best_against_worst;
use super::{FLIPPED, Setting, align, report};
use image::{ImageFormat, RgbImage};
use serde_json::json;
use std::path::{Path, PathBuf};
use votive_data::{ImagePair, write_image_pairs};
use votive_eval::grade_images;
use votive_gallery::{Labels, ModalityReport, Side};
use votive_playground::Split;
use votive_playground::image::{Picture, prompts};

/// The recipe, as it is shipped.
const RECIPE: &str = include_str!("../../../examples/recipes/image/dpo.toml");
const TRAINING_PROMPTS: usize = 1500;
const SAMPLES_PER_PROMPT: usize = 4;
/// All captions that are kept for testing, if there are no more.
const TEST_PROMPTS: usize = 340;

pub(super) fn run(setting: &Setting) -> Outcome<ModalityReport> {
    let ctx = setting.ctx;
    let device = ctx.device()?;
    let base = ImageModel::load(&setting.model, None, &device)?;
    let captions = prompts(Split::Train, setting.seed, TRAINING_PROMPTS);
    let repeated: Vec<String> = captions.iter().flat_map(|c| vec![c.clone(); SAMPLES_PER_PROMPT]).collect();
    // Seeds of labels and tests are far apart.
    let sampling = Sampling { steps: STEPS, cfg: CFG, seed: (setting.seed << 32) + (1 << 20) };
    let pictures = draw(&base, &repeated, sampling, ctx)?;
    let labels =
        best_against_worst(&grade_images(&repeated, &pictures)?, SAMPLES_PER_PROMPT, FLIPPED, setting.seed);
    let mut pairs = Vec::with_capacity(labels.len());
    for (i, label) in labels.iter().enumerate() {
        let put = |side: &str, sample: usize| {
            let path = setting.out.join(format!("pairs/{i:05}-{side}.png"));
            save(&pictures[label.prompt * SAMPLES_PER_PROMPT + sample], &path).map(|()| path)
        };
        let (chosen, rejected) = (put("chosen", label.chosen)?, put("rejected", label.rejected)?);
        pairs.push(ImagePair::new(i + 1, captions[label.prompt].clone(), chosen, rejected));
    }
    let file = setting.out.join("pairs.jsonl");
    write_image_pairs(&file, &pairs)?;
    ctx.output.note(format!("{} labelled pairs in {}", pairs.len(), file.display()));
    let run = align(RECIPE, setting, &file)?;
    let aligned = ImageModel::load(&run.final_folder(), None, &device)?;
    let tests = prompts(Split::Test, setting.seed, TEST_PROMPTS);
    let sampling = Sampling { seed: setting.seed << 32, ..sampling };
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
    part.labels = Some(Labels { source: "exact checker".to_owned(), pairs: pairs.len(), flipped: FLIPPED });
    part.training = report::training(run.path())?;
    Ok(part)
}

fn sample_path(setting: &Setting, i: usize, is_aligned: bool) -> PathBuf {
    let side = if is_aligned { "aligned" } else { "base" };
    setting.out.join(format!("samples/{i:04}-{side}.png"))
}

fn save(picture: &Picture, path: &Path) -> Outcome {
    let wrong = || Failure::data("a picture has fewer numbers than pixels");
    let image = RgbImage::from_raw(picture.width as u32, picture.height as u32, picture.rgb.clone())
        .ok_or_else(wrong)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, error))?;
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).map_err(|error| Failure::data(error.to_string()))?;
    std::fs::write(path, bytes.into_inner()).map_err(|error| Failure::file(path, error))
}
