//! Labelled pairs of a model's own pictures of the playground's captions.

use super::image_model::ImageModel;
use super::labels::best_against_worst;
use super::world::{CFG, STEPS, Sampling, draw, to_image};
use super::{Context, Failure, Outcome};
use image::ImageFormat;
use std::path::{Path, PathBuf};
use votive_data::{ImagePair, RowNumbers, write_image_pairs};
use votive_eval::grade_images;
use votive_playground::Split;
use votive_playground::image::{Picture, prompts};

const TRAINING_PROMPTS: usize = 1500;
const SAMPLES_PER_PROMPT: usize = 4;
/// Share of the labels that are flipped on purpose.
pub(crate) const FLIPPED: f64 = 0.1;

/// Training captions of a seed.
pub(crate) fn training_captions(seed: u64) -> Vec<String> {
    prompts(Split::Train, seed, TRAINING_PROMPTS)
}

/// Draws several pictures of every training caption, and writes the best against the worst of each to
/// `out/pairs.jsonl`; gives the file and the number of pairs.
///
/// # Errors
/// If the model cannot draw, or a file cannot be written.
pub(crate) fn make(base: &ImageModel, out: &Path, seed: u64, ctx: &Context) -> Outcome<(PathBuf, usize)> {
    let captions = training_captions(seed);
    let repeated: Vec<String> = captions.iter().flat_map(|c| vec![c.clone(); SAMPLES_PER_PROMPT]).collect();
    // Seeds of labels and tests are far apart.
    let sampling = Sampling { steps: STEPS, cfg: CFG, seed: (seed << 32) + (1 << 20) };
    let pictures = draw(base, &repeated, sampling, ctx)?;
    let labels = best_against_worst(&grade_images(&repeated, &pictures)?, SAMPLES_PER_PROMPT, FLIPPED, seed);
    let mut pairs = Vec::with_capacity(labels.len());
    for (i, label) in labels.iter().enumerate() {
        let put = |side: &str, sample: usize| {
            let path = out.join(format!("pairs/{i:05}-{side}.png"));
            save(&pictures[label.prompt * SAMPLES_PER_PROMPT + sample], &path).map(|()| path)
        };
        let (chosen, rejected) = (put("chosen", label.chosen)?, put("rejected", label.rejected)?);
        let numbers = RowNumbers { margin: Some(label.margin), ..RowNumbers::default() };
        let pair = ImagePair::new(i + 1, captions[label.prompt].clone(), chosen, rejected);
        pairs.push(ImagePair { numbers, ..pair });
    }
    let file = out.join("pairs.jsonl");
    write_image_pairs(&file, &pairs)?;
    ctx.output.note(format!("{} labelled pairs in {}", pairs.len(), file.display()));
    Ok((file, pairs.len()))
}

/// Writes a picture as PNG, and makes the folder if there is none.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn save(picture: &Picture, path: &Path) -> Outcome {
    let image = to_image(picture)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, error))?;
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).map_err(|error| Failure::data(error.to_string()))?;
    std::fs::write(path, bytes.into_inner()).map_err(|error| Failure::file(path, error))
}
