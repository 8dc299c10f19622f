//! Rows of text as the tokens that a network reads, whether it is a language model or a reward model.
//!
//! Source: tokens and masks follow TRL 1.16.

use super::text_model::TextModel;
use super::{FrontEnd, Likelihood, Sample, SaveDtype};
use crate::checkpoint::at;
use crate::error::{Result, TrainError};
use crate::plan::TokenWeightRule;
use candle_core::{Device, Tensor};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use votive_data::{
    RowNumbers, TextTokenizer, TokenizedPair, TokenizedUnpaired, after_last, collate_mismatched,
    collate_pairs, collate_unpaired, differing_lines,
};
use votive_model::{
    CausalLmConfig, Lora, Params, RewardModelConfig, load_causal_lm_stored, load_reward_model,
    new_reward_model,
};
use votive_objective::CompletionFacts;
use votive_tensor::Storage;
use votive_tensor::segment::Recorder;

/// The rows of a text data set.
enum Rows {
    Pairs(Vec<TokenizedPair>),
    Unpaired(Vec<TokenizedUnpaired>),
}

impl Rows {
    fn numbers(&self, row: usize) -> RowNumbers {
        match self {
            Self::Pairs(rows) => rows[row].numbers,
            Self::Unpaired(rows) => rows[row].numbers,
        }
    }
}

/// A model's folder with tokenized rows: a language model's, or a reward model's ([`RewardFrontEnd`]).
pub struct TextFrontEnd<M = CausalLmConfig> {
    folder: PathBuf,
    model: M,
    tokenizer: TextTokenizer,
    rows: Rows,
    held_out: usize,
    max_length: Option<usize>,
    token_weights: TokenWeightRule,
}

/// A reward model's folder with tokenized rows.
pub type RewardFrontEnd = TextFrontEnd<RewardModelConfig>;

/// Some rows as padded tokens.
pub struct TextBatch(votive_data::TextBatch);

/// Files of a model folder that belong to its tokenizer or image processor, not to its weights.
const TOKENIZER_FILES: [&str; 12] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
];

impl TextFrontEnd {
    /// Reads a model folder. The rows come later, because they are tokenized with its tokenizer.
    ///
    /// # Errors
    /// If a file is missing or the architecture is not supported.
    pub fn open(folder: &Path, device: &Device) -> Result<(Self, Params)> {
        Self::open_stored(folder, device, None)
    }

    /// The same with the linear maps frozen and kept as `storage` says, if it says anything.
    ///
    /// # Errors
    /// As [`TextFrontEnd::open`].
    pub fn open_stored(folder: &Path, device: &Device, storage: Option<Storage>) -> Result<(Self, Params)> {
        let (config, params) = load_causal_lm_stored(folder, device, storage)?;
        Ok((Self::new(folder, config, TextTokenizer::load(folder)?)?, params))
    }

    /// The model's configuration.
    #[must_use]
    pub fn config(&self) -> &CausalLmConfig {
        &self.model
    }
}

impl RewardFrontEnd {
    /// Reads a reward model's folder, or a language model's, on which a fresh head is put, drawn from `seed`. Linear maps are frozen
    /// and kept as `storage` says, if it says anything.
    ///
    /// # Errors
    /// If a file is missing or the architecture is not supported.
    pub fn open_reward_model(
        folder: &Path,
        device: &Device,
        storage: Option<Storage>,
        seed: u64,
    ) -> Result<(Self, Params)> {
        let tokenizer = TextTokenizer::load(folder)?;
        let (config, params) = if RewardModelConfig::is_in(folder)? {
            load_reward_model(folder, device, storage)?
        } else {
            new_reward_model(folder, device, storage, (tokenizer.pad_id()?, seed))?
        };
        Ok((Self::new(folder, config, tokenizer)?, params))
    }

    /// The model's configuration.
    #[must_use]
    pub fn reward_config(&self) -> &RewardModelConfig {
        &self.model
    }
}

impl<M: TextModel> TextFrontEnd<M> {
    fn new(folder: &Path, model: M, tokenizer: TextTokenizer) -> Result<Self> {
        tokenizer.check_model_vocabulary(model.sizes().vocab_size)?;
        let rows = Rows::Pairs(Vec::new());
        let (folder, token_weights) = (folder.into(), TokenWeightRule::default());
        Ok(Self { folder, model, tokenizer, rows, held_out: 0, max_length: None, token_weights })
    }

    /// What the rows are read by.
    pub(crate) fn model(&self) -> &M {
        &self.model
    }

    /// The tokenizer of the folder.
    #[must_use]
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Longest row that the model can read, in tokens.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.model.sizes().max_position_embeddings
    }

    /// Trains on pairs.
    #[must_use]
    pub fn with_pairs(self, pairs: Vec<TokenizedPair>) -> Self {
        Self { rows: Rows::Pairs(pairs), ..self }
    }

    /// Trains on single completions; `max_length` bounds the mismatched ones of the divergence estimate.
    #[must_use]
    pub fn with_unpaired(self, examples: Vec<TokenizedUnpaired>, max_length: usize) -> Self {
        Self { rows: Rows::Unpaired(examples), max_length: Some(max_length), ..self }
    }

    /// Tokens of every row's prompt and of its completions: two of a pair, one of an example.
    #[must_use]
    pub fn lengths_in_all(&self) -> Vec<(usize, Vec<usize>)> {
        match &self.rows {
            Rows::Pairs(rows) => rows
                .iter()
                .map(|row| (row.prompt_ids.len(), vec![row.chosen_ids.len(), row.rejected_ids.len()]))
                .collect(),
            Rows::Unpaired(rows) => {
                rows.iter().map(|row| (row.prompt_ids.len(), vec![row.completion_ids.len()])).collect()
            }
        }
    }

    /// Holds the last `rows` rows out for evaluation.
    #[must_use]
    pub fn holding_out(self, rows: usize) -> Self {
        Self { held_out: rows, ..self }
    }

    /// Weighs single tokens by this rule, for objectives that read it.
    #[must_use]
    pub fn weighing_tokens(self, token_weights: TokenWeightRule) -> Self {
        Self { token_weights, ..self }
    }

    fn pad_id(&self) -> Result<u32> {
        Ok(self.tokenizer.pad_id()?)
    }
}

impl TextBatch {
    /// The padded tokens and their masks.
    #[must_use]
    pub fn tokens(&self) -> &votive_data::TextBatch {
        &self.0
    }

    /// The sequences without padding.
    pub(super) fn sequences(&self) -> Vec<Vec<u32>> {
        let tokens = &self.0;
        let row =
            |i: usize| tokens.input_ids[i * tokens.width..i * tokens.width + tokens.lengths[i]].to_vec();
        (0..tokens.n_sequences).map(row).collect()
    }

    /// Number of completion tokens of every sequence.
    pub(super) fn completion_tokens(&self) -> impl Iterator<Item = usize> + '_ {
        let count = |row: &[u8]| row.iter().filter(|wanted| **wanted == 1).count();
        self.0.completion_mask.chunks(self.0.width.max(1)).map(count)
    }

    /// (sequence, position) of every completion token.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mask = self.0.completion_mask.iter().enumerate();
        mask.filter(|(_, wanted)| **wanted == 1).map(|(cell, _)| (cell / self.0.width, cell % self.0.width))
    }
}

impl<M: TextModel> FrontEnd for TextFrontEnd<M> {
    type Network = M::Network;
    type Batch = TextBatch;

    fn network(&self, params: &Params) -> Result<Self::Network> {
        self.model.network(params)
    }

    fn other_network(&self, folder: &Path, device: &Device) -> Result<Self::Network> {
        let (model, params) = M::read(folder, device)?;
        let tokenizer = TextTokenizer::load(folder)?;
        if let Some(difference) = self.tokenizer.difference(&tokenizer) {
            let folder = folder.display();
            return Err(TrainError::Plan(format!("reference.path = {folder}: {difference}")));
        }
        model.network(&params)
    }

    fn network_identity(&self) -> Vec<u8> {
        // Which type the weights are stored in does not matter: they are hashed themselves.
        self.model.to_json("").to_string().into_bytes()
    }

    fn rows(&self) -> usize {
        let all = match &self.rows {
            Rows::Pairs(rows) => rows.len(),
            Rows::Unpaired(rows) => rows.len(),
        };
        all - self.held_out.min(all)
    }

    fn held_out(&self) -> usize {
        self.held_out
    }

    fn source_row(&self, row: usize) -> usize {
        match &self.rows {
            Rows::Pairs(rows) => rows[row].row,
            Rows::Unpaired(rows) => rows[row].row,
        }
    }

    fn completions(&self, row: usize) -> Vec<CompletionFacts> {
        let facts = |is_desirable, ids: &[u32], untrained: &[Range<usize>]| {
            let tokens = ids.len() - untrained.iter().map(Range::len).sum::<usize>();
            CompletionFacts { is_desirable, tokens: tokens as f64 }
        };
        match &self.rows {
            Rows::Pairs(rows) => {
                let row = &rows[row];
                let chosen = facts(true, &row.chosen_ids, &row.chosen_untrained);
                vec![chosen, facts(false, &row.rejected_ids, &row.rejected_untrained)]
            }
            Rows::Unpaired(rows) => {
                let row = &rows[row];
                vec![facts(row.label, &row.completion_ids, &row.untrained)]
            }
        }
    }

    fn weight(&self, row: usize) -> f64 {
        self.rows.numbers(row).weight.unwrap_or(1.0)
    }

    fn margin(&self, row: usize) -> Option<f64> {
        self.rows.numbers(row).margin
    }

    fn scores(&self, row: usize) -> Option<Vec<f64>> {
        let sides = match &self.rows {
            Rows::Pairs(_) => 2,
            Rows::Unpaired(_) => 1,
        };
        self.rows.numbers(row).scores.into_iter().take(sides).collect()
    }

    fn uncertainty(&self, row: usize) -> Option<f64> {
        self.rows.numbers(row).uncertainty
    }

    fn token_weights(&self, row: usize) -> Result<Option<Vec<Vec<f32>>>> {
        let Rows::Pairs(rows) = &self.rows else { return Ok(None) };
        let pair = &rows[row];
        let sides = [&pair.chosen_ids, &pair.rejected_ids];
        let weights = match &self.token_weights {
            TokenWeightRule::Activations => return Ok(None),
            TokenWeightRule::DifferingLines => {
                let mut breaks = BTreeSet::new();
                for id in sides.into_iter().flatten() {
                    if self.tokenizer.decode(&[*id], false)?.contains('\n') {
                        breaks.insert(*id);
                    }
                }
                differing_lines(sides[0], sides[1], |id| breaks.contains(&id))
            }
            TokenWeightRule::AfterLast(mark) => {
                let mark = self.tokenizer.encode(mark, false)?;
                sides.map(|ids| after_last(ids, &mark))
            }
        };
        let trained = |(weights, untrained): (Vec<f32>, &Vec<Range<usize>>)| {
            let is_trained = |place: &usize| !untrained.iter().any(|span| span.contains(place));
            (0..weights.len()).filter(is_trained).map(|place| weights[place]).collect()
        };
        let untrained = [&pair.chosen_untrained, &pair.rejected_untrained];
        Ok(Some(weights.into_iter().zip(untrained).map(trained).collect()))
    }

    fn is_fixed(&self) -> bool {
        true
    }

    fn batch(&self, _: u64, samples: &[Sample]) -> Result<TextBatch> {
        let pad = self.pad_id()?;
        Ok(match &self.rows {
            Rows::Pairs(rows) => {
                let pairs: Vec<_> = samples.iter().map(|sample| &rows[sample.row]).collect();
                TextBatch(collate_pairs(&pairs, pad))
            }
            Rows::Unpaired(rows) => {
                let examples: Vec<_> = samples.iter().map(|sample| &rows[sample.row]).collect();
                TextBatch(collate_unpaired(&examples, pad))
            }
        })
    }

    fn divergence_batch(&self, _: u64, samples: &[Sample]) -> Result<TextBatch> {
        let examples: Vec<TokenizedUnpaired> = match &self.rows {
            Rows::Unpaired(rows) => samples.iter().map(|sample| rows[sample.row].clone()).collect(),
            Rows::Pairs(rows) => {
                let (chosen, rejected): (Vec<_>, Vec<_>) =
                    samples.iter().map(|sample| rows[sample.row].clone().unpair().into()).unzip();
                chosen.into_iter().chain(rejected).collect()
            }
        };
        let most = self.max_length.unwrap_or(self.max_positions());
        let examples: Vec<_> = examples.iter().collect();
        Ok(TextBatch(collate_mismatched(&examples, Some(most), self.pad_id()?)))
    }

    fn gold_batch(&self, samples: &[Sample]) -> Result<Option<(TextBatch, Vec<f64>)>> {
        let Rows::Pairs(rows) = &self.rows else { return Ok(None) };
        let golds: Option<Vec<_>> = samples.iter().map(|sample| rows[sample.row].gold.as_ref()).collect();
        let Some(golds) = golds else { return Ok(None) };
        let trained = |one: &&TokenizedUnpaired| {
            (one.completion_ids.len() - one.untrained.iter().map(Range::len).sum::<usize>()) as f64
        };
        let lengths = golds.iter().map(trained).collect();
        Ok(Some((TextBatch(collate_unpaired(&golds, self.pad_id()?)), lengths)))
    }

    fn sequence_identities(&self, batch: &TextBatch) -> Vec<Vec<u8>> {
        let tokens = &batch.0;
        let sequence = |row: usize| {
            let cells = row * tokens.width..row * tokens.width + tokens.lengths[row];
            let ids = tokens.input_ids[cells.clone()].iter().flat_map(|id| id.to_le_bytes());
            ids.chain(tokens.completion_mask[cells].iter().copied()).collect()
        };
        (0..tokens.n_sequences).map(sequence).collect()
    }

    fn tokens(&self, batch: &TextBatch) -> usize {
        batch.0.lengths.iter().sum()
    }

    fn likelihood(
        &self,
        network: &Self::Network,
        batch: &TextBatch,
        recorder: Option<&Recorder>,
    ) -> Result<Likelihood> {
        self.model.likelihood(network, batch, recorder)
    }

    fn dump(
        &self,
        batch: &TextBatch,
        policy: &Tensor,
        reference: Option<&Tensor>,
    ) -> Result<Vec<(String, Tensor)>> {
        let tokens = &batch.0;
        let shape = (tokens.n_sequences, tokens.width);
        let device = policy.device();
        let mut named = vec![
            ("input_ids", Tensor::from_vec(tokens.input_ids.clone(), shape, device)?),
            ("attention_mask", Tensor::from_vec(tokens.attention_mask.clone(), shape, device)?),
            ("completion_mask", Tensor::from_vec(tokens.completion_mask.clone(), shape, device)?),
            (M::SAYS[0], policy.detach()),
        ];
        named.extend(reference.map(|reference| (M::SAYS[1], reference.clone())));
        Ok(named.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect())
    }

    fn show(&self, batch: &TextBatch, colour: bool) -> Result<Vec<String>> {
        let tokens = &batch.0;
        let sequence = |row: usize| -> Result<String> {
            let cells = row * tokens.width..row * tokens.width + tokens.lengths[row];
            let (ids, mask) = (&tokens.input_ids[cells.clone()], &tokens.completion_mask[cells]);
            let start = mask.iter().position(|wanted| *wanted == 1).unwrap_or(ids.len());
            let prompt = self.tokenizer.decode(&ids[..start], false)?;
            let completion = self.tokenizer.decode(&ids[start..], false)?;
            let (prompt, completion) = (prompt.replace('\n', "⏎"), completion.replace('\n', "⏎"));
            Ok(if colour {
                format!("\x1b[2m{prompt}\x1b[0;32m{completion}\x1b[0m")
            } else {
                format!("{prompt} │ {completion}")
            })
        };
        (0..tokens.n_sequences).map(sequence).collect()
    }

    fn save(&self, params: &Params, folder: &Path, dtype: SaveDtype) -> Result<()> {
        match params.lora() {
            Some(lora) => lora.save(folder, &self.folder.to_string_lossy())?,
            None => self.model.write(folder, params, dtype.of(&self.folder, "model")?)?,
        }
        for name in TOKENIZER_FILES {
            let from = self.folder.join(name);
            if from.exists() {
                std::fs::copy(&from, folder.join(name)).map_err(at(&from))?;
            }
        }
        Ok(())
    }

    fn restore(&self, start: &Params, folder: &Path) -> Result<Params> {
        if start.lora().is_some() {
            return Ok(start.with_lora_values(Lora::load(folder, start.device())?)?);
        }
        let (model, params) = M::read(folder, start.device())?;
        if model != self.model {
            let reason = "its config.json is not the model's".to_owned();
            return Err(TrainError::Checkpoint { path: folder.into(), reason });
        }
        Ok(params.into_trainable()?)
    }
}
