//! Images with what they were drawn of: those of a folder, or those that a model draws.

use crate::cli::image_model::{DrawSettings, ImageModel};
use crate::cli::png::origin;
use crate::cli::{Context, Failure, Outcome, signal};
use image::{ImageReader, RgbImage};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What an image was drawn of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drawn {
    /// Its name in messages and results.
    pub(super) name: String,
    pub(super) prompt: String,
    /// None if nobody knows.
    pub(super) seed: Option<u64>,
}

/// Images of prompts, in an order.
pub(super) struct ImageSet {
    pub(super) images: Vec<Drawn>,
    source: Source,
}

enum Source {
    Files(Vec<PathBuf>),
    Model(Box<ImageModel>, DrawSettings),
}

/// Endings of images that are looked for.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// The folder of a prompt's images in GenEval's layout, and the file with the prompt beside it.
const SAMPLES: &str = "samples";
const METADATA: &str = "metadata.jsonl";

/// Whether a folder holds a model and not images.
pub(super) fn is_model(folder: &Path) -> bool {
    folder.join("model_index.json").exists()
}

impl ImageSet {
    /// The images that a model draws of prompts from seeds.
    pub(super) fn of_model(model: ImageModel, settings: DrawSettings, prompts: Vec<(String, u64)>) -> Self {
        let drawn = |(number, (prompt, seed)): (usize, (String, u64))| Drawn {
            name: format!("image {number}"),
            prompt,
            seed: Some(seed),
        };
        let images = prompts.into_iter().enumerate().map(drawn).collect();
        Self { images, source: Source::Model(Box::new(model), settings) }
    }

    /// The images of a folder in the order of their names. Prompts are those that are given, each for as many images as
    /// there are to one; else those of GenEval's `metadata.jsonl`, or those that the PNG files themselves name.
    ///
    /// # Errors
    /// If the folder cannot be read or holds no images, or a prompt is not known or there is one too many.
    pub(super) fn of_folder(folder: &Path, prompts: Option<&[String]>) -> Outcome<Self> {
        let subfolders = entries(folder)?.into_iter().filter(|path| path.join(METADATA).exists());
        let subfolders: Vec<PathBuf> = subfolders.collect();
        if let (Some(subfolder), Some(_)) = (subfolders.first(), prompts) {
            let own = format!("{}: its {METADATA} names the prompt", subfolder.display());
            return Err(Failure::usage(own).hint("leave --prompts and --playground out"));
        }
        let mut files = Vec::new();
        let mut images = Vec::new();
        for subfolder in &subfolders {
            let prompt = prompt_of_metadata(&subfolder.join(METADATA))?;
            for file in images_of(&subfolder.join(SAMPLES))? {
                let seed = origin(&file)?.and_then(|origin| origin.seed);
                images.push(Drawn { name: name(folder, &file), prompt: prompt.clone(), seed });
                files.push(file);
            }
        }
        if subfolders.is_empty() {
            files = images_of(folder)?;
            images = match prompts {
                None => files.iter().map(|file| drawn_of_file(folder, file)).collect::<Outcome<_>>()?,
                Some(prompts) => with_prompts(folder, &files, prompts)?,
            };
        }
        if files.is_empty() {
            let none = format!("{}: no images (.{}) in this folder", folder.display(), ENDINGS.join(", ."));
            return Err(Failure::data(none));
        }
        Ok(Self { images, source: Source::Files(files) })
    }

    /// Prompts and seeds, for a model that is to draw the same.
    ///
    /// # Errors
    /// If a seed is not known.
    pub(super) fn prompts_and_seeds(&self) -> Outcome<Vec<(String, u64)>> {
        let seeded = |image: &Drawn| {
            let unknown = || {
                let message = format!("{}: the file does not say from which seed it was drawn", image.name);
                Failure::data(message).hint("give --prompts, and --seed as it was drawn with")
            };
            Ok((image.prompt.clone(), image.seed.ok_or_else(unknown)?))
        };
        self.images.iter().map(seeded).collect()
    }

    /// Reads or draws the images, `batch` at a time, and gives them with the number of the first.
    ///
    /// # Errors
    /// If an image cannot be read or drawn; those of `work`.
    pub(super) fn each_batch(
        &self,
        batch: usize,
        ctx: &Context,
        mut work: impl FnMut(usize, &[RgbImage]) -> Outcome,
    ) -> Outcome {
        let what = if matches!(self.source, Source::Files(_)) { "scoring" } else { "drawing and scoring" };
        let progress = ctx.output.progress(what, "images", self.images.len() as u64);
        for (number, images) in self.images.chunks(batch).enumerate() {
            signal::go_on()?;
            let first = number * batch;
            let pictures = match &self.source {
                Source::Files(files) => files[first..first + images.len()]
                    .iter()
                    .map(|file| read(file))
                    .collect::<Outcome<_>>()?,
                Source::Model(model, settings) => {
                    let prompts: Vec<String> = images.iter().map(|image| image.prompt.clone()).collect();
                    let seeds: Vec<u64> = images.iter().filter_map(|image| image.seed).collect();
                    model.draw((&prompts, &seeds), *settings, &ctx.output)?
                }
            };
            work(first, &pictures)?;
            progress.add(images.len() as u64);
        }
        progress.finish();
        Ok(())
    }
}

/// Checks that two sets are of the same prompts in the same order, and of the same seeds where these are known.
///
/// # Errors
/// Names the first image that has no counterpart.
pub(super) fn check_pairs(images: &[Drawn], against: &[Drawn]) -> Outcome {
    if images.len() != against.len() {
        let (n, m) = (images.len(), against.len());
        return Err(Failure::data(format!("{n} images cannot be compared one by one with {m} others")));
    }
    for (a, b) in images.iter().zip(against) {
        if a.prompt != b.prompt {
            let message = format!(
                "{} is of the prompt {:?}, and {} of the other set of {:?}",
                a.name, a.prompt, b.name, b.prompt
            );
            return Err(Failure::data(message).hint("both sets must hold the same prompts in the same order"));
        }
        if let (Some(seed), Some(other)) = (a.seed, b.seed)
            && seed != other
        {
            let message =
                format!("{}: drawn from seed {seed}, and {} of the other set from {other}", a.name, b.name);
            return Err(Failure::data(message).hint("draw both sets with the same --seed"));
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let at = |error| Failure::file(folder, error);
    let entries = std::fs::read_dir(folder).map_err(at)?;
    let mut paths = entries.map(|entry| Ok(entry.map_err(at)?.path())).collect::<Outcome<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn images_of(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let is_image = |path: &PathBuf| {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
    };
    Ok(entries(folder)?.into_iter().filter(is_image).collect())
}

fn name(folder: &Path, file: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).display().to_string()
}

fn drawn_of_file(folder: &Path, file: &Path) -> Outcome<Drawn> {
    let unknown = || {
        let message = format!("{}: the file does not say of which prompt it was drawn", file.display());
        Failure::data(message).hint("give the prompts with --prompts, in the order of the files' names")
    };
    let origin = origin(file)?.ok_or_else(unknown)?;
    Ok(Drawn { name: name(folder, file), prompt: origin.prompt, seed: origin.seed })
}

fn with_prompts(folder: &Path, files: &[PathBuf], prompts: &[String]) -> Outcome<Vec<Drawn>> {
    if prompts.is_empty() || !files.len().is_multiple_of(prompts.len()) {
        let (n, m, place) = (files.len(), prompts.len(), folder.display());
        return Err(Failure::data(format!("{place}: {n} images for {m} prompts: not as many for each")));
    }
    let each = files.len() / prompts.len();
    let drawn = |(number, file): (usize, &PathBuf)| -> Outcome<Drawn> {
        let seed = origin(file)?.and_then(|origin| origin.seed);
        Ok(Drawn { name: name(folder, file), prompt: prompts[number / each].clone(), seed })
    };
    files.iter().enumerate().map(drawn).collect()
}

fn prompt_of_metadata(file: &Path) -> Outcome<String> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::file(file, error))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::data(format!("{}: not a JSON object: {error}", file.display())))?;
    let prompt = value.get("prompt").and_then(Value::as_str).map(str::to_owned);
    prompt.ok_or_else(|| Failure::data(format!("{}: expected a string in field `prompt`", file.display())))
}

fn read(file: &Path) -> Outcome<RgbImage> {
    let reader = ImageReader::open(file).and_then(ImageReader::with_guessed_format);
    let reader = reader.map_err(|error| Failure::file(file, error))?;
    // The reader's own limits keep a file that states a huge size from filling the memory.
    let image = reader.decode().map_err(|error| Failure::data(format!("{}: {error}", file.display())))?;
    Ok(image.into_rgb8())
}
