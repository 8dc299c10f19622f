//! Preferences between what the policy itself draws while it is trained: denoising steps as actions.
//!
//! Sources: D3PO, Yang et al., arXiv:2311.13231 (two pictures of a prompt, compared at the end); SPO, Liang et al.,
//! arXiv:2406.04314, and TailorPO, Ren et al., arXiv:2502.01667 (candidates from one `x_t`, compared by what each leads to).
//! The log-probability of a side is the log-density of its step under DDIM with noise, a mean over the latent, so an
//! objective sees a log-probability like any other.
//! Departures: D3PO and SPO collect many steps of a chain before they train on them; here each optimizer step has chains of its own,
//! up to one denoising step, drawn for the whole batch. So what a step sees is a function of the policy, the seed and the step, and
//! nothing is to be kept for a resume.

use super::{FrontEnd, Likelihood, Networks, PipelineSettings, Sample, SaveDtype, TrainedPipeline};
use crate::error::{Result, TrainError};
use crate::reward::ImageReward;
use candle_core::{DType, Device, Tensor};
use std::path::Path;
use std::sync::Arc;
use votive_data::CaptionRow;
use votive_diffusion::sampler::Ddim;
use votive_diffusion::{Conditioning, Guidance, ImageSizes, initial_latents};
use votive_model::stable_diffusion::AutoencoderKl;
use votive_model::{Denoiser, Params};
use votive_objective::CompletionFacts;
use votive_tensor::random::{Draws, Stream};
use votive_tensor::segment::Recorder;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutPairs {
    /// Candidates for one step from the same latents, by the clean latents that each leads to (SPO, TailorPO).
    Steps,
    /// The same step of two whole chains, by the pictures that these end in (D3PO).
    Images,
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
    /// Noise of a step, above 0, at most 1.
    pub eta: f64,
    /// Scale of classifier-free guidance.
    pub cfg: f64,
    /// Draws from one `x_t`, at least 2.
    pub candidates: usize,
    /// The first step of a chain that is trained, counted from 0.
    pub first_step: usize,
    /// Pairs whose scores are not further apart than this give no gradient.
    pub min_gap: f64,
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

/// One denoising step of every pair.
struct Drawn {
    step: usize,
    /// `x_t`: of each pair, or of chosen and then rejected where these are of two chains.
    latents: Tensor,
    /// What followed, `(2B, C, h, w)`, chosen first.
    next: Tensor,
    chosen_scores: Vec<f64>,
    rejected_scores: Vec<f64>,
    /// Whether the scores are far enough apart.
    kept: Vec<bool>,
}

/// Latents before and after a step, and the score of where that led.
struct Candidate {
    latents: Tensor,
    next: Tensor,
    scores: Vec<f64>,
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
        let trained_steps: Vec<usize> =
            sampler.noisy_steps().into_iter().filter(|step| *step >= settings.first_step).collect();
        if trained_steps.is_empty() {
            return Err(TrainError::Plan(format!(
                "rollout.first_step = {}: no later step of {} has noise, and so a probability",
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

    fn first_latents(&self, seeds: &[u64]) -> Result<Tensor> {
        let folder = self.pipeline.folder();
        let side = self.settings.resolution as usize / folder.vae_config().downscale();
        Ok(initial_latents(seeds, (folder.unet_config().in_channels, side, side), &self.device)?)
    }

    /// Latents of a chain from one step to another.
    fn walk(
        &self,
        guidance: &Guidance,
        mut latents: Tensor,
        seeds: &[u64],
        steps: std::ops::Range<usize>,
    ) -> Result<Tensor> {
        for step in steps {
            let prediction = guidance.predict(&latents, self.sampler_time(step))?;
            let drawn = self.sampler.distribution(&prediction, step, &latents)?.draw(seeds, 1)?;
            latents = drawn.into_iter().next().unwrap_or(latents);
        }
        Ok(latents)
    }

    fn sampler_time(&self, step: usize) -> f64 {
        use votive_diffusion::Sampler as _;
        self.sampler.timesteps()[step]
    }

    fn scores(&self, captions: &[String], clean: &Tensor) -> Result<Vec<f64>> {
        let images = self.vae.decode(&(clean / self.vae.config().scaling_factor)?)?;
        let images = ((images / 2.0)? + 0.5)?.clamp(0.0, 1.0)?;
        let scores = self.reward.score(captions, &images);
        scores.map_err(|error| TrainError::Plan(format!("the reward cannot score a picture: {error}")))
    }

    /// Draws from one `x_t`, each scored by the clean latents that the network then predicts.
    fn step_candidates(
        &self,
        guidance: &Guidance,
        captions: &[String],
        (seeds, step): (&[u64], usize),
    ) -> Result<Vec<Candidate>> {
        let latents = self.walk(guidance, self.first_latents(seeds)?, seeds, 0..step)?;
        let prediction = guidance.predict(&latents, self.sampler_time(step))?;
        let distribution = self.sampler.distribution(&prediction, step, &latents)?;
        let scored = |next: Tensor| {
            let clean = if step + 1 < self.settings.steps {
                let prediction = guidance.predict(&next, self.sampler_time(step + 1))?;
                self.sampler.distribution(&prediction, step + 1, &next)?.clean
            } else {
                next.clone()
            };
            Ok(Candidate { latents: latents.clone(), scores: self.scores(captions, &clean)?, next })
        };
        distribution.draw(seeds, self.settings.candidates)?.into_iter().map(scored).collect()
    }

    /// One step of a whole chain, scored by the picture at its end.
    fn chain(
        &self,
        guidance: &Guidance,
        captions: &[String],
        (seeds, step): (&[u64], usize),
    ) -> Result<Candidate> {
        let latents = self.walk(guidance, self.first_latents(seeds)?, seeds, 0..step)?;
        let next = self.walk(guidance, latents.clone(), seeds, step..step + 1)?;
        let end = self.walk(guidance, next.clone(), seeds, step + 1..self.settings.steps)?;
        Ok(Candidate { latents, next, scores: self.scores(captions, &end)? })
    }

    /// The best and the worst candidate of every row.
    fn best_and_worst(&self, step: usize, candidates: &[Candidate]) -> Result<Drawn> {
        let rows = candidates.first().map_or(0, |candidate| candidate.scores.len());
        let (mut chosen, mut rejected, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..rows {
            // The first of equals, so that the choice depends on nothing but the scores.
            let (mut best, mut worst) = (0, 0);
            for (i, candidate) in candidates.iter().enumerate() {
                if candidate.scores[row] > candidates[best].scores[row] {
                    best = i;
                }
                if candidate.scores[row] < candidates[worst].scores[row] {
                    worst = i;
                }
            }
            let gap = candidates[best].scores[row] - candidates[worst].scores[row];
            kept.push(gap > self.settings.min_gap);
            chosen.push(best);
            // Against itself a completion has no gradient, and the rows stay what the loss is divided by.
            rejected.push(if gap > self.settings.min_gap { worst } else { best });
        }
        let pick = |part: fn(&Candidate) -> &Tensor| -> Result<Tensor> {
            let side = |side: &[usize]| -> Result<Vec<Tensor>> {
                side.iter().enumerate().map(|(row, i)| Ok(part(&candidates[*i]).get(row)?)).collect()
            };
            Ok(Tensor::stack(&[side(&chosen)?, side(&rejected)?].concat(), 0)?)
        };
        let scores = |side: &[usize]| {
            side.iter().enumerate().map(|(row, i)| candidates[*i].scores[row]).collect::<Vec<f64>>()
        };
        let latents = match (self.settings.pairs, candidates.first()) {
            (RolloutPairs::Steps, Some(first)) => first.latents.clone(),
            _ => pick(|candidate| &candidate.latents)?,
        };
        let (next, chosen_scores, rejected_scores) =
            (pick(|candidate| &candidate.next)?, scores(&chosen), scores(&rejected));
        Ok(Drawn { step, latents, next, chosen_scores, rejected_scores, kept })
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
        [true, false].map(|is_desirable| CompletionFacts { is_desirable, tokens: 1.0 }).into()
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
        (step, samples): (u64, &[Sample]),
        batch: RolloutBatch,
        networks: Networks<Self::Network>,
    ) -> Result<RolloutBatch> {
        let network = |latents: &Tensor, timesteps: &[f64], conditioning: &Conditioning| {
            Ok(networks.policy.predict(latents, timesteps, conditioning)?)
        };
        let guidance = Guidance::new(&network, &batch.conditioning, &self.negative, self.settings.cfg)?;
        let trained = self.trained_step(step);
        let candidates = match self.settings.pairs {
            RolloutPairs::Steps => {
                let seeds = self.seeds(step, samples, 0);
                self.step_candidates(&guidance, &batch.captions, (&seeds, trained))?
            }
            RolloutPairs::Images => [0, 1]
                .into_iter()
                .map(|chain| {
                    let seeds = self.seeds(step, samples, chain);
                    self.chain(&guidance, &batch.captions, (&seeds, trained))
                })
                .collect::<Result<_>>()?,
        };
        Ok(RolloutBatch { drawn: Some(self.best_and_worst(trained, &candidates)?), ..batch })
    }

    fn measures(&self, batch: &RolloutBatch) -> Vec<(&'static str, Vec<f64>)> {
        let Some(drawn) = &batch.drawn else { return Vec::new() };
        let kept = drawn.kept.iter().map(|kept| f64::from(u8::from(*kept))).collect();
        vec![
            ("score/chosen", drawn.chosen_scores.clone()),
            ("score/rejected", drawn.rejected_scores.clone()),
            ("rollout/kept", kept),
        ]
    }

    fn parts(&self, batch: &RolloutBatch) -> Option<Vec<String>> {
        let drawn = batch.drawn.as_ref()?;
        let part = self.pipeline.part(self.sampler_time(drawn.step) as usize);
        Some(vec![part; 2 * batch.captions.len()])
    }

    fn divergence_batch(&self, step: u64, samples: &[Sample]) -> Result<RolloutBatch> {
        self.batch(step, samples)
    }

    fn sequence_identities(&self, batch: &RolloutBatch) -> Vec<Vec<u8>> {
        // Chains change with the step and the policy, so no two batches are of the same sequences.
        vec![Vec::new(); 2 * batch.captions.len()]
    }

    fn tokens(&self, batch: &RolloutBatch) -> usize {
        2 * batch.captions.len()
    }

    fn likelihood(
        &self,
        network: &Self::Network,
        batch: &RolloutBatch,
        _: Option<&Recorder>,
    ) -> Result<Likelihood> {
        let drawn = drawn(batch)?;
        let both = || Conditioning::cat(&[&batch.conditioning, &batch.conditioning]);
        let prompts = match self.settings.pairs {
            RolloutPairs::Steps => batch.conditioning.clone(),
            RolloutPairs::Images => both()?,
        };
        let predict = |latents: &Tensor, timesteps: &[f64], conditioning: &Conditioning| {
            Ok(network.predict(latents, timesteps, conditioning)?)
        };
        let guidance = Guidance::new(&predict, &prompts, &self.negative, self.settings.cfg)?;
        let prediction = guidance.predict_tracked(&drawn.latents, self.sampler_time(drawn.step))?;
        let latents = &drawn.latents;
        let (prediction, latents) = match self.settings.pairs {
            RolloutPairs::Steps => {
                (Tensor::cat(&[&prediction, &prediction], 0)?, Tensor::cat(&[latents, latents], 0)?)
            }
            RolloutPairs::Images => (prediction, latents.clone()),
        };
        let distribution = self.sampler.distribution(&prediction, drawn.step, &latents)?;
        Ok(Likelihood::new(distribution.log_density(&drawn.next)?))
    }

    fn dump(
        &self,
        batch: &RolloutBatch,
        policy: &Tensor,
        reference: Option<&Tensor>,
    ) -> Result<Vec<(String, Tensor)>> {
        let drawn = drawn(batch)?;
        let scores = [drawn.chosen_scores.as_slice(), &drawn.rejected_scores].concat();
        let mut named = vec![
            ("latents", drawn.latents.clone()),
            ("next_latents", drawn.next.clone()),
            ("timestep", Tensor::new(&[self.sampler_time(drawn.step) as i64], &Device::Cpu)?),
            ("prompt_embeds", batch.conditioning.prompt_embeds().clone()),
            ("scores", Tensor::new(scores, &Device::Cpu)?.to_dtype(DType::F32)?),
            ("policy_logps", policy.detach()),
        ];
        named.extend(reference.map(|reference| ("reference_logps", reference.clone())));
        Ok(named.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect())
    }

    fn show(&self, batch: &RolloutBatch, _: bool) -> Result<Vec<String>> {
        let drawn = drawn(batch)?;
        let time = self.sampler_time(drawn.step);
        let side = |name: &str, scores: &[f64]| {
            let line =
                |(caption, score): (&String, &f64)| format!("{name} t={time} score {score:.4} {caption:?}");
            batch.captions.iter().zip(scores).map(line).collect::<Vec<_>>()
        };
        Ok([side("chosen", &drawn.chosen_scores), side("rejected", &drawn.rejected_scores)].concat())
    }

    fn save(&self, params: &Params, folder: &Path, dtype: SaveDtype) -> Result<()> {
        self.pipeline.save(params, folder, dtype)
    }

    fn restore(&self, start: &Params, folder: &Path) -> Result<Params> {
        self.pipeline.restore(start, folder)
    }
}
