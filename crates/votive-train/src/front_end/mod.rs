//! Likelihood front ends: how rows of data become log-probabilities of a network.
//!
//! The loop knows only [`FrontEnd`]; text and diffusion are its implementations. A reward model's numbers go the same way: its rewards
//! stand where log-probabilities do.

mod copies;
mod denoising;
mod encoded;
mod pair_latents;
mod pipeline;
mod prompt_table;
mod prompts;
mod rollout;
mod shown_images;
mod text;
mod text_batch;
mod text_model;

pub use denoising::{BetaConvention, DenoisingBatch, DenoisingFrontEnd, DenoisingSettings};
pub use encoded::EncodedCounts;
pub(crate) use pair_latents::ENCODE_BATCH;
pub use pair_latents::{ImageSettings, PairsOfFile};
pub use pipeline::{PipelineSettings, TrainedPipeline};
pub use prompts::{EncodedPrompts, PromptEncoder};
pub use rollout::{RolloutBatch, RolloutFrontEnd, RolloutPairs, RolloutSettings};
pub use shown_images::ShownImages;
pub use text::{RewardFrontEnd, TextFrontEnd};
pub use text_batch::TextBatch;
pub use text_model::TextModel;

use crate::error::{Result, TrainError};
use crate::plan::Plan;
use candle_core::{DType, Device, Tensor};
use std::path::Path;
use votive_model::{Head, Params, files};
use votive_objective::{CompletionFacts, Needs};
use votive_tensor::Recorder;
use votive_tensor::TokenScores;

/// One row of a step: which row of the data, and its place in the step's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Index of the row among those that were kept.
    pub row: usize,
    /// Place in the whole batch of the step; noise and timesteps are drawn by it, so cutting a batch changes nothing.
    pub position: usize,
}

/// The type that whole weights are written in; adapters are always written in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveDtype {
    /// That of the model's own files.
    Checkpoint,
    /// f32, which is what training computes in.
    Float32,
    /// f16.
    Float16,
    /// bf16.
    BFloat16,
}

impl SaveDtype {
    /// All with their names in recipes.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::Checkpoint, "checkpoint"),
        (Self::Float32, "float32"),
        (Self::Float16, "float16"),
        (Self::BFloat16, "bfloat16"),
    ];

    /// The type, where the model's weight files are `stem` in `folder`.
    fn of(self, folder: &Path, stem: &str) -> Result<DType> {
        match self {
            Self::Checkpoint => Ok(files::stored_float(folder, stem)?),
            Self::Float32 => Ok(DType::F32),
            Self::Float16 => Ok(DType::F16),
            Self::BFloat16 => Ok(DType::BF16),
        }
    }
}

/// What a network makes of the sequences of a batch.
pub struct Likelihood {
    /// Log-probability of every sequence, `(R,)`: f32, or f64 where it is made of denoising errors. Of a reward model its reward.
    pub logps: Tensor,
    /// The same token by token, where sequences have tokens.
    pub tokens: Option<TokenLikelihood>,
    /// What it was made of, where sequences are latents.
    pub denoised: Option<DenoisedLikelihood>,
    /// What a reward said of each, `(R,)`, where that is what it is made of.
    pub rewards: Option<Tensor>,
}

impl Likelihood {
    /// Log-probabilities alone.
    #[must_use]
    pub fn new(logps: Tensor) -> Self {
        Self { logps, tokens: None, denoised: None, rewards: None }
    }

    /// What it says of the first so many sequences, and the log-probabilities of the others.
    ///
    /// # Errors
    /// Those of candle.
    pub fn split_at(self, sequences: usize) -> Result<(Self, Tensor)> {
        let rest = self.logps.narrow(0, sequences, self.logps.dim(0)? - sequences)?;
        let denoised = self.denoised.map(|DenoisedLikelihood { predictions, weights, errors }| {
            let first = |tensor: Tensor| tensor.narrow(0, 0, sequences);
            let (predictions, weights, errors) = (first(predictions)?, first(weights)?, first(errors)?);
            Ok::<_, TrainError>(DenoisedLikelihood { predictions, weights, errors })
        });
        Ok((
            Self {
                logps: self.logps.narrow(0, 0, sequences)?,
                tokens: self.tokens.map(|tokens| tokens.of_first(sequences)).transpose()?,
                denoised: denoised.transpose()?,
                rewards: self.rewards.map(|rewards| rewards.narrow(0, 0, sequences)).transpose()?,
            },
            rest,
        ))
    }
}

/// What a denoiser makes of the noisy latents of a batch.
pub struct DenoisedLikelihood {
    /// Its predictions, `(R, C, H, W)`.
    pub predictions: Tensor,
    /// What an error counts at each latent's time, `(R,)`.
    pub weights: Tensor,
    /// Weighted mean squared errors, `(R,)`.
    pub errors: Tensor,
}

impl DenoisedLikelihood {
    /// The predictions of targets with what each error counts.
    ///
    /// Means are taken in f64 where the device has it: objectives multiply differences of errors by thousands, and f32
    /// rounds an error of 1 to 6·10⁻⁸.
    ///
    /// # Errors
    /// Those of candle.
    pub fn new(predictions: Tensor, target: &Tensor, weights: Tensor) -> Result<Self> {
        let errors = mean_square(&(&predictions - target)?, &weights)?;
        Ok(Self { predictions, weights, errors })
    }

    /// Weighted mean squares of the differences from another network's predictions, `(R,)`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn distances_from(&self, other: &Self) -> Result<Tensor> {
        mean_square(&(&self.predictions - &other.predictions)?, &self.weights)
    }
}

fn mean_square(differences: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let dtype = if differences.device().is_metal() { DType::F32 } else { DType::F64 };
    let squares = differences.to_dtype(dtype)?.sqr()?;
    Ok((squares.flatten_from(1)?.mean(1)? * weights.to_dtype(dtype)?)?)
}

/// What a network makes of the trained tokens of a batch's sequences, of which there are N in all.
pub struct TokenLikelihood {
    /// Trained tokens of every sequence; N in all.
    pub counts: Vec<usize>,
    /// The model's head at each.
    pub head: Head,
    /// What the head says of each.
    pub scores: TokenScores,
}

impl TokenLikelihood {
    /// What the last token of every sequence is predicted from, `(R, D)`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn last_states(&self) -> Result<Tensor> {
        let ends = self.counts.iter().scan(0u32, |end, count| {
            *end += *count as u32;
            Some(end.saturating_sub(1))
        });
        let ends: Vec<u32> = ends.collect();
        Ok(self.head.hidden.index_select(&Tensor::new(ends, self.head.hidden.device())?, 0)?)
    }

    /// That of the first so many sequences.
    fn of_first(self, sequences: usize) -> Result<Self> {
        let Self { mut counts, mut head, scores } = self;
        counts.truncate(sequences);
        let tokens = counts.iter().sum();
        head.hidden = head.hidden.narrow(0, 0, tokens)?;
        head.targets.truncate(tokens);
        Ok(Self { scores: scores.of_first(tokens)?, counts, head })
    }
}

/// What goes through a policy with its rows' own completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whether rows' gold completions do.
    pub gold: bool,
    /// Of how many degrees there are copies of the chosen completions, out of which something was taken.
    pub degrees: Option<usize>,
}

impl Wanted {
    /// What the objective of a plan reads.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let reads = |need| plan.objective.needs().contains(need);
        Self { gold: reads(Needs::GOLD), degrees: reads(Needs::DEGREES).then_some(plan.data.degrees) }
    }
}

/// A batch with further completions behind those of its rows.
pub struct Extended<B> {
    /// Everything.
    pub batch: B,
    /// Lengths of the gold completions in tokens, if they are there.
    pub gold_lengths: Option<Vec<f64>>,
    /// How much was taken out of each copy, if they are there.
    pub degrees: Option<Vec<u32>>,
}

/// Networks that a batch may ask; neither keeps a graph.
#[derive(Clone, Copy)]
pub struct Networks<'a, N> {
    /// The policy as it is.
    pub policy: &'a N,
    /// The reference, if it is a network.
    pub reference: Option<&'a N>,
}

/// Turns rows of data into log-probabilities of a network.
pub trait FrontEnd {
    /// A network, built on some parameters.
    type Network;
    /// Everything that a network needs to see of some rows at some step.
    type Batch;

    /// Builds the network on a view of the parameters.
    ///
    /// # Errors
    /// If the parameters don't fit the architecture.
    fn network(&self, params: &Params) -> Result<Self::Network>;

    /// The network of another folder, without gradients, for the same rows.
    ///
    /// # Errors
    /// If the folder's model does not read these rows as this one does.
    fn other_network(&self, folder: &Path, device: &Device) -> Result<Self::Network>;

    /// What decides a network's results beside its parameters, as bytes.
    fn network_identity(&self) -> Vec<u8>;

    /// Number of rows that are trained on: pairs, or labelled completions.
    fn rows(&self) -> usize;

    /// Number of rows that are held out for evaluation; their indices follow those of the rows that are trained on.
    fn held_out(&self) -> usize {
        0
    }

    /// Number of a kept row in its file, counted from 1.
    fn source_row(&self, row: usize) -> usize;

    /// The completions of a kept row and what an objective counts in them: of all rows two, the chosen first, or one, or those of
    /// a list.
    fn completions(&self, row: usize) -> Vec<CompletionFacts>;

    /// What an objective counts in the completions of some rows, as their sequences lie in a batch: the first completions
    /// of all rows, then the second ones.
    fn facts(&self, samples: &[Sample]) -> Vec<CompletionFacts> {
        let rows: Vec<_> = samples.iter().map(|sample| self.completions(sample.row)).collect();
        let sides = rows.first().map_or(1, Vec::len);
        (0..sides).flat_map(|side| rows.iter().map(move |row| row[side])).collect()
    }

    /// How much a kept row counts.
    fn weight(&self, _row: usize) -> f64 {
        1.0
    }

    /// By how much the chosen completion of a kept row was preferred, if the data says so.
    fn margin(&self, _row: usize) -> Option<f64> {
        None
    }

    /// What whoever judged gave each completion of a kept row, in their order, if the data says so of all of them.
    fn scores(&self, _row: usize) -> Option<Vec<f64>> {
        None
    }

    /// How unsure whoever judged was of a kept row, nats, if the data says so.
    fn uncertainty(&self, _row: usize) -> Option<f64> {
        None
    }

    /// How much the trained tokens of each completion of a kept row count, if the rows themselves say so.
    ///
    /// # Errors
    /// If a token cannot be decoded.
    fn token_weights(&self, _row: usize) -> Result<Option<Vec<Vec<f32>>>> {
        Ok(None)
    }

    /// Which rows may be in a batch together: those of equal numbers. Held-out rows have one too.
    fn bucket(&self, _row: usize) -> usize {
        0
    }

    /// Whether a row looks the same at every step, so that a reference can be computed once.
    fn is_fixed(&self) -> bool;

    /// The rows of `samples` as they are at `step`: a sequence for each completion, first those of all rows' first
    /// completions, then those of the second ones, and so on.
    ///
    /// # Errors
    /// If a row cannot be read.
    fn batch(&self, step: u64, samples: &[Sample]) -> Result<Self::Batch>;

    /// Whether batches are only whole when networks were asked, by [`FrontEnd::complete`].
    fn asks_networks(&self) -> bool {
        false
    }

    /// The batch of some rows at a step with what the networks of the moment have to say about it.
    ///
    /// # Errors
    /// Those of the networks.
    fn complete(
        &self,
        _rows: (u64, &[Sample]),
        batch: Self::Batch,
        _networks: Networks<Self::Network>,
    ) -> Result<Self::Batch> {
        Ok(batch)
    }

    /// Whether a batch prefers nothing to anything, so that none of it can have a gradient.
    fn is_undecided(&self, _batch: &Self::Batch) -> bool {
        false
    }

    /// Whether a batch shows the network everything that it reads, so that each of its parameters can have a gradient.
    fn reaches_all(&self, _batch: &Self::Batch) -> bool {
        true
    }

    /// What there is to log of a batch besides likelihoods and losses, a number for each row.
    ///
    /// # Errors
    /// Those of candle.
    fn measures(&self, _batch: &Self::Batch, _policy: &Likelihood) -> Result<Vec<(&'static str, Vec<f64>)>> {
        Ok(Vec::new())
    }

    /// For each sequence the part of the noise schedule that it lies in, where there is one.
    fn parts(&self, _batch: &Self::Batch) -> Option<Vec<String>> {
        None
    }

    /// Completions for estimating the divergence: of other prompts where there are tokens, the batch itself where
    /// there are none.
    ///
    /// # Errors
    /// If a row cannot be read.
    fn divergence_batch(&self, step: u64, samples: &[Sample]) -> Result<Self::Batch>;

    /// The batch of some rows at a step with further completions behind all others, first the gold ones of all rows, then
    /// copies of the chosen ones; none if nothing is wanted or rows lack it.
    ///
    /// # Errors
    /// If a row cannot be read.
    fn extended(&self, _step: u64, _samples: &[Sample], _: Wanted) -> Result<Option<Extended<Self::Batch>>> {
        Ok(None)
    }

    /// Width of the states that heads read; 0 if there are none.
    fn state_width(&self) -> usize {
        0
    }

    /// What each sequence of a batch is, as bytes: equal bytes have equal log-probabilities.
    fn sequence_identities(&self, batch: &Self::Batch) -> Vec<Vec<u8>>;

    /// Tokens of a batch's sequences, prompts included and padding not (latents, for images).
    fn tokens(&self, batch: &Self::Batch) -> usize;

    /// What the network makes of every sequence.
    ///
    /// # Errors
    /// Those of the network.
    fn likelihood(
        &self,
        network: &Self::Network,
        batch: &Self::Batch,
        recorder: Option<&Recorder>,
    ) -> Result<Likelihood>;

    /// Whether the policy computes in segments or parts, whose gradients come out at a recorder alone; `recompute` if the recipe wants
    /// segments recomputed.
    fn records_gradients(&self, recompute: bool) -> bool {
        recompute
    }

    /// Log-probability of every sequence, `(R,)`.
    ///
    /// # Errors
    /// Those of the network.
    fn logps(&self, network: &Self::Network, batch: &Self::Batch) -> Result<Tensor> {
        Ok(self.likelihood(network, batch, None)?.logps)
    }

    /// The batch and what was computed from it, named for inspection.
    ///
    /// # Errors
    /// Those of candle.
    fn dump(
        &self,
        batch: &Self::Batch,
        policy: &Tensor,
        reference: Option<&Tensor>,
    ) -> Result<Vec<(String, Tensor)>>;

    /// The batch in words, a line for each sequence; `colour` allows terminal escapes.
    ///
    /// # Errors
    /// If a sequence cannot be decoded.
    fn show(&self, batch: &Self::Batch, colour: bool) -> Result<Vec<String>>;

    /// Writes a folder that runs by itself: the whole model, or its adapter.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, params: &Params, folder: &Path, dtype: SaveDtype) -> Result<()>;

    /// Reads back what [`FrontEnd::save`] wrote, laid over the start's parameters.
    ///
    /// # Errors
    /// If a file is missing or does not fit.
    fn restore(&self, start: &Params, folder: &Path) -> Result<Params>;
}
