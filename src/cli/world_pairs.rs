//! Labelled pairs of a model's own pictures of the playground's captions.

use super::image_model::ImageModel;
use super::labels::{Label, Labelled, Labeller, share_right};
use super::world::{CFG, STEPS, Sampling, candidates, draw, to_image, to_picture};
use super::{Context, Failure, Outcome};
use image::ImageFormat;
use std::path::Path;
use votive_data::{ImagePair, RowNumbers, write_image_pairs};
use votive_eval::grade_images;
use votive_playground::Split;
use votive_playground::image::{Picture, prompts};

const TRAINING_PROMPTS: usize = 1500;
const SAMPLES_PER_PROMPT: usize = 4;
/// Share of the exact checker's labels that are flipped on purpose: people are not always right either.
pub(crate) const FLIPPED: f64 = 0.1;

/// Training captions of a seed.
pub(crate) fn training_captions(seed: u64) -> Vec<String> {
    prompts(Split::Train, seed, TRAINING_PROMPTS)
}

/// Several pictures of every training caption.
pub(crate) struct Drawn {
    seed: u64,
    captions: Vec<String>,
    /// The caption of each picture.
    repeated: Vec<String>,
    pictures: Vec<Picture>,
}

impl Drawn {
    /// Draws them.
    ///
    /// # Errors
    /// If the model cannot draw.
    pub(crate) fn draw(model: &ImageModel, seed: u64, ctx: &Context) -> Outcome<Self> {
        // Seeds of labels and tests are far apart.
        let sampling = Sampling { steps: STEPS, cfg: CFG, seed: (seed << 32) + (1 << 20) };
        Self::of(seed, |captions| draw(model, captions, sampling, ctx))
    }

    /// Reads them from a folder, or draws them and keeps them there if it does not exist.
    ///
    /// # Errors
    /// If the model cannot draw, or a file cannot be written or read.
    pub(crate) fn kept_in(folder: &Path, model: &ImageModel, seed: u64, ctx: &Context) -> Outcome<Self> {
        let path = |folder: &Path, i: usize| folder.join(format!("{i:05}.png"));
        if folder.exists() {
            return Self::of(seed, |captions| (0..captions.len()).map(|i| saved(&path(folder, i))).collect());
        }
        let drawn = Self::draw(model, seed, ctx)?;
        // What stopped on the way is not taken for the whole.
        let unfinished = folder.with_extension("unfinished");
        for (i, picture) in drawn.pictures.iter().enumerate() {
            save(picture, &path(&unfinished, i))?;
        }
        std::fs::rename(&unfinished, folder).map_err(|error| Failure::file(folder, error))?;
        Ok(drawn)
    }

    fn of(seed: u64, pictures: impl FnOnce(&[String]) -> Outcome<Vec<Picture>>) -> Outcome<Self> {
        let captions = training_captions(seed);
        let repeated: Vec<String> =
            captions.iter().flat_map(|caption| vec![caption.clone(); SAMPLES_PER_PROMPT]).collect();
        let pictures = pictures(&repeated)?;
        Ok(Self { seed, captions, repeated, pictures })
    }

    /// How good the labeller finds each picture.
    ///
    /// # Errors
    /// If it fails.
    pub(crate) fn utilities(&self, labeller: &Labeller, ctx: &Context) -> Outcome<Vec<Option<f64>>> {
        labeller.utilities(&self.repeated, &candidates(&self.pictures)?, ctx)
    }

    /// Writes the pair of each caption to `out/pairs.jsonl`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn label(
        &self,
        (labeller, utilities): (&Labeller, &[Option<f64>]),
        flipped: f64,
        out: &Path,
        ctx: &Context,
    ) -> Outcome<Labelled> {
        let labels = labeller.label(utilities, SAMPLES_PER_PROMPT, flipped, self.seed);
        let place = |label: &Label, sample: usize| label.prompt * SAMPLES_PER_PROMPT + sample;
        let mut pairs = Vec::with_capacity(labels.len());
        for (i, label) in labels.iter().enumerate() {
            let put = |side: &str, sample: usize| {
                let path = out.join(format!("pairs/{i:05}-{side}.png"));
                save(&self.pictures[place(label, sample)], &path).map(|()| path)
            };
            let (chosen, rejected) = (put("chosen", label.chosen)?, put("rejected", label.rejected)?);
            let numbers = RowNumbers { margin: Some(label.margin), ..RowNumbers::default() };
            let pair = ImagePair::new(i + 1, self.captions[label.prompt].clone(), chosen, rejected);
            pairs.push(ImagePair { numbers, ..pair });
        }
        let file = out.join("pairs.jsonl");
        write_image_pairs(&file, &pairs)?;
        let truth = grade_images(&self.repeated, &self.pictures)?;
        let right = share_right(&labels, &truth, SAMPLES_PER_PROMPT);
        ctx.output.note(format!(
            "{} pairs labelled by {} in {}; {right:.1} % are right",
            pairs.len(),
            labeller.name(),
            file.display()
        ));
        Ok(Labelled { file, pairs: pairs.len(), right })
    }
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

/// Reads a picture that [`save`] wrote.
fn saved(path: &Path) -> Outcome<Picture> {
    let image = image::open(path).map_err(|error| Failure::file(path, std::io::Error::other(error)))?;
    Ok(to_picture(image.into_rgb8()))
}
