//! Keys and values of the tokens that a generation has already seen.

use crate::error::{ModelError, Result};
use crate::image_tokens::SeenImages;
use candle_core::{DType, Device, Tensor};

/// Room for the keys and values of `capacity` tokens in each of some left-padded rows; no gradient passes.
///
/// Rows of different lengths end together: row `r` starts with `left_padding[r]` places that hold no token, and its
/// positions are counted from its first token.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<[Tensor; 2]>,
    left_padding: Vec<usize>,
    capacity: usize,
    len: usize,
    /// Where the next word of each row stands.
    next: Vec<usize>,
    /// `(B, len)`, of models that may have to look at them again.
    seen: Option<Tensor>,
    /// What ids beyond the vocabulary stand for.
    images: Option<SeenImages>,
}

impl KvCache {
    /// An empty cache for a model of that many layers, whose keys have that width (all heads together).
    ///
    /// # Errors
    /// Those of candle.
    pub(super) fn new(
        (layers, key_width): (usize, usize),
        left_padding: Vec<usize>,
        capacity: usize,
        device: &Device,
    ) -> Result<Self> {
        // One place more than is ever used: rows with a gap behind them are what attention reads without a copy.
        let shape = (left_padding.len(), capacity + 1, key_width);
        let room = || Tensor::zeros(shape, DType::F32, device);
        let layers = (0..layers).map(|_| Ok([room()?, room()?])).collect::<Result<_>>()?;
        let next = vec![0; left_padding.len()];
        Ok(Self { layers, left_padding, capacity, len: 0, next, seen: None, images: None })
    }

    /// The same with what ids beyond the vocabulary stand for, as [`CausalLm::see`](crate::CausalLm::see) gives it.
    #[must_use]
    pub fn with_images(self, images: Option<SeenImages>) -> Self {
        Self { images, ..self }
    }

    pub(super) fn images(&self) -> Option<&SeenImages> {
        self.images.as_ref()
    }

    /// Where the next word of each row stands.
    pub(super) fn next(&self) -> &[usize] {
        &self.next
    }

    /// Places used so far, padding included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been seen yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Places at the start of each row that hold no token.
    #[must_use]
    pub fn left_padding(&self) -> &[usize] {
        &self.left_padding
    }

    /// Tokens of the longest row.
    pub(super) fn longest(&self) -> usize {
        self.len - self.left_padding.iter().min().copied().unwrap_or(0).min(self.len)
    }

    /// Adds the keys and values of new tokens to a layer, `(B, T, G·D)` each, and gives all of that layer's.
    #[expect(
        clippy::disallowed_methods,
        reason = "writing in place drops the gradient, and a cache has none"
    )]
    pub(super) fn append(&self, layer: usize, new: [&Tensor; 2]) -> candle_core::Result<[Tensor; 2]> {
        let end = self.len + new[0].dim(1)?;
        let extend = |room: &Tensor, new: &Tensor| {
            room.slice_set(&new.detach().contiguous()?, 1, self.len)?;
            room.narrow(1, 0, end)
        };
        let [keys, values] = &self.layers[layer];
        Ok([extend(keys, new[0])?, extend(values, new[1])?])
    }

    /// Checks that `(rows, width)` new tokens have room.
    pub(super) fn check(&self, rows: usize, width: usize) -> Result<()> {
        if rows != self.left_padding.len() || self.len + width > self.capacity {
            return Err(ModelError::Tokens(format!(
                "{rows} rows of {width} new tokens, but the cache holds {} rows of {} tokens, {} of them used",
                self.left_padding.len(),
                self.capacity,
                self.len
            )));
        }
        Ok(())
    }

    /// Keeps the ids of new tokens, and gives those of all.
    pub(super) fn remember(&mut self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let all = match &self.seen {
            None => ids.clone(),
            Some(seen) => Tensor::cat(&[seen, ids], 1)?,
        };
        self.seen = Some(all.clone());
        Ok(all)
    }

    /// Whether a row's text grows from `most` tokens or fewer to more with that many new ones.
    pub(super) fn is_crossed(&self, most: usize, new: usize) -> bool {
        let crosses = |padding: &usize| {
            let (before, after) =
                (self.len.saturating_sub(*padding), (self.len + new).saturating_sub(*padding));
            before > 0 && before <= most && after > most
        };
        self.left_padding.iter().any(crosses)
    }

    /// Forgets keys and values, so that all tokens can be seen again.
    pub(super) fn rewind(&mut self) {
        self.len = 0;
        self.next.fill(0);
    }

    /// Counts tokens that every layer has now seen, behind which words stand at `next`.
    pub(super) fn advance(&mut self, width: usize, next: Vec<usize>) {
        self.len += width;
        self.next = next;
    }

    /// Keeps only the given rows, in their order.
    ///
    /// # Errors
    /// If a row does not exist.
    pub fn keep_rows(&mut self, rows: &[u32]) -> Result<()> {
        for tensor in self.layers.iter_mut().flatten() {
            *tensor = tensor.index_select(&Tensor::new(rows, tensor.device())?, 0)?;
        }
        if let Some(seen) = &mut self.seen {
            *seen = seen.index_select(&Tensor::new(rows, seen.device())?, 0)?;
        }
        self.left_padding = rows.iter().map(|row| self.left_padding[*row as usize]).collect();
        self.next = rows.iter().map(|row| self.next[*row as usize]).collect();
        Ok(())
    }
}
