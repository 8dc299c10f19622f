//! Rows of text as the tokens that a network reads, whether it is a language model or a reward model.
//!
//! Source: tokens and masks follow TRL 1.16.

use super::copies::Copies;
use super::shown_images::ShownImages;
use super::text_batch::TextBatch;
use super::text_model::TextModel;
use super::{Extended, FrontEnd, Likelihood, Sample, SaveDtype, Wanted};
use crate::checkpoint::at;
use crate::error::{Result, TrainError};
use crate::plan::TokenWeightRule;
use candle_core::{Device, Tensor};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use votive_data::{
    RowNumbers, TextTokenizer, TokenizedList, TokenizedPair, TokenizedUnpaired, after_last, collate_lists,
    collate_mismatched, collate_pairs, collate_pairs_and, collate_unpaired, differing_lines,
};
use votive_model::{
    CausalLmConfig, Lora, Params, RewardModelConfig, load_causal_lm_stored, load_reward_model,
    new_reward_model,
};
use votive_objective::CompletionFacts;
use votive_tensor::Recorder;
use votive_tensor::Storage;

/// The rows of a text data set.
enum Rows {
    Pairs(Vec<TokenizedPair>),
    Unpaired(Vec<TokenizedUnpaired>),
    Lists(Vec<TokenizedList>),
}

impl Rows {
    fn numbers(&self, row: usize) -> RowNumbers {
        match self {
            Self::Pairs(rows) => rows[row].numbers,
            Self::Unpaired(rows) => rows[row].numbers,
            Self::Lists(rows) => RowNumbers { weight: rows[row].weight, ..RowNumbers::default() },
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Pairs(rows) => rows.len(),
            Self::Unpaired(rows) => rows.len(),
            Self::Lists(rows) => rows.len(),
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
    copies: Copies,
    /// How images are prepared, if the model sees any.
    images: Option<ShownImages>,
}

/// A reward model's folder with tokenized rows.
pub type RewardFrontEnd = TextFrontEnd<RewardModelConfig>;

/// Files of a model folder that belong to its tokenizer or image processor, not to its weights.
const TOKENIZER_FILES: [&str; 13] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
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
        let (tokenizer, images) = match model.image_processor(folder)? {
            None => (tokenizer, None),
            Some(processor) => {
                let (tokenizer, images) = ShownImages::of(folder, tokenizer, processor)?;
                (tokenizer, Some(images))
            }
        };
        Ok(Self {
            folder: folder.into(),
            model,
            tokenizer,
            rows: Rows::Pairs(Vec::new()),
            held_out: 0,
            max_length: None,
            token_weights: TokenWeightRule::default(),
            copies: Copies::default(),
            images,
        })
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

    /// Trains on lists of scored completions.
    #[must_use]
    pub fn with_lists(self, lists: Vec<TokenizedList>) -> Self {
        Self { rows: Rows::Lists(lists), ..self }
    }

    /// Tokens of every row's prompt and of its completions: two of a pair, with its gold one and its copy if they
    /// are wanted, one of an example, all of a list.
    #[must_use]
    pub fn lengths_in_all(&self, wanted: Wanted) -> Vec<(usize, Vec<usize>)> {
        match &self.rows {
            Rows::Pairs(rows) => rows
                .iter()
                .map(|row| {
                    let gold =
                        row.gold.as_ref().filter(|_| wanted.gold).map(|gold| gold.completion_ids.len());
                    // A copy is not longer than what it is made of.
                    let copy = wanted.degrees.map(|_| row.chosen_ids.len());
                    let sides = [row.chosen_ids.len(), row.rejected_ids.len()];
                    (row.prompt_ids.len(), sides.into_iter().chain(gold).chain(copy).collect())
                })
                .collect(),
            Rows::Lists(rows) => rows
                .iter()
                .map(|row| {
                    let prompt = row.completions.first().map_or(0, |one| one.prompt_ids.len());
                    (prompt, row.completions.iter().map(|one| one.completion_ids.len()).collect())
                })
                .collect(),
            Rows::Unpaired(rows) => {
                rows.iter().map(|row| (row.prompt_ids.len(), vec![row.completion_ids.len()])).collect()
            }
        }
    }

    /// The most vectors that the images of a row have together.
    #[must_use]
    pub fn most_image_vectors(&self) -> usize {
        let Some(images) = &self.images else { return 0 };
        let placeholder = images.tokens().placeholder;
        let vectors = |prompt: &Vec<u32>| prompt.iter().filter(|id| **id == placeholder).count();
        let most = match &self.rows {
            Rows::Pairs(rows) => rows.iter().map(|row| vectors(&row.prompt_ids)).max(),
            Rows::Unpaired(rows) => rows.iter().map(|row| vectors(&row.prompt_ids)).max(),
            Rows::Lists(rows) => {
                let first = rows.iter().filter_map(|row| row.completions.first());
                first.map(|one| vectors(&one.prompt_ids)).max()
            }
        };
        most.unwrap_or(0)
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

    /// Draws copies of completions by this seed, for objectives that read them.
    #[must_use]
    pub fn copying(self, seed: u64) -> Self {
        Self { copies: Copies { seed }, ..self }
    }

    /// A batch with the pixels of its images, which are read anew each time.
    fn with_images(&self, tokens: votive_data::TextBatch) -> Result<TextBatch> {
        let images = match &self.images {
            None => Vec::new(),
            Some(images) => images.of_batch(&tokens)?,
        };
        Ok(TextBatch { tokens, images })
    }

    fn pad_id(&self) -> Result<u32> {
        Ok(self.tokenizer.pad_id()?)
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
        let difference = self.tokenizer.difference(&tokenizer).or_else(|| {
            let is_same = model.image_tokens() == self.model.image_tokens();
            (!is_same).then(|| "it reads images in another way".to_owned())
        });
        if let Some(difference) = difference {
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
        let all = self.rows.count();
        all - self.held_out.min(all)
    }

    fn held_out(&self) -> usize {
        self.held_out
    }

    fn source_row(&self, row: usize) -> usize {
        match &self.rows {
            Rows::Pairs(rows) => rows[row].row,
            Rows::Unpaired(rows) => rows[row].row,
            Rows::Lists(rows) => rows[row].row,
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
            Rows::Lists(rows) => {
                let of = |one: &TokenizedUnpaired| facts(one.label, &one.completion_ids, &one.untrained);
                rows[row].completions.iter().map(of).collect()
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
            Rows::Lists(rows) => return Some(rows[row].scores()),
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

    fn bucket(&self, row: usize) -> usize {
        match &self.rows {
            Rows::Pairs(_) | Rows::Unpaired(_) => 0,
            // A batch is of lists of one length.
            Rows::Lists(rows) => rows[row].completions.len(),
        }
    }

    fn is_fixed(&self) -> bool {
        true
    }

    fn batch(&self, _: u64, samples: &[Sample]) -> Result<TextBatch> {
        let pad = self.pad_id()?;
        self.with_images(match &self.rows {
            Rows::Pairs(rows) => {
                let pairs: Vec<_> = samples.iter().map(|sample| &rows[sample.row]).collect();
                collate_pairs(&pairs, pad)
            }
            Rows::Unpaired(rows) => {
                let examples: Vec<_> = samples.iter().map(|sample| &rows[sample.row]).collect();
                collate_unpaired(&examples, pad)
            }
            Rows::Lists(rows) => {
                let lists: Vec<_> = samples.iter().map(|sample| &rows[sample.row]).collect();
                collate_lists(&lists, pad)
            }
        })
    }

    fn reaches_all(&self, batch: &TextBatch) -> bool {
        self.images.is_none() || batch.images.iter().any(|images| !images.is_empty())
    }

    fn divergence_batch(&self, _: u64, samples: &[Sample]) -> Result<TextBatch> {
        let examples: Vec<TokenizedUnpaired> = match &self.rows {
            Rows::Unpaired(rows) => samples.iter().map(|sample| rows[sample.row].clone()).collect(),
            Rows::Lists(rows) => {
                samples.iter().flat_map(|sample| rows[sample.row].completions.clone()).collect()
            }
            Rows::Pairs(rows) => {
                let (chosen, rejected): (Vec<_>, Vec<_>) =
                    samples.iter().map(|sample| rows[sample.row].clone().unpair().into()).unzip();
                chosen.into_iter().chain(rejected).collect()
            }
        };
        let most = self.max_length.unwrap_or(self.max_positions());
        let examples: Vec<_> = examples.iter().collect();
        self.with_images(collate_mismatched(&examples, Some(most), self.pad_id()?))
    }

    fn extended(&self, step: u64, samples: &[Sample], wanted: Wanted) -> Result<Option<Extended<TextBatch>>> {
        let Rows::Pairs(rows) = &self.rows else { return Ok(None) };
        let pairs: Vec<_> = samples.iter().map(|sample| &rows[sample.row]).collect();
        let golds: Option<Vec<_>> =
            pairs.iter().map(|pair| pair.gold.as_ref().filter(|_| wanted.gold)).collect();
        let copy = |(sample, pair): (&Sample, &&TokenizedPair), degrees: usize| {
            self.copies.of(&self.tokenizer, pair, degrees, (step, sample.position as u64))
        };
        let copies = wanted.degrees.map(|degrees| {
            samples.iter().zip(&pairs).map(|row| copy(row, degrees)).collect::<Result<Vec<_>>>()
        });
        let (copies, degrees): (Vec<_>, Vec<u32>) =
            copies.transpose()?.unwrap_or_default().into_iter().unzip();
        if (wanted.gold && golds.is_none()) || (!wanted.gold && copies.is_empty()) {
            return Ok(None);
        }
        let golds = golds.filter(|_| wanted.gold);
        let others: Vec<_> = golds.iter().flatten().copied().chain(&copies).collect();
        let batch = self.with_images(collate_pairs_and(&pairs, &others, self.pad_id()?))?;
        let lengths = || batch.completion_tokens().skip(2 * pairs.len()).take(pairs.len());
        let gold_lengths = golds.is_some().then(|| lengths().map(|count| count as f64).collect());
        Ok(Some(Extended { gold_lengths, degrees: wanted.degrees.map(|_| degrees), batch }))
    }

    fn state_width(&self) -> usize {
        self.model.sizes().hidden_size
    }

    fn sequence_identities(&self, batch: &TextBatch) -> Vec<Vec<u8>> {
        let tokens = &batch.tokens;
        let sequence = |row: usize| {
            let cells = row * tokens.width..row * tokens.width + tokens.lengths[row];
            let ids = tokens.input_ids[cells.clone()].iter().flat_map(|id| id.to_le_bytes());
            let images = batch.images.get(row).into_iter().flatten();
            let images = images.flat_map(|image| image.identity().iter().copied());
            ids.chain(tokens.completion_mask[cells].iter().copied()).chain(images).collect()
        };
        (0..tokens.n_sequences).map(sequence).collect()
    }

    fn tokens(&self, batch: &TextBatch) -> usize {
        batch.tokens.lengths.iter().sum()
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
        let tokens = &batch.tokens;
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
        let tokens = &batch.tokens;
        let sequence = |row: usize| -> Result<String> {
            let cells = row * tokens.width..row * tokens.width + tokens.lengths[row];
            let (ids, mask) = (&tokens.input_ids[cells.clone()], &tokens.completion_mask[cells]);
            let start = mask.iter().position(|wanted| *wanted == 1).unwrap_or(ids.len());
            let images = batch.images.get(row).map_or(&[][..], Vec::as_slice);
            let vectors = self.images.as_ref().map(|shown| shown.vectors(images)).unwrap_or_default();
            let prompt = self.tokenizer.compressed(&ids[..start], &vectors);
            let prompt = self.tokenizer.decode(&prompt, false)?;
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
