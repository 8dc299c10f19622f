//! What training and generation ask of a language model, whatever its architecture.

use crate::error::{ModelError, Result};
use crate::image_tokens::{ImageInput, Seen};
use crate::language::KvCache;
use crate::prefix_tree::{PrefixTree, Text};
use candle_core::{Device, Tensor};
use votive_tensor::Recorder;
use votive_tensor::{TokenScores, token_divergences, token_scores};

/// A model that gives each token a probability from those before it.
pub trait CausalLm: Send + Sync {
    /// Number of token ids, V.
    fn vocabulary(&self) -> usize;

    /// Longest row in tokens.
    fn max_positions(&self) -> usize;

    /// Where the parameters live.
    fn device(&self) -> &Device;

    /// The head at every wanted token, from which its probability given those before it in its row is read.
    ///
    /// What rows begin with alike is computed once.
    ///
    /// With a recorder the layers are recomputed in the backward instead of being kept.
    ///
    /// # Errors
    /// If a row is longer than the model's positions or a token id is not in the vocabulary.
    fn head(&self, batch: &TokenBatch, recorder: Option<&Recorder>) -> Result<Head>;

    /// Log-probability of every wanted token.
    ///
    /// # Shapes
    /// → `(N,)`, in the order of [`TokenBatch::wanted`].
    /// # Units
    /// Nats.
    /// # Errors
    /// As [`CausalLm::head`].
    fn log_probs(&self, batch: &TokenBatch, recorder: Option<&Recorder>) -> Result<Tensor> {
        Ok(self.head(batch, recorder)?.scores()?.log_probs()?)
    }

    /// Looks at the images of rows, which is none for each row that the list does not reach.
    ///
    /// # Errors
    /// If placeholders and images do not match, or the model sees no images.
    fn see(&self, rows: &[Vec<u32>], images: &[Vec<ImageInput>]) -> Result<Seen>;

    /// Room to generate: rows with the given left padding, `capacity` tokens each, padding included.
    ///
    /// # Errors
    /// Those of candle.
    fn cache(&self, left_padding: Vec<usize>, capacity: usize) -> Result<KvCache>;

    /// Logits of the token that follows `ids`, which join the cache.
    ///
    /// # Shapes
    /// `ids (B, T)` u32, as [`CausalLm::see`] gives them where there are images → `(B, V)`.
    /// # Errors
    /// If the cache has no room, a row outgrows the model's positions or an id is not in the vocabulary.
    fn next_logits(&self, ids: &Tensor, cache: &mut KvCache) -> Result<Tensor>;
}

/// A model's head at N wanted tokens, before any logit is computed.
#[derive(Clone, Debug)]
pub struct Head {
    /// Hidden states before each token, `(N, D)`.
    pub hidden: Tensor,
    /// `(V, D)`.
    pub weight: Tensor,
    /// Bound of the soft cap on logits.
    pub softcap: Option<f64>,
    /// The tokens.
    pub targets: Vec<u32>,
}

impl Head {
    /// What the head says of its tokens.
    ///
    /// # Errors
    /// Those of candle.
    pub fn scores(&self) -> Result<TokenScores> {
        Ok(token_scores(&self.hidden, &self.weight, self.softcap, &self.targets)?)
    }

    /// Logits of all tokens of the vocabulary at each place, `(N, V)` in f32, without a gradient.
    ///
    /// # Errors
    /// Those of candle.
    pub fn logits(&self) -> Result<Tensor> {
        let of = |tensor: &Tensor| tensor.detach().to_dtype(candle_core::DType::F32);
        let logits = of(&self.hidden)?.matmul(&of(&self.weight)?.t()?)?;
        Ok(match self.softcap {
            Some(cap) => ((logits / cap)?.tanh()? * cap)?,
            None => logits,
        })
    }

    /// KL(other ‖ this) over the vocabulary at each token, nats, `(N,)`; no gradient flows to the other.
    ///
    /// # Errors
    /// If the other head is of other tokens or another vocabulary.
    pub fn divergence_from(&self, other: &Self) -> Result<Tensor> {
        let of = |head: &Self| [head.hidden.clone(), head.weight.clone()];
        let (own, others) = (of(self), of(other));
        Ok(token_divergences(own.each_ref(), others.each_ref(), [self.softcap, other.softcap])?)
    }
}

/// Rows of tokens, the images among them, and the tokens whose log-probabilities are asked for.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    rows: Vec<Vec<u32>>,
    images: Vec<Vec<ImageInput>>,
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
            None => Ok(Self { rows, images: Vec::new(), wanted }),
        }
    }

    /// The same rows with the images that their placeholders stand for, in their order.
    #[must_use]
    pub fn with_images(self, images: Vec<Vec<ImageInput>>) -> Self {
        Self { images, ..self }
    }

    /// The tokens of each row.
    #[must_use]
    pub fn rows(&self) -> &[Vec<u32>] {
        &self.rows
    }

    /// The images of each row, none for each that the list does not reach.
    #[must_use]
    pub fn images(&self) -> &[Vec<ImageInput>] {
        &self.images
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

    /// Everything that a wanted token can depend on, what rows begin with alike only once; `rows` are those of the batch
    /// with the ids of images in the place of placeholders.
    ///
    /// Texts of more than `short` tokens share nothing with those up to it, as if they began differently.
    pub(crate) fn contexts(&self, rows: &[Vec<u32>], short: Option<usize>) -> PrefixTree {
        let mut ends = vec![0; rows.len()];
        self.wanted.iter().for_each(|&(row, at)| ends[row] = ends[row].max(at));
        let text = |(row, end): (&Vec<u32>, usize)| Text { tokens: row[..end].to_vec(), length: row.len() };
        let texts: Vec<Text> = rows.iter().zip(ends).map(text).collect();
        PrefixTree::new(&texts, short)
    }

    /// Where in `contexts` the token before each wanted one lies.
    pub(crate) fn places(&self, contexts: &PrefixTree) -> Vec<u32> {
        let place = |&(row, at): &(usize, usize)| contexts.place(row, at - 1);
        self.wanted.iter().filter_map(place).map(|place| place as u32).collect()
    }

    /// Checks that every id is below the vocabulary's size.
    ///
    /// # Errors
    /// If one is not, with its place.
    pub fn check(&self, vocabulary: usize) -> Result<()> {
        check_ids(self.rows.iter().map(Vec::as_slice), vocabulary)
    }
}

/// Checks that every id is below the vocabulary's size.
pub(crate) fn check_ids<'a>(rows: impl Iterator<Item = &'a [u32]>, vocabulary: usize) -> Result<()> {
    for (row, tokens) in rows.enumerate() {
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
