//! A language model from nothing: negative log-likelihood of the answers' tokens, after texts and images alike.

use crate::error::Result;
use candle_core::Tensor;
use std::ops::Range;
use votive_model::{CausalLm, ImageInput, TokenBatch};

/// A prompt and its answer, as the model reads them.
#[derive(Clone, Debug)]
pub struct TextExample {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The images that its placeholders stand for, in their order.
    pub images: Vec<ImageInput>,
    /// The answer's tokens, which are learnt; the one that ends it included.
    pub answer: Vec<u32>,
}

/// The loss of a language model on prompts and answers.
pub struct LanguagePretraining<'a> {
    /// The model that is trained.
    pub model: &'a dyn CausalLm,
    /// The examples by index.
    pub examples: &'a (dyn Fn(u64) -> Result<TextExample> + Send + Sync),
}

impl LanguagePretraining<'_> {
    /// Mean loss in nats per answer token of some examples.
    ///
    /// # Errors
    /// If an example cannot be made or is too long for the model.
    pub fn loss(&self, examples: Range<u64>) -> Result<Tensor> {
        let (mut rows, mut images, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for index in examples {
            let example = (self.examples)(index)?;
            let mut ids = example.prompt;
            let start = ids.len();
            ids.extend(example.answer);
            wanted.extend((start..ids.len()).map(|at| (rows.len(), at)));
            rows.push(ids);
            images.push(example.images);
        }
        let batch = TokenBatch::new(rows, wanted)?.with_images(images);
        let log_probs = self.model.log_probs(&batch, None)?;
        Ok(log_probs.mean_all()?.neg()?)
    }
}
