//! What reads rows of text: a language model, which gives log-probabilities, or a reward model, which gives rewards.

use super::text_batch::TextBatch;
use super::{Likelihood, TokenLikelihood};
use crate::error::Result;
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use votive_model::language::Sizes;
use votive_model::{
    CausalLm, CausalLmConfig, ImageProcessor, ImageTokens, Params, RewardModel, RewardModelConfig,
    TokenBatch, load_causal_lm, load_reward_model, save_causal_lm, save_reward_model,
};
use votive_tensor::Recorder;

/// The configuration of a network that reads rows of text.
pub trait TextModel: PartialEq + Sized {
    /// The network.
    type Network;

    /// What the network says of a sequence, in words.
    const SCORE: &'static str;

    /// What policy and reference say of sequences, by the names that an inspection has for it.
    const SAYS: [&'static str; 2];

    /// How large the network is.
    fn sizes(&self) -> &Sizes;

    /// Numbers that the head gives at a place: the vocabulary's, or one.
    fn outputs(&self) -> usize;

    /// Places of a completion of so many tokens at which the head is read.
    fn places(&self, tokens: usize) -> usize;

    /// How images are read among tokens, if they are.
    fn image_tokens(&self) -> Option<ImageTokens> {
        None
    }

    /// The image processor in a folder of this model, if it sees images.
    ///
    /// # Errors
    /// If a file is missing or malformed, or makes other images than the model reads.
    fn image_processor(&self, _: &Path) -> Result<Option<Arc<dyn ImageProcessor>>> {
        Ok(None)
    }

    /// Numbers that a forward makes of images with so many vectors in all, all of which a backward wants: those of each layer of
    /// the image encoder, its layers, and the others; 0 where there are no images.
    fn image_activations(&self, _: usize) -> (usize, usize, usize) {
        (0, 0, 0)
    }

    /// The `config.json` of weights that are stored in a type with torch's name `dtype`.
    fn to_json(&self, dtype: &str) -> Value;

    /// Builds the network on a view of the parameters.
    ///
    /// # Errors
    /// If the parameters don't fit the architecture.
    fn network(&self, params: &Params) -> Result<Self::Network>;

    /// What the network makes of every sequence.
    ///
    /// # Errors
    /// Those of the network.
    fn likelihood(
        &self,
        network: &Self::Network,
        batch: &TextBatch,
        recorder: Option<&Recorder>,
    ) -> Result<Likelihood>;

    /// Reads a folder of this kind of model.
    ///
    /// # Errors
    /// If a file is missing or malformed, or the folder holds another kind of model.
    fn read(folder: &Path, device: &Device) -> Result<(Self, Params)>;

    /// Writes configuration and whole weights.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn write(&self, folder: &Path, params: &Params, float: DType) -> Result<()>;
}

/// Log-probabilities of completions: summed over their tokens, end of text included (Rafailov et al., arXiv:2305.18290, Sec. 4).
impl TextModel for CausalLmConfig {
    type Network = Arc<dyn CausalLm>;

    const SCORE: &'static str = "log-probability";
    const SAYS: [&'static str; 2] = ["policy_logps", "reference_logps"];

    fn sizes(&self) -> &Sizes {
        self.sizes()
    }

    fn outputs(&self) -> usize {
        self.vocab_size()
    }

    fn places(&self, tokens: usize) -> usize {
        tokens
    }

    fn image_tokens(&self) -> Option<ImageTokens> {
        self.image_tokens()
    }

    fn image_processor(&self, folder: &Path) -> Result<Option<Arc<dyn ImageProcessor>>> {
        Ok(self.image_processor(folder)?)
    }

    fn image_activations(&self, vectors: usize) -> (usize, usize, usize) {
        self.image_activations(vectors)
    }

    fn to_json(&self, dtype: &str) -> Value {
        self.to_json(dtype)
    }

    fn network(&self, params: &Params) -> Result<Self::Network> {
        Ok(Arc::new(params.build(|scope| self.build(scope))?))
    }

    fn likelihood(
        &self,
        network: &Self::Network,
        batch: &TextBatch,
        recorder: Option<&Recorder>,
    ) -> Result<Likelihood> {
        let tokens = TokenBatch::new(batch.sequences(), batch.wanted().collect())?;
        let tokens = tokens.with_images(batch.images.clone());
        let head = network.head(&tokens, recorder)?;
        let scores = head.scores()?;
        let rows: Vec<u32> = batch.wanted().map(|(row, _)| row as u32).collect();
        let counts = batch.completion_tokens().collect();
        let rows = Tensor::new(rows, head.hidden.device())?;
        let zeros = Tensor::zeros(batch.tokens().n_sequences, DType::F32, head.hidden.device())?;
        let logps = zeros.index_add(&rows, &scores.log_probs()?, 0)?;
        Ok(Likelihood { tokens: Some(TokenLikelihood { counts, head, scores }), ..Likelihood::new(logps) })
    }

    fn read(folder: &Path, device: &Device) -> Result<(Self, Params)> {
        Ok(load_causal_lm(folder, device)?)
    }

    fn write(&self, folder: &Path, params: &Params, float: DType) -> Result<()> {
        Ok(save_causal_lm(folder, self, params, float)?)
    }
}

/// Rewards of prompts with their completions, end of text included (Ouyang et al., arXiv:2203.02155, Sec. 3.5).
impl TextModel for RewardModelConfig {
    type Network = RewardModel;

    const SCORE: &'static str = "reward";
    const SAYS: [&'static str; 2] = ["policy_rewards", "reference_rewards"];

    fn sizes(&self) -> &Sizes {
        self.sizes()
    }

    fn outputs(&self) -> usize {
        1
    }

    fn places(&self, _: usize) -> usize {
        1
    }

    fn to_json(&self, dtype: &str) -> Value {
        self.to_json(dtype)
    }

    fn network(&self, params: &Params) -> Result<RewardModel> {
        Ok(params.build(|scope| self.build(scope))?)
    }

    fn likelihood(
        &self,
        network: &RewardModel,
        batch: &TextBatch,
        recorder: Option<&Recorder>,
    ) -> Result<Likelihood> {
        let rewards = network.rewards(&batch.sequences(), recorder)?;
        Ok(Likelihood { rewards: Some(rewards.clone()), ..Likelihood::new(rewards) })
    }

    fn read(folder: &Path, device: &Device) -> Result<(Self, Params)> {
        Ok(load_reward_model(folder, device, None)?)
    }

    fn write(&self, folder: &Path, params: &Params, float: DType) -> Result<()> {
        Ok(save_reward_model(folder, self, params, float)?)
    }
}
