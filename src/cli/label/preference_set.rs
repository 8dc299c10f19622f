//! A preference set that grows: rows of texts or of images, and the images beside it.

use crate::cli::{Failure, Outcome};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use votive_critic::{Candidate, MediaType, Picture};
use votive_data::{
    ChatOptions, ImageOrigin, ImagePair, Message, PairText, PreferencePair, RowNumbers, write_image_pairs,
    write_text_pairs,
};
use votive_model::files;

/// Two candidates of which the first is preferred.
pub(crate) struct Labelled<'a> {
    /// What both answer.
    pub(crate) prompt: &'a str,
    /// Chosen and rejected.
    pub(crate) sides: [&'a Candidate; 2],
    /// Who made either.
    pub(crate) models: [String; 2],
    /// Whether the prompt is a turn of a conversation.
    pub(crate) is_chat: bool,
    /// That the chosen one is better, as the judge found it.
    pub(crate) probability: f64,
    /// What the judge gives to either.
    pub(crate) scores: [f64; 2],
}

/// The rows of a preference set.
pub(crate) struct PreferenceSet<'a> {
    out: &'a Path,
    texts: Vec<PreferencePair>,
    images: Vec<ImagePair>,
}

impl<'a> PreferenceSet<'a> {
    /// An empty one for a file; images go to a folder of the same name beside it.
    pub(crate) fn at(out: &'a Path) -> Self {
        Self { out, texts: Vec::new(), images: Vec::new() }
    }

    /// Adds a pair, and writes its images.
    ///
    /// # Errors
    /// If an image cannot be written, or a text is compared with an image.
    pub(crate) fn add(&mut self, pair: Labelled) -> Outcome {
        let margin = (pair.probability / (1.0 - pair.probability).max(1e-6)).ln();
        let scores = pair.scores.map(Some);
        let numbers = RowNumbers { margin: Some(margin), scores, ..RowNumbers::default() };
        let row = self.texts.len() + self.images.len() + 1;
        match pair.sides {
            [Candidate::Image(chosen), Candidate::Image(rejected)] => {
                let sides = (put(chosen, self.out)?, put(rejected, self.out)?);
                let image = ImagePair::new(row, pair.prompt, sides.0, sides.1);
                let models = pair.models.map(|model| Some(Arc::from(model)));
                let origin = ImageOrigin { models, ..image.origin.clone() };
                self.images.push(ImagePair { numbers, origin, ..image });
            }
            [Candidate::Text(chosen), Candidate::Text(rejected)] => {
                let text = if pair.is_chat {
                    let turn = |text: &str| vec![Message::new("assistant", text)];
                    PairText::Chat {
                        prompt: vec![Message::new("user", pair.prompt)],
                        chosen: turn(chosen),
                        rejected: turn(rejected),
                        options: ChatOptions::default(),
                    }
                } else {
                    let [prompt, chosen, rejected] = [pair.prompt, chosen, rejected].map(str::to_owned);
                    PairText::Plain { prompt, chosen, rejected }
                };
                self.texts.push(PreferencePair { numbers, ..PreferencePair::new(row, text) });
            }
            _ => {
                let message = format!("a text is compared with an image; their prompt is {}", pair.prompt);
                return Err(Failure::data(message));
            }
        }
        Ok(())
    }

    /// Writes the rows.
    ///
    /// # Errors
    /// If there are texts and images, or the file cannot be written.
    pub(crate) fn write(self) -> Outcome {
        match (self.texts.is_empty(), self.images.is_empty()) {
            (false, false) => {
                Err(Failure::data("the store holds texts and images; a preference set has one kind"))
            }
            (_, true) => Ok(write_text_pairs(self.out, &self.texts)?),
            (true, false) => Ok(write_image_pairs(self.out, &self.images)?),
        }
    }
}

/// Writes an image to the folder beside a preference set, under its hash, and gives its path.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn put(picture: &Picture, out: &Path) -> Outcome<PathBuf> {
    let hash = Candidate::Image(picture.clone()).sha256();
    let ending = match picture.media_type() {
        MediaType::Png => "png",
        MediaType::Jpeg => "jpg",
        MediaType::Webp => "webp",
    };
    let path = out.with_extension("images").join(format!("{}.{ending}", &hash[..24]));
    files::write_bytes(&path, picture.bytes())?;
    Ok(path)
}
