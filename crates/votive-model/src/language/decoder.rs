//! A decoder: an embedding, layers of any architecture, a norm and a head that is read at wanted places only.

use super::cache::KvCache;
use super::positions::{Cells, Positions};
use super::rope::{Angles, Rotary};
use super::sizes::Sizes;
use super::vision::{Embedded, ImageEncoder};
use crate::causal_lm::{CausalLm, Head, TokenBatch, check_ids};
use crate::error::{ModelError, Result};
use crate::image_tokens::{ImageInput, Seen, SeenImages};
use crate::nn::{Embedding, RmsNorm};
use crate::params::Scope;
use crate::prefix_tree::{PrefixTree, Text};
use candle_core::{Device, IndexOp, Tensor};
use std::fmt::Debug;
use std::sync::Arc;
use votive_tensor as ops;
use votive_tensor::AttentionMask;
use votive_tensor::Recorder;

/// Where the tokens of a batch stand and what they may look at: what every layer is told.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The tokens' angles under each of the model's rotary tables.
    pub(crate) angles: Vec<Angles>,
    /// What a token may look at, before a layer's own window.
    pub(crate) mask: AttentionMask,
}

/// One layer of an architecture.
pub(crate) trait Layer: Debug + Send + Sync {
    /// `x (B, T, D)` → the same shape; with a cache, the tokens join it.
    ///
    /// # Errors
    /// If the sizes don't fit.
    fn forward(&self, x: &Tensor, places: &Places, cache: Option<&KvCache>) -> Result<Tensor>;
}

/// Where in a checkpoint the parts of a language model lie.
pub(crate) struct Roots<'a> {
    /// Embedding, layers and last norm.
    pub(crate) model: Scope<'a>,
    /// The head.
    pub(crate) lm_head: Scope<'a>,
}

impl<'a> Roots<'a> {
    /// Those of a checkpoint that holds nothing else.
    pub(crate) fn of(checkpoint: &Scope<'a>) -> Self {
        Self { model: checkpoint.sub("model"), lm_head: checkpoint.sub("lm_head") }
    }
}

/// How an architecture makes its norms, of a width and with an ε.
pub(crate) type Norm = fn(&Scope, usize, f64) -> Result<RmsNorm>;

/// A language model, whatever its layers are.
#[derive(Clone, Debug)]
pub struct Decoder {
    embed_tokens: Embedding,
    /// What embeddings are multiplied by.
    embedding_scale: Option<f64>,
    layers: Vec<Arc<dyn Layer>>,
    rotary: Vec<Rotary>,
    norm: RmsNorm,
    /// `(V, D)`; the embedding itself if it is tied.
    head: Tensor,
    /// Bound of the soft cap on logits.
    logit_softcap: Option<f64>,
    max_positions: usize,
    key_width: usize,
    /// What makes vectors of images, if the model sees any.
    vision: Option<Arc<dyn ImageEncoder>>,
}

impl Decoder {
    /// The model of these parts of a checkpoint; `norm` makes the last norm, `layer` the layer with a number.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(crate) fn new<L: Layer + 'static>(
        sizes: &Sizes,
        Roots { model, lm_head }: &Roots,
        rotary: Vec<Rotary>,
        norm: Norm,
        layer: impl Fn(usize, &Scope) -> Result<L>,
    ) -> Result<Self> {
        let table = [sizes.vocab_size, sizes.hidden_size];
        let embed_tokens = Embedding::new(&model.sub("embed_tokens"), table[0], table[1], sizes.init())?;
        let head = if sizes.tie_word_embeddings {
            // A copy that some tools save beside the embedding.
            lm_head.ignore("weight");
            embed_tokens.weight().clone()
        } else {
            lm_head.get("weight", &table, sizes.init())?
        };
        let layer = |index: usize| {
            Ok::<Arc<dyn Layer>, ModelError>(Arc::new(layer(index, &model.sub("layers").sub(index))?))
        };
        Ok(Self {
            embed_tokens,
            embedding_scale: None,
            layers: (0..sizes.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            rotary,
            norm: norm(&model.sub("norm"), sizes.hidden_size, sizes.rms_norm_eps)?,
            head,
            logit_softcap: None,
            max_positions: sizes.max_position_embeddings,
            key_width: sizes.key_width(),
            vision: None,
        })
    }

    /// The same, with images among its tokens.
    pub(crate) fn with_vision(self, vision: impl ImageEncoder + 'static) -> Self {
        Self { vision: Some(Arc::new(vision)), ..self }
    }

    /// The same, with each frequency of rotary positions multiplied by one of a position's three numbers.
    pub(crate) fn with_axes(self, axes: &[usize]) -> Self {
        let rotary = self.rotary.into_iter().map(|rotary| rotary.with_axes(axes.to_vec())).collect();
        Self { rotary, ..self }
    }

    /// The same, with embeddings multiplied by `scale`.
    pub(crate) fn with_embedding_scale(self, scale: f64) -> Self {
        Self { embedding_scale: Some(scale), ..self }
    }

    /// The same, with logits squeezed into ±`softcap` if there is one.
    pub(crate) fn with_logit_softcap(self, softcap: Option<f64>) -> Self {
        Self { logit_softcap: softcap, ..self }
    }

    /// Hidden states after the last norm.
    ///
    /// # Shapes
    /// `ids (B, T)` u32 → `(B, T, D)`.
    /// # Errors
    /// If T exceeds the model's positions or an id is not in the vocabulary.
    pub fn hidden(&self, ids: &Tensor) -> Result<Tensor> {
        let (rows, width) = ids.dims2()?;
        self.check_positions(width)?;
        let places = self.places(&Positions::texts(rows, width), AttentionMask::causal())?;
        self.run(&self.embed(ids, None)?, &places, None)
    }

    /// Hidden states after the last norm of the tokens of a tree, `(N, D)`, of which those beyond the vocabulary are `images`.
    ///
    /// With a recorder every layer is a recomputed segment: less memory, a second forward in the backward.
    fn tree_hidden(
        &self,
        tree: &PrefixTree,
        images: Option<&SeenImages>,
        recorder: Option<&Recorder>,
    ) -> Result<Tensor> {
        self.check_positions(tree.positions.iter().max().map_or(0, |last| last + 1))?;
        let positions = Positions::of(tree, Cells::of(images, self.vocabulary()));
        let places = self.places(&positions, AttentionMask::tree(Arc::clone(&tree.segments)))?;
        let ids = Tensor::new(&*tree.ids, self.device())?.unsqueeze(0)?;
        let embedded = self.embed(&ids, images)?;
        let Some(recorder) = recorder else { return Ok(self.run(&embedded, &places, None)?.squeeze(0)?) };
        let mut x = embedded.tokens.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            let (layer, places) = (Arc::clone(layer), places.clone());
            x = recorder
                .segment(&x, move |x| layer.forward(x, &places, None).map_err(candle_core::Error::wrap))?;
            x = embedded.added_behind(index, x)?;
        }
        Ok(self.norm.forward(&x)?.squeeze(0)?)
    }

    /// Hidden states after the last norm of one token of each row, `(R, D)`. What rows begin with alike is computed once.
    ///
    /// # Errors
    /// If a row is longer than the model's positions, an id is not in the vocabulary, or a row has no such token.
    pub(crate) fn hidden_at(
        &self,
        rows: &[Vec<u32>],
        at: &[usize],
        recorder: Option<&Recorder>,
    ) -> Result<Tensor> {
        check_ids(rows.iter().map(Vec::as_slice), self.vocabulary())?;
        // What comes behind the token cannot change it, but for how long the text is.
        let begun = |(row, at): (&Vec<u32>, &usize)| Text {
            tokens: row.iter().take(at + 1).copied().collect(),
            length: row.len(),
        };
        let texts: Vec<Text> = rows.iter().zip(at).map(begun).collect();
        let tree = PrefixTree::new(&texts, self.short_texts());
        let place = |(row, at): (usize, &usize)| {
            let place = tree.place(row, *at).map(|place| place as u32);
            place.ok_or_else(|| ModelError::Tokens(format!("row {row} has no token at position {at}")))
        };
        let places = at.iter().enumerate().map(place).collect::<Result<Vec<u32>>>()?;
        let places = Tensor::new(places, self.device())?;
        Ok(self.tree_hidden(&tree, None, recorder)?.index_select(&places, 0)?)
    }

    /// Embedded tokens through the layers and the last norm.
    fn run(&self, embedded: &Embedded, places: &Places, cache: Option<&KvCache>) -> Result<Tensor> {
        let mut x = embedded.tokens.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            x = embedded.added_behind(index, layer.forward(&x, places, cache)?)?;
        }
        self.norm.forward(&x)
    }

    /// The longest text that every table of angles treats as a short one, if one of them has another for long ones.
    fn short_texts(&self) -> Option<usize> {
        self.rotary.iter().find_map(Rotary::short_texts)
    }

    /// Hidden states of tokens that follow those in the cache, which then holds them too.
    ///
    /// # Shapes
    /// `ids (B, T)` u32, of which the first call's are left-padded as the cache says → `(B, T, D)`.
    /// # Gradient
    /// None flows to cached tokens.
    /// # Errors
    /// If the cache has no room, a row outgrows the model's positions or an id is not in the vocabulary.
    pub fn hidden_cached(&self, ids: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let (rows, width) = ids.dims2()?;
        cache.check(rows, width)?;
        self.check_positions(cache.longest() + width)?;
        let Some(most) = self.short_texts() else {
            return self.append(ids, cache);
        };
        // Texts that grow beyond a length have other angles from their first token on.
        let seen = cache.remember(ids)?;
        if !cache.is_crossed(most, width) {
            return self.append(ids, cache);
        }
        cache.rewind();
        let hidden = self.append(&seen, cache)?;
        Ok(hidden.narrow(1, hidden.dim(1)? - width, width)?)
    }

    fn append(&self, ids: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let width = ids.dim(1)?;
        let cells = Cells::of(cache.images(), self.vocabulary());
        let all: Vec<u32> = if cells.is_some() { ids.flatten_all()?.to_vec1()? } else { Vec::new() };
        let images = cells.map(|cells| (&*all, cells));
        let (left_padding, next) = (cache.left_padding(), cache.next().to_vec());
        let (positions, next) = Positions::behind(left_padding, next, (cache.len(), width), images);
        let mask =
            AttentionMask { first_key: Some(cache.left_padding().to_vec()), ..AttentionMask::causal() };
        let places = self.places(&positions, mask)?;
        let hidden = self.run(&self.embed(ids, cache.images())?, &places, Some(cache))?;
        cache.advance(width, next);
        Ok(hidden)
    }

    /// `hidden (…, D)` → logits `(…, V)`.
    ///
    /// # Errors
    /// If the sizes don't fit.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = ops::linear(hidden, &self.head, None)?;
        Ok(match self.logit_softcap {
            None => logits,
            Some(cap) => ((logits / cap)?.tanh()? * cap)?,
        })
    }

    /// `ids (B, T)` → `(B, T, D)`; those beyond the vocabulary are rows of `images`.
    fn embed(&self, ids: &Tensor, images: Option<&SeenImages>) -> Result<Embedded> {
        match images {
            None => Ok(Embedded::words(self.embed_words(ids)?)),
            Some(images) => Embedded::among(ids, images, self.vocabulary(), |ids| self.embed_words(ids)),
        }
    }

    fn embed_words(&self, ids: &Tensor) -> Result<Tensor> {
        let x = self.embed_tokens.forward(ids)?;
        Ok(match self.embedding_scale {
            None => x,
            Some(scale) => (x * scale)?,
        })
    }

    /// Looks at the images of rows; with a recorder the image encoder's layers are recomputed too.
    fn look(
        &self,
        rows: &[Vec<u32>],
        images: &[Vec<ImageInput>],
        recorder: Option<&Recorder>,
    ) -> Result<Seen> {
        let Some(vision) = &self.vision else {
            return match images.iter().position(|images| !images.is_empty()) {
                None => Ok(Seen { rows: rows.to_vec(), images: None }),
                Some(row) => Err(ModelError::Tokens(format!(
                    "row {row} has images, but this is a language model that sees none"
                ))),
            };
        };
        let (rows, distinct) = vision.tokens().place(rows, images, self.vocabulary())?;
        let images = match distinct.is_empty() {
            true => None,
            false => {
                let (vectors, added) = vision.forward(&distinct, self.device(), recorder)?;
                Some(SeenImages { vectors, added, cells: vision.tokens().cells(&distinct) })
            }
        };
        Ok(Seen { rows, images })
    }

    fn places(&self, positions: &Positions, mask: AttentionMask) -> Result<Places> {
        let angles = self.rotary.iter().map(|rotary| rotary.angles(positions, self.device()));
        Ok(Places { angles: angles.collect::<candle_core::Result<_>>()?, mask })
    }

    fn check_positions(&self, width: usize) -> Result<()> {
        let most = self.max_positions;
        if width > most {
            return Err(ModelError::Tokens(format!(
                "{width} tokens in a row, but the model has {most} positions"
            )));
        }
        Ok(())
    }
}

impl CausalLm for Decoder {
    fn vocabulary(&self) -> usize {
        self.head.dims().first().copied().unwrap_or(0)
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }

    fn device(&self) -> &Device {
        self.head.device()
    }

    fn head(&self, batch: &TokenBatch, recorder: Option<&Recorder>) -> Result<Head> {
        batch.check(self.vocabulary())?;
        let seen = self.look(batch.rows(), batch.images(), recorder)?;
        let contexts = batch.contexts(&seen.rows, self.short_texts());
        let places = Tensor::new(batch.places(&contexts), self.device())?;
        Ok(Head {
            hidden: self.tree_hidden(&contexts, seen.images.as_ref(), recorder)?.index_select(&places, 0)?,
            weight: self.head.clone(),
            softcap: self.logit_softcap,
            targets: batch.targets(),
        })
    }

    fn see(&self, rows: &[Vec<u32>], images: &[Vec<ImageInput>]) -> Result<Seen> {
        self.look(rows, images, None)
    }

    fn cache(&self, left_padding: Vec<usize>, capacity: usize) -> Result<KvCache> {
        KvCache::new((self.layers.len(), self.key_width), left_padding, capacity, self.device())
    }

    fn next_logits(&self, ids: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let hidden = self.hidden_cached(ids, cache)?;
        self.logits(&hidden.i((.., hidden.dim(1)? - 1))?)
    }
}
