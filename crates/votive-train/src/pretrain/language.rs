//! A language model from nothing: negative log-likelihood of the answers' tokens.

use super::Examples;
use crate::error::Result;
use candle_core::Tensor;
use std::ops::Range;
use votive_data::TextTokenizer;
use votive_model::{CausalLm, TokenBatch};

/// The loss of a language model on prompts and answers.
pub struct LanguagePretraining<'a> {
    /// The model that is trained.
    pub model: &'a dyn CausalLm,
    /// Its tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// The examples by index.
    pub examples: &'a Examples<String>,
}

impl LanguagePretraining<'_> {
    /// Mean loss in nats per answer token of some examples.
    ///
    /// # Errors
    /// If an example cannot be tokenized or is too long for the model.
    pub fn loss(&self, examples: Range<u64>) -> Result<Tensor> {
        let eos = self.tokenizer.eos_id()?;
        let (mut rows, mut wanted) = (Vec::new(), Vec::new());
        for index in examples {
            let (prompt, answer) = (self.examples)(index);
            let mut ids = self.tokenizer.encode(&prompt, true)?;
            let start = ids.len();
            ids.extend(self.tokenizer.encode(&answer, false)?);
            ids.push(eos);
            wanted.extend((start..ids.len()).map(|at| (rows.len(), at)));
            rows.push(ids);
        }
        let log_probs = self.model.log_probs(&TokenBatch::new(rows, wanted)?, None)?;
        Ok(log_probs.mean_all()?.neg()?)
    }
}
