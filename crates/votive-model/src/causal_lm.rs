//! What training and generation ask of a language model, whatever its architecture.

use crate::error::{ModelError, Result};
use crate::language::KvCache;
use candle_core::{Device, Tensor};
use votive_tensor::segment::Recorder;

/// A model that gives each token a probability from those before it.
pub trait CausalLm: Send + Sync {
    /// Number of token ids, V.
    fn vocabulary(&self) -> usize;

    /// Longest row in tokens.
    fn max_positions(&self) -> usize;

    /// Where the parameters live.
    fn device(&self) -> &Device;

    /// Log-probability of every wanted token given those before it in its row.
    ///
    /// With a recorder the layers are recomputed in the backward instead of being kept.
    ///
    /// # Shapes
    /// → `(N,)`, in the order of [`TokenBatch::wanted`].
    /// # Units
    /// Nats.
    /// # Errors
    /// If a row is longer than the model's positions or a token id is not in the vocabulary.
    fn log_probs(&self, batch: &TokenBatch, recorder: Option<&Recorder>) -> Result<Tensor>;

    /// Room to generate: rows with the given left padding, `capacity` tokens each, padding included.
    ///
    /// # Errors
    /// Those of candle.
    fn cache(&self, left_padding: Vec<usize>, capacity: usize) -> Result<KvCache>;

    /// Logits of the token that follows `ids`, which join the cache.
    ///
    /// # Shapes
    /// `ids (B, T)` u32 → `(B, V)`.
    /// # Errors
    /// If the cache has no room, a row outgrows the model's positions or an id is not in the vocabulary.
    fn next_logits(&self, ids: &Tensor, cache: &mut KvCache) -> Result<Tensor>;
}

/// Rows of tokens, and the tokens among them whose log-probabilities are asked for.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    rows: Vec<Vec<u32>>,
    wanted: Vec<(usize, usize)>,
}

impl TokenBatch {
    /// Rows of any lengths, and (row, position) of each wanted token.
    ///
    /// # Errors
    /// If no token is wanted, or one is wanted that does not exist or that nothing precedes.
    pub fn new(rows: Vec<Vec<u32>>, wanted: Vec<(usize, usize)>) -> Result<Self> {
        if wanted.is_empty() {
            return Err(ModelError::Tokens("no token is asked for".to_owned()));
        }
        let exists =
            |&(row, at): &(usize, usize)| at > 0 && rows.get(row).is_some_and(|tokens| at < tokens.len());
        match wanted.iter().find(|place| !exists(place)) {
            Some((row, at)) => Err(ModelError::Tokens(format!(
                "row {row} has no token at position {at} that follows another"
            ))),
            None => Ok(Self { rows, wanted }),
        }
    }

    /// The tokens of each row.
    #[must_use]
    pub fn rows(&self) -> &[Vec<u32>] {
        &self.rows
    }

    /// (row, position) of each wanted token.
    #[must_use]
    pub fn wanted(&self) -> &[(usize, usize)] {
        &self.wanted
    }

    /// The wanted tokens.
    #[must_use]
    pub fn targets(&self) -> Vec<u32> {
        self.wanted.iter().map(|&(row, at)| self.rows[row][at]).collect()
    }

    /// Everything that a wanted token can depend on, as `(B, T)` right-padded ids, and T.
    ///
    /// # Errors
    /// Those of candle.
    pub fn contexts(&self, device: &Device) -> Result<(Tensor, usize)> {
        let width = self.wanted.iter().map(|(_, at)| *at).max().unwrap_or(0);
        // No wanted token sees the padding: it stands behind them all, and attention is causal.
        let padded =
            |row: &Vec<u32>| row.iter().copied().chain(std::iter::repeat(0)).take(width).collect::<Vec<_>>();
        let ids: Vec<u32> = self.rows.iter().flat_map(padded).collect();
        Ok((Tensor::from_vec(ids, (self.rows.len(), width), device)?, width))
    }

    /// Checks that every id is below the vocabulary's size.
    ///
    /// # Errors
    /// If one is not, with its place.
    pub fn check(&self, vocabulary: usize) -> Result<()> {
        check_ids(&self.rows, vocabulary)
    }
}

/// Checks that every id is below the vocabulary's size.
pub(crate) fn check_ids(rows: &[Vec<u32>], vocabulary: usize) -> Result<()> {
    for (row, tokens) in rows.iter().enumerate() {
        if let Some(at) = tokens.iter().position(|id| *id as usize >= vocabulary) {
            return Err(ModelError::Tokens(format!(
                "row {row}, position {at}: token id {} is not below the model's vocabulary size {vocabulary}; \
                 does the tokenizer belong to this model?",
                tokens[at]
            )));
        }
    }
    Ok(())
}
