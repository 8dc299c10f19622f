//! What the policy itself draws while it is trained: pairs of its denoising steps, or pictures whose reward has a gradient.
//!
//! The log-probability of a side of a pair is the log-density of its step under DDIM with noise, a mean over the latent, so an
//! objective sees a log-probability like any other. Where nothing is compared it is the reward itself: the log-probability that a
//! picture is what was wanted, up to a constant, as in control as inference (Levine, arXiv:1805.00909).

mod chain;
mod pairs;
mod single;

use super::{FrontEnd, Likelihood, Networks, PipelineSettings, Sample, SaveDtype, TrainedPipeline};
use crate::error::{Result, TrainError};
use crate::reward::ImageReward;
use candle_core::{DType, Device, Tensor};
use chain::{Chain, time};
use pairs::DrawnPairs;
use std::path::Path;
use std::sync::Arc;
use votive_data::CaptionRow;
use votive_diffusion::sampler::Ddim;
use votive_diffusion::{Conditioning, Guidance, ImageSizes};
use votive_model::stable_diffusion::AutoencoderKl;
use votive_model::{Denoiser, Params};
use votive_objective::CompletionFacts;
use votive_tensor::Recorder;
use votive_tensor::random::{Draws, Stream};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutPairs {
    /// Candidates for one step from the same latents, by the clean latents that each leads to (SPO, TailorPO).
    Steps,
    /// The same step of two whole chains, by the pictures that these end in (D3PO).
    Images,
    /// Nothing: one picture of each prompt, whose reward has a gradient (ReFL).
    None,
}

/// How the policy draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RolloutSettings {
    /// Seed of chains and steps.
    pub seed: u64,
    /// What is compared.
    pub pairs: RolloutPairs,
    /// Calls of the U-Net in a whole chain.
    pub steps: usize,
    /// Noise of a step, at most 1, and above 0 where steps are compared.
    pub eta: f64,
    /// Scale of classifier-free guidance.
    pub cfg: f64,
    /// Draws from one `x_t`, at least 2.
    pub candidates: usize,
    /// The first step of a chain that is trained, counted from 0.
    pub first_step: usize,
    /// Pairs whose scores are not further apart than this give no gradient.
    pub min_gap: f64,
    /// How far the better side of a pair is moved along the gradient of its score, in deviations of the step; 0 for not.
    pub ascent: f64,
    /// A reward beyond which a picture that is compared with nothing gives no gradient; none for no such reward.
    pub enough: Option<f64>,
    /// Pixels along a side of the pictures.
    pub resolution: u32,
    /// How the model is trained and saved.
    pub pipeline: PipelineSettings,
}

/// A Stable Diffusion folder with prompts and somebody who says what is good.
pub struct RolloutFrontEnd {
    pipeline: TrainedPipeline,
    settings: RolloutSettings,
    sampler: Ddim,
    /// Steps that can be trained.
    trained_steps: Vec<usize>,
    vae: AutoencoderKl,
    reward: Arc<dyn ImageReward>,
    captions: Vec<CaptionRow>,
    /// The prompts of `captions`, with the sizes that the model is told.
    prompts: Vec<Conditioning>,
    /// What guidance leads away from.
    negative: Conditioning,
    held_out: usize,
    device: Device,
}

/// Prompts, and what the policy drew of them.
pub struct RolloutBatch {
    captions: Vec<String>,
    conditioning: Conditioning,
    drawn: Option<Drawn>,
}

/// What the policy drew at a step of the chain.
struct Drawn {
    step: usize,
    of: DrawnOf,
}

enum DrawnOf {
    Pairs(DrawnPairs),
    /// Latents before the step, `(B, C, h, w)`.
    Single(Tensor),
}

impl RolloutFrontEnd {
    /// Reads a Stable Diffusion folder and encodes prompts: those that are trained on and those that are held out.
    ///
    /// # Errors
    /// If a file is missing, a part is not supported, or the settings don't go with the model.
    pub fn open(
        folder: &Path,
        [train, held_out]: [Vec<CaptionRow>; 2],
        settings: RolloutSettings,
        reward: Arc<dyn ImageReward>,
        device: &Device,
    ) -> Result<(Self, Params)> {
        let pipeline = TrainedPipeline::open(folder, settings.pipeline)?;
        let sampler = Ddim::new(pipeline.scheduler(), settings.steps, settings.eta)?;
        let steps = match settings.pairs {
            RolloutPairs::Steps | RolloutPairs::Images => sampler.noisy_steps(),
            RolloutPairs::None => (0..settings.steps).collect(),
        };
        let trained_steps: Vec<usize> =
            steps.into_iter().filter(|step| *step >= settings.first_step).collect();
        if trained_steps.is_empty() {
            return Err(TrainError::Plan(format!(
                "rollout.first_step = {}: no later step of {} can be trained (one that is compared must have noise)",
                settings.first_step, settings.steps
            )));
        }
        let (unet, encoder) = (pipeline.unet(device)?, pipeline.prompts(device)?);
        let sized = |prompt: Conditioning| {
            let sizes = [ImageSizes::whole(settings.resolution, settings.resolution)];
            pipeline.folder().unet_config().with_sizes(prompt, &sizes)
        };
        let n_held_out = held_out.len();
        let captions = [train, held_out].concat();
        let encode = |row: &CaptionRow| Ok(sized(encoder.encode(&[&row.prompt])?.conditioning)?);
        let prompts = captions.iter().map(encode).collect::<Result<_>>()?;
        let front = Self {
            negative: sized(encoder.no_prompt()?)?,
            vae: pipeline.folder().read_vae(device)?,
            pipeline,
            settings,
            sampler,
            trained_steps,
            reward,
            captions,
            prompts,
            held_out: n_held_out,
            device: device.clone(),
        };
        Ok((front, unet))
    }

    /// The model whose U-Net is trained.
    #[must_use]
    pub fn pipeline(&self) -> &TrainedPipeline {
        &self.pipeline
    }

    /// The step of a chain that an optimizer step trains.
    fn trained_step(&self, step: u64) -> usize {
        *Draws::new(self.settings.seed, Stream::Rollout, step, 0).pick(&self.trained_steps)
    }

    /// Seeds of chains, one for each row.
    fn seeds(&self, step: u64, samples: &[Sample], chain: u64) -> Vec<u64> {
        // Sample 0 drew the step.
        let sample = |sample: &Sample| 2 * sample.position as u64 + chain + 1;
        let draw = |id: u64| Draws::new(self.settings.seed, Stream::Rollout, step, id).below(1 << 47) as u64;
        samples.iter().map(sample).map(draw).collect()
    }

    /// Pictures that are drawn of a prompt side by side.
    fn chains(&self) -> usize {
        match self.settings.pairs {
            RolloutPairs::Steps | RolloutPairs::None => 1,
            RolloutPairs::Images => 2,
        }
    }

    /// Sequences of a batch: two of each prompt where they are compared.
    fn sequences(&self, batch: &RolloutBatch) -> usize {
        let sides = if self.settings.pairs == RolloutPairs::None { 1 } else { 2 };
        sides * batch.captions.len()
    }

    /// The settings.
    pub(crate) fn settings(&self) -> &RolloutSettings {
        &self.settings
    }

    /// Who says what is good.
    pub(crate) fn reward(&self) -> &dyn ImageReward {
        self.reward.as_ref()
    }

    /// Tokens of a prompt.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.negative.prompt_embeds().dim(1).unwrap_or(0)
    }

    /// Numbers of the prompts that wait.
    pub(crate) fn numbers_in_memory(&self) -> usize {
        self.prompts.iter().chain([&self.negative]).map(|one| one.prompt_embeds().elem_count()).sum()
    }
}

/// What every use of a batch needs that was not completed.
fn drawn(batch: &RolloutBatch) -> Result<&Drawn> {
    let missing = || TrainError::Plan("nothing was drawn yet for these prompts".to_owned());
    batch.drawn.as_ref().ok_or_else(missing)
}

impl FrontEnd for RolloutFrontEnd {
    type Network = Arc<dyn Denoiser>;
    type Batch = RolloutBatch;

    fn network(&self, params: &Params) -> Result<Self::Network> {
        self.pipeline.network(params)
    }

    fn other_network(&self, folder: &Path, device: &Device) -> Result<Self::Network> {
        self.pipeline.other_network(folder, device)
    }

    fn network_identity(&self) -> Vec<u8> {
        self.pipeline.identity()
    }

    fn rows(&self) -> usize {
        self.captions.len() - self.held_out
    }

    fn held_out(&self) -> usize {
        self.held_out
    }

    fn source_row(&self, row: usize) -> usize {
        self.captions[row].row
    }

    fn completions(&self, _: usize) -> Vec<CompletionFacts> {
        // The log-density is a mean over the latent already.
        let fact = |is_desirable| CompletionFacts { is_desirable, tokens: 1.0 };
        match self.settings.pairs {
            RolloutPairs::Steps | RolloutPairs::Images => vec![fact(true), fact(false)],
            RolloutPairs::None => vec![fact(true)],
        }
    }

    fn is_fixed(&self) -> bool {
        false
    }

    fn batch(&self, _: u64, samples: &[Sample]) -> Result<RolloutBatch> {
        let prompts: Vec<&Conditioning> = samples.iter().map(|sample| &self.prompts[sample.row]).collect();
        let captions = samples.iter().map(|sample| self.captions[sample.row].prompt.clone()).collect();
        Ok(RolloutBatch { captions, conditioning: Conditioning::cat(&prompts)?, drawn: None })
    }

    fn asks_networks(&self) -> bool {
        true
    }

    fn complete(
        &self,
        (step_of_run, samples): (u64, &[Sample]),
        batch: RolloutBatch,
        networks: Networks<Self::Network>,
    ) -> Result<RolloutBatch> {
        let network = |latents: &Tensor, timesteps: &[f64], conditioning: &Conditioning| {
            Ok(networks.policy.predict(latents, timesteps, conditioning)?)
        };
        let guidance = Guidance::new(&network, &batch.conditioning, &self.negative, self.settings.cfg)?;
        let chain = Chain { front: self, guidance, captions: &batch.captions };
        let step = self.trained_step(step_of_run);
        let seeds: Vec<Vec<u64>> =
            (0..self.chains() as u64).map(|chain| self.seeds(step_of_run, samples, chain)).collect();
        let of = match (self.settings.pairs, seeds.first()) {
            (RolloutPairs::None, Some(seeds)) => DrawnOf::Single(single::draw(&chain, seeds, step)?),
            _ => DrawnOf::Pairs(pairs::draw(&chain, &self.settings, &seeds, step)?),
        };
        Ok(RolloutBatch { drawn: Some(Drawn { step, of }), ..batch })
    }

    fn is_undecided(&self, batch: &RolloutBatch) -> bool {
        let Some(Drawn { of: DrawnOf::Pairs(pairs), .. }) = &batch.drawn else { return false };
        pairs.kept.iter().all(|kept| !kept)
    }

    fn measures(&self, batch: &RolloutBatch, policy: &Likelihood) -> Result<Vec<(&'static str, Vec<f64>)>> {
        if let Some(rewards) = &policy.rewards {
            return Ok(vec![("score", rewards.detach().to_dtype(DType::F64)?.to_vec1()?)]);
        }
        let Some(Drawn { of: DrawnOf::Pairs(pairs), .. }) = &batch.drawn else { return Ok(Vec::new()) };
        let kept = pairs.kept.iter().map(|kept| f64::from(u8::from(*kept))).collect();
        Ok(vec![
            ("score/chosen", pairs.chosen_scores.clone()),
            ("score/rejected", pairs.rejected_scores.clone()),
            ("rollout/kept", kept),
        ])
    }

    fn parts(&self, batch: &RolloutBatch) -> Option<Vec<String>> {
        let drawn = batch.drawn.as_ref()?;
        let part = self.pipeline.part(time(&self.sampler, drawn.step) as usize);
        Some(vec![part; self.sequences(batch)])
    }

    fn divergence_batch(&self, step: u64, samples: &[Sample]) -> Result<RolloutBatch> {
        self.batch(step, samples)
    }

    fn sequence_identities(&self, batch: &RolloutBatch) -> Vec<Vec<u8>> {
        // Chains change with the step and the policy, so no two batches are of the same sequences.
        vec![Vec::new(); self.sequences(batch)]
    }

    fn tokens(&self, batch: &RolloutBatch) -> usize {
        self.sequences(batch)
    }

    fn likelihood(
        &self,
        network: &Self::Network,
        batch: &RolloutBatch,
        _: Option<&Recorder>,
    ) -> Result<Likelihood> {
        let drawn = drawn(batch)?;
        let predict = |latents: &Tensor, timesteps: &[f64], conditioning: &Conditioning| {
            Ok(network.predict(latents, timesteps, conditioning)?)
        };
        let guidance =
            |prompts: &Conditioning| Guidance::new(&predict, prompts, &self.negative, self.settings.cfg);
        match &drawn.of {
            DrawnOf::Single(latents) => {
                let guidance = guidance(&batch.conditioning)?;
                let chain = Chain { front: self, guidance, captions: &batch.captions };
                single::likelihood(&chain, latents, drawn.step, self.settings.enough)
            }
            DrawnOf::Pairs(pairs) => {
                let is_shared = self.settings.pairs == RolloutPairs::Steps;
                let both = || Conditioning::cat(&[&batch.conditioning, &batch.conditioning]);
                let prompts = if is_shared { batch.conditioning.clone() } else { both()? };
                let latents = &pairs.latents;
                let prediction =
                    guidance(&prompts)?.predict_tracked(latents, time(&self.sampler, drawn.step))?;
                let twice = |tensor: &Tensor| {
                    if is_shared { Tensor::cat(&[tensor, tensor], 0) } else { Ok(tensor.clone()) }
                };
                let distribution =
                    self.sampler.distribution(&twice(&prediction)?, drawn.step, &twice(latents)?)?;
                Ok(Likelihood::new(distribution.log_density(&pairs.next)?))
            }
        }
    }

    fn dump(
        &self,
        batch: &RolloutBatch,
        policy: &Tensor,
        reference: Option<&Tensor>,
    ) -> Result<Vec<(String, Tensor)>> {
        let drawn = drawn(batch)?;
        let mut named = vec![
            ("timestep", Tensor::new(&[time(&self.sampler, drawn.step) as i64], &Device::Cpu)?),
            ("prompt_embeds", batch.conditioning.prompt_embeds().clone()),
            ("policy_logps", policy.detach()),
        ];
        match &drawn.of {
            DrawnOf::Single(latents) => named.push(("latents", latents.clone())),
            DrawnOf::Pairs(pairs) => {
                let scores = [pairs.chosen_scores.as_slice(), &pairs.rejected_scores].concat();
                named.push(("latents", pairs.latents.clone()));
                named.push(("next_latents", pairs.next.clone()));
                named.push(("scores", Tensor::new(scores, &Device::Cpu)?.to_dtype(DType::F32)?));
            }
        }
        named.extend(reference.map(|reference| ("reference_logps", reference.clone())));
        Ok(named.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect())
    }

    fn show(&self, batch: &RolloutBatch, _: bool) -> Result<Vec<String>> {
        let drawn = drawn(batch)?;
        let time = time(&self.sampler, drawn.step);
        let DrawnOf::Pairs(pairs) = &drawn.of else {
            return Ok(batch.captions.iter().map(|caption| format!("drawn t={time} {caption:?}")).collect());
        };
        let side = |name: &str, scores: &[f64]| {
            let line =
                |(caption, score): (&String, &f64)| format!("{name} t={time} score {score:.4} {caption:?}");
            batch.captions.iter().zip(scores).map(line).collect::<Vec<_>>()
        };
        Ok([side("chosen", &pairs.chosen_scores), side("rejected", &pairs.rejected_scores)].concat())
    }

    fn save(&self, params: &Params, folder: &Path, dtype: SaveDtype) -> Result<()> {
        self.pipeline.save(params, folder, dtype)
    }

    fn restore(&self, start: &Params, folder: &Path) -> Result<Params> {
        self.pipeline.restore(start, folder)
    }
}
