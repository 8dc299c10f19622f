//! Places for images in texts.
//!
//! Source: TRL 1.16, `prepare_multimodal_messages` and `DataCollatorForVisionPreference`; transformers 5.23, `LlavaProcessor`.
//!
//! Departure: a row whose images and places do not match, or whose completion has a place for an image, is refused or counted
//! before anything is trained, where TRL stops at its batch.

use super::TextTokenizer;
use crate::admission::{Fault, Split, Verdict};
use crate::error::{DataError, Result};
use crate::record::{ChatOptions, Message};
use crate::report::RowProblem;

/// How a model reads images in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImagePlaces {
    /// Token that stands for an image; before the model reads it, for one of its vectors.
    pub token_id: u32,
    /// Vectors of an image.
    pub per_image: usize,
}

impl ImagePlaces {
    /// The tokens with as many of the image token for each image as it has vectors.
    #[must_use]
    pub fn expand(self, ids: &[u32]) -> Vec<u32> {
        let copies = |id: &u32| if *id == self.token_id { self.per_image } else { 1 };
        ids.iter().flat_map(|id| std::iter::repeat_n(*id, copies(id))).collect()
    }

    fn count(self, ids: &[u32]) -> usize {
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
    pub fn images(&self) -> Option<ImagePlaces> {
        self.images
    }

    /// Token ids of a prompt that shows so many images, one after each image token, ready to be read.
    ///
    /// # Errors
    /// If the prompt has more or fewer places for images, or the model sees none; if the tokenizer fails.
    pub fn encode_showing(&self, text: &str, images: usize) -> Result<Vec<u32>> {
        self.placed(self.encode(text, true)?, images)
    }

    /// Token ids of a conversation that shows so many images, up to where the assistant answers, ready to be read. The images
    /// stand before the first turn of the user that is plain text, unless the turns have places of their own.
    ///
    /// # Errors
    /// As [`encode_showing`](Self::encode_showing); if the chat template refuses the conversation.
    pub fn encode_chat_showing(
        &self,
        turns: &[Message],
        options: &ChatOptions,
        images: usize,
    ) -> Result<Vec<u32>> {
        self.placed(self.encode_chat(&self.showing(turns, images), true, options)?, images)
    }

    fn placed(&self, ids: Vec<u32>, images: usize) -> Result<Vec<u32>> {
        match self.images {
            None if images > 0 => Err(DataError::NoVision { folder: self.folder.clone() }),
            None => Ok(ids),
            Some(places) if places.count(&ids) == images => Ok(places.expand(&ids)),
            Some(places) => Err(DataError::ImagePlaces { places: places.count(&ids), images }),
        }
    }

    /// Tokens of a prompt with one image token for each image, to be read.
    #[must_use]
    pub fn compressed(&self, ids: &[u32]) -> Vec<u32> {
        let Some(places) = self.images else { return ids.to_vec() };
        let mut seen = 0;
        let is_kept = |id: &u32| {
            seen += usize::from(*id == places.token_id);
            *id != places.token_id || seen % places.per_image.max(1) == 1 % places.per_image.max(1)
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
    pub(crate) fn with_image_places<const N: usize>(&self, split: Split<N>, images: usize) -> Verdict<N> {
        let Some(places) = self.images else {
            return if images == 0 { Ok(split) } else { Err(RowProblem::NoVision.into()) };
        };
        let in_completions = split.completions.iter().map(|one| places.count(&one.ids)).sum();
        match fault_of(images, places.count(&split.prompt), in_completions) {
            Some(fault) => Err(fault),
            None => Ok(Split { prompt: places.expand(&split.prompt), ..split }),
        }
    }
}

fn fault_of(images: usize, in_prompt: usize, in_completions: usize) -> Option<Fault> {
    let fault = |detail| Some(Fault::new(RowProblem::ImagePlaces, detail));
    match (in_prompt == images, in_completions) {
        (true, 0) => None,
        (false, 0) => fault(format!(" ({images} images, {in_prompt} places in the prompt)")),
        _ => fault(format!(" ({in_completions} places in the completions)")),
    }
}
