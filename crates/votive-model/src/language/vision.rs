//! Images among the tokens of a decoder: what an image encoder is to it, and how tokens and images are laid side by side.

use crate::config::ConfigFile;
use crate::error::{ModelError, Result};
use crate::image_tokens::{ImageInput, ImageTokens, SeenImages};
use candle_core::{Device, Tensor};
use serde_json::json;
use std::fmt::Debug;
use votive_tensor::Recorder;

/// What makes vectors of the decoder's width of images.
pub(crate) trait ImageEncoder: Debug + Send + Sync {
    /// How images are read among tokens.
    fn tokens(&self) -> ImageTokens;

    /// The vectors of distinct images, one image after another, `(N, D)`; and what is added at their places behind each of the
    /// decoder's first layers, `(N, D)` each. With a recorder the encoder's layers are recomputed in the backward.
    ///
    /// # Errors
    /// If an image has a size that the encoder does not read.
    fn forward(
        &self,
        images: &[&ImageInput],
        device: &Device,
        recorder: Option<&Recorder>,
    ) -> Result<(Tensor, Vec<Tensor>)>;
}

/// The language model's part of the configuration of a model that sees. Either of two fields ties the head.
///
/// # Errors
/// If `tie_word_embeddings` has the wrong type.
pub(crate) fn text_part(file: &ConfigFile) -> Result<ConfigFile> {
    let text = file.object("text_config").unwrap_or_else(|| file.empty_object("text_config"));
    Ok(match file.bool_or("tie_word_embeddings", false)? {
        true => text.with(&[("tie_word_embeddings", json!(true))]),
        false => text,
    })
}

/// The token that stands for a vector of an image, by the first of some fields that is there.
///
/// # Errors
/// If it is not in the vocabulary.
pub(crate) fn placeholder(
    file: &ConfigFile,
    fields: &[&str],
    absent: usize,
    vocabulary: usize,
) -> Result<u32> {
    let given = fields.iter().find(|field| file.get(field).is_some());
    let token = given.map(|field| file.maybe_usize(field)).transpose()?.flatten().unwrap_or(absent);
    match u32::try_from(token) {
        Ok(id) if token < vocabulary => Ok(id),
        _ => {
            let field = given.or(fields.first()).copied().unwrap_or_default();
            Err(file.unsupported(field, &format!("a token id below the vocabulary's size, {vocabulary}")))
        }
    }
}

/// Tokens as the layers of a decoder read them.
#[derive(Clone, Debug)]
pub(crate) struct Embedded {
    /// `(B, T, D)`.
    pub(crate) tokens: Tensor,
    /// What is added behind each of the first layers, `(B, T, D)` each.
    added: Vec<Tensor>,
}

impl Embedded {
    /// Words alone.
    pub(crate) fn words(tokens: Tensor) -> Self {
        Self { tokens, added: Vec::new() }
    }

    /// `ids (B, T)`, of which those beyond the vocabulary are vectors of images; `embed_words` makes `(1, W, D)` of `(1, W)`.
    ///
    /// # Errors
    /// If an id is neither; those of `embed_words`.
    pub(crate) fn among(
        ids: &Tensor,
        images: &SeenImages,
        vocabulary: usize,
        embed_words: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let vocabulary = vocabulary as u32;
        let all: Vec<u32> = ids.flatten_all()?.to_vec1()?;
        let (words, seen): (Vec<u32>, Vec<u32>) = all.iter().partition(|id| **id < vocabulary);
        if seen.is_empty() {
            return Ok(Self::words(embed_words(ids)?));
        }
        let (rows, width) = ids.dims2()?;
        let device = ids.device();
        // Words first, then what was seen, is brought into the order of the tokens.
        let (mut next_word, mut next_seen) = (0, words.len() as u32);
        let mut place = |id: &u32| {
            let next = if *id < vocabulary { &mut next_word } else { &mut next_seen };
            *next += 1;
            *next - 1
        };
        let order = Tensor::new(all.iter().map(&mut place).collect::<Vec<u32>>(), device)?;
        let numbers = seen.iter().map(|id| id - vocabulary).collect::<Vec<u32>>();
        let numbers = Tensor::new(numbers, device)?;
        let side_by_side = |words: Option<Tensor>, of_images: &Tensor| -> Result<Tensor> {
            let seen = of_images.index_select(&numbers, 0)?;
            let both = match words {
                None => seen,
                Some(words) => Tensor::cat(&[&words, &seen], 0)?,
            };
            Ok(both.index_select(&order, 0)?.reshape((rows, width, ()))?)
        };
        let has_words = !words.is_empty();
        let nothing = has_words
            .then(|| Tensor::zeros((words.len(), images.vectors.dim(1)?), images.vectors.dtype(), device))
            .transpose()?;
        let embedded = has_words
            .then(|| {
                Ok::<_, ModelError>(embed_words(&Tensor::new(words, device)?.unsqueeze(0)?)?.squeeze(0)?)
            })
            .transpose()?;
        let added = images.added.iter().map(|added| side_by_side(nothing.clone(), added));
        Ok(Self { added: added.collect::<Result<_>>()?, tokens: side_by_side(embedded, &images.vectors)? })
    }

    /// What comes out of a layer, `(B, T, D)`, with what is added there.
    ///
    /// # Errors
    /// Those of candle.
    pub(crate) fn added_behind(&self, layer: usize, x: Tensor) -> Result<Tensor> {
        match self.added.get(layer) {
            None => Ok(x),
            Some(added) => Ok((x + added)?),
        }
    }
}
