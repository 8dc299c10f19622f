//! Places for images in texts.
//!
//! Source: TRL 1.16, `prepare_multimodal_messages` and `DataCollatorForVisionPreference`; transformers 5.23, `LlavaProcessor`.
//!
//! Departure: a row whose images and places do not match, or whose completion has a place for an image, is refused or counted
//! before anything is trained, where TRL stops at its batch.

use std::fmt;
use std::sync::Arc;

use super::TextTokenizer;
use crate::admission::{Fault, Split, Verdict};
use crate::error::{DataError, Result};
use crate::framing::ImageSize;
use crate::image_bytes::ImageBytes;
use crate::pixels::{ImageLimits, stored_size};
use crate::record::{ChatOptions, ImageSource, Message};
use crate::report::RowProblem;

/// How a model reads images in a text.
#[derive(Clone, Debug)]
pub struct ImagePlaces {
    /// Token that stands for an image; before the model reads it, for one of its vectors.
    pub token_id: u32,
    /// How many vectors an image has.
    pub vectors: VectorCount,
}

/// How many vectors a model makes of an image.
#[derive(Clone)]
pub enum VectorCount {
    /// As many of each.
    Fixed(usize),
    /// As many as its size asks for, or why no image of that size is read.
    BySize(Arc<CountBySize>),
}

/// From an image's size to its number of vectors, or why there is none.
pub type CountBySize = dyn Fn(ImageSize) -> std::result::Result<usize, String> + Send + Sync;

impl fmt::Debug for VectorCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(count) => write!(f, "Fixed({count})"),
            Self::BySize(_) => f.write_str("BySize"),
        }
    }
}

/// How many vectors each image of a row has, or what is wrong with one.
pub(crate) type Shown = std::result::Result<Vec<usize>, Fault>;

impl ImagePlaces {
    /// The tokens with as many of the image token for each image as it has vectors.
    #[must_use]
    pub fn expand(&self, ids: &[u32], vectors: &[usize]) -> Vec<u32> {
        let mut vectors = vectors.iter();
        let copies = |id: &u32| match *id == self.token_id {
            true => vectors.next().copied().unwrap_or(1),
            false => 1,
        };
        let counts: Vec<usize> = ids.iter().map(copies).collect();
        ids.iter().zip(counts).flat_map(|(id, count)| std::iter::repeat_n(*id, count)).collect()
    }

    fn count(&self, ids: &[u32]) -> usize {
        ids.iter().filter(|id| **id == self.token_id).count()
    }
}

impl TextTokenizer {
    /// The same tokenizer for a model that sees images.
    #[must_use]
    pub fn with_images(self, images: ImagePlaces) -> Self {
        Self { images: Some(images), ..self }
    }

    /// How images stand in texts, if the model sees any.
    #[must_use]
    pub fn images(&self) -> Option<&ImagePlaces> {
        self.images.as_ref()
    }

    /// Vectors of the images of each of some rows. Where sizes decide, images are opened, each row's after the other's.
    pub(crate) fn vectors<'a>(&self, rows: impl Iterator<Item = &'a [ImageSource]>) -> Vec<Shown> {
        let (mut bytes, mut last): (ImageBytes, Option<(&[ImageSource], Shown)>) = Default::default();
        let of_row = |images: &'a [ImageSource]| match &self.images {
            None => Ok(vec![0; images.len()]),
            Some(ImagePlaces { vectors: VectorCount::Fixed(count), .. }) => Ok(vec![*count; images.len()]),
            Some(ImagePlaces { vectors: VectorCount::BySize(count), .. }) => {
                // Completions of a list show the same images.
                if let Some((_, known)) = last.as_ref().filter(|(others, _)| *others == images) {
                    return known.clone();
                }
                let found: Shown =
                    images.iter().map(|image| vectors_of(image, &mut bytes, &**count)).collect();
                last = Some((images, found.clone()));
                found
            }
        };
        rows.map(of_row).collect()
    }

    /// Token ids of a prompt that shows images of so many vectors each, one after each image token, ready to be read.
    ///
    /// # Errors
    /// If the prompt has more or fewer places for images, or the model sees none; if the tokenizer fails.
    pub fn encode_showing(&self, text: &str, vectors: &[usize]) -> Result<Vec<u32>> {
        self.placed(self.encode(text, true)?, vectors)
    }

    /// Token ids of a conversation that shows images of so many vectors each, up to where the assistant answers, ready to be read. The images
    /// stand before the first turn of the user that is plain text, unless the turns have places of their own.
    ///
    /// # Errors
    /// As [`encode_showing`](Self::encode_showing); if the chat template refuses the conversation.
    pub fn encode_chat_showing(
        &self,
        turns: &[Message],
        options: &ChatOptions,
        vectors: &[usize],
    ) -> Result<Vec<u32>> {
        self.placed(self.encode_chat(&self.showing(turns, vectors.len()), true, options)?, vectors)
    }

    fn placed(&self, ids: Vec<u32>, vectors: &[usize]) -> Result<Vec<u32>> {
        match &self.images {
            None if !vectors.is_empty() => Err(DataError::NoVision { folder: self.folder.clone() }),
            None => Ok(ids),
            Some(places) if places.count(&ids) == vectors.len() => Ok(places.expand(&ids, vectors)),
            Some(places) => Err(DataError::ImagePlaces { places: places.count(&ids), images: vectors.len() }),
        }
    }

    /// Tokens of a prompt with one image token for each image, which have so many vectors, for a person to read.
    #[must_use]
    pub fn compressed(&self, ids: &[u32], vectors: &[usize]) -> Vec<u32> {
        let Some(places) = &self.images else { return ids.to_vec() };
        let first = |sum: &mut usize, count: &usize| {
            *sum += count;
            Some(*sum - count)
        };
        let mut firsts = vectors.iter().scan(0, first).peekable();
        let mut seen = 0;
        let is_kept = |id: &u32| {
            if *id != places.token_id {
                return true;
            }
            seen += 1;
            firsts.next_if_eq(&(seen - 1)).is_some()
        };
        ids.iter().copied().filter(is_kept).collect()
    }

    /// Turns of a prompt that show so many images: they stand before the first turn of the user that is plain text, unless
    /// the turns have places of their own.
    pub(crate) fn showing(&self, prompt: &[Message], images: usize) -> Vec<Message> {
        if self.images.is_none() {
            return prompt.to_vec();
        }
        let first = prompt.iter().position(|turn| turn.role() == "user" && turn.content().is_some());
        let turn =
            |(place, turn): (usize, &Message)| turn.in_parts(if Some(place) == first { images } else { 0 });
        prompt.iter().enumerate().map(turn).collect()
    }

    /// What is wrong with the places for images in the turns of a row that has so many.
    pub(crate) fn fault_of_turns(
        &self,
        prompt: &[Message],
        completions: &[&Vec<Message>],
        images: usize,
    ) -> Option<Fault> {
        let places = |turns: &[Message]| turns.iter().map(Message::image_places).sum::<usize>();
        let in_completions = completions.iter().map(|turns| places(turns)).sum();
        fault_of(images, places(prompt), in_completions)
    }

    /// Checks that the prompt has a place for each of the row's images, and makes room there for its vectors.
    pub(crate) fn with_image_places<const N: usize>(&self, split: Split<N>, vectors: &[usize]) -> Verdict<N> {
        let Some(places) = &self.images else {
            return if vectors.is_empty() { Ok(split) } else { Err(RowProblem::NoVision.into()) };
        };
        let in_completions = split.completions.iter().map(|one| places.count(&one.ids)).sum();
        match fault_of(vectors.len(), places.count(&split.prompt), in_completions) {
            Some(fault) => Err(fault),
            None => Ok(Split { prompt: places.expand(&split.prompt, vectors), ..split }),
        }
    }
}

fn vectors_of(
    image: &ImageSource,
    bytes: &mut ImageBytes,
    count: &CountBySize,
) -> std::result::Result<usize, Fault> {
    let stored = bytes.read(image, ImageLimits::default().max_bytes);
    let counted = stored.and_then(|stored| stored_size(&stored, image)).and_then(count);
    counted.map_err(|message| Fault::new(RowProblem::UnreadableImage, format!(" ({image}: {message})")))
}

fn fault_of(images: usize, in_prompt: usize, in_completions: usize) -> Option<Fault> {
    let fault = |detail| Some(Fault::new(RowProblem::ImagePlaces, detail));
    match (in_prompt == images, in_completions) {
        (true, 0) => None,
        (false, 0) => fault(format!(" ({images} images, {in_prompt} places in the prompt)")),
        _ => fault(format!(" ({in_completions} places in the completions)")),
    }
}
