//! From a plan to a run: the model, the data, the front end and the policy.

use crate::error::{Result, TrainError};
use crate::front_end::{
    DenoisingFrontEnd, DenoisingSettings, ImageSettings, PipelineSettings, RewardFrontEnd, RolloutFrontEnd,
    RolloutSettings, TextFrontEnd, TextModel,
};
use crate::plan::{DiffusionPlan, Plan, Prefer, RewardKind, RolloutPlan};
use crate::reward::{ImageReward, PictureScorer, Reversed};
use crate::split::{RowReport, Rows, Split, TextRows, split};
use candle_core::Device;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use votive_data::{
    Buckets, CaptionRow, DataReport, FramedPair, ImageDataSource, ImageLimits, ImageSize, RowPolicy,
    ScoredList, TextRecords, TextSource, TokenizedPair, frame_pairs, read_captions, screen_image_pairs,
    screen_shown_images,
};
use votive_model::stable_diffusion::StableDiffusionFolder;
use votive_model::{ModelError, Params};

/// Pixels along a side at most: beyond, memory would end before the first step.
const MOST_PIXELS: usize = 4096;

/// A front end of either modality with the policy as the recipe starts it, and what happened to the rows.
pub enum Prepared {
    /// A language model.
    Text(Box<TextFrontEnd>, Params, RowReport),
    /// A reward model.
    Reward(Box<RewardFrontEnd>, Params, RowReport),
    /// A diffusion model and pictures on disk.
    Image(Box<DenoisingFrontEnd>, Params, RowReport),
    /// A diffusion model that draws the pictures itself.
    Rollout(Box<RolloutFrontEnd>, Params, RowReport),
}

/// Makes the reward that a recipe names, where this crate cannot.
pub type Rewards<'a> = dyn Fn(RewardKind) -> Arc<dyn ImageReward> + 'a;

/// Reads model and data as the plan says.
///
/// # Errors
/// If a file is missing or malformed, or a row is faulty and the plan does not allow that.
pub fn prepare(
    plan: &Plan,
    device: &Device,
    rewards: &Rewards,
    progress: impl Fn(usize, usize),
) -> Result<Prepared> {
    match (&plan.diffusion, &plan.rollout) {
        (None, _) if plan.trains_reward_model() => {
            let seed = plan.train.seed;
            let (front, params) = RewardFrontEnd::open_reward_model(&plan.model, device, plan.base, seed)?;
            let (front, report) = with_rows(plan, front)?;
            Ok(Prepared::Reward(Box::new(front), trainable(plan, params)?, report))
        }
        (None, _) => {
            let (front, params) = TextFrontEnd::open_stored(&plan.model, device, plan.base)?;
            let (front, report) = with_rows(plan, front)?;
            Ok(Prepared::Text(Box::new(front), trainable(plan, params)?, report))
        }
        (Some(diffusion), None) => prepare_image(plan, diffusion, device, progress),
        (Some(diffusion), Some(rollout)) => {
            let reward: Arc<dyn ImageReward> = match &rollout.clip {
                Some(folder) => Arc::new(PictureScorer::open(folder, device)?),
                None => rewards(rollout.reward),
            };
            prepare_rollout(plan, (diffusion, rollout), reward, device)
        }
    }
}

/// The rows that the plan says, as the model reads them.
fn with_rows<M: TextModel>(plan: &Plan, front: TextFrontEnd<M>) -> Result<(TextFrontEnd<M>, RowReport)> {
    let mut policy = plan.data.rows;
    let positions = front.max_positions();
    let most = policy.max_length.unwrap_or(positions);
    if most > positions {
        let reason = format!("data.max_length = {most}: the model has {positions} positions");
        return Err(TrainError::Plan(reason));
    }
    policy.max_length = Some(most);
    let source = &plan.data.source;
    let read = |source: &TextSource| {
        let (rows, report) = match plan.objective.reads_lists() {
            true => {
                let shown = |list: &ScoredList| (list.row, list.images.clone());
                let limits = ImageLimits::default();
                let lists = screen_shown_images(source.read_lists()?, shown, policy.faulty_rows, &limits)?;
                let (lists, report) = front.tokenizer().tokenize_lists(lists, policy)?;
                (TextRows::Lists(lists), report)
            }
            false => tokenize(&front, source, policy)?,
        };
        let rows = preferred(plan, rows);
        if plan.objective.reads_undesirable() { Ok((rows, report)) } else { desirable(rows, report) }
    };
    let Split { train, held_out, report } = split(plan.eval.as_ref(), read(source)?, |path| {
        let paths = vec![path.to_owned()];
        read(&TextSource { paths, name: None, split: None, ..source.clone() })
    })?;
    let front = match train.followed_by(held_out)? {
        TextRows::Pairs(pairs) => front.with_pairs(pairs),
        TextRows::Unpaired(_) if plan.trains_reward_model() => {
            let file = report.train.file.display();
            let reason =
                format!("{file}: single completions with labels, and a reward model is trained on pairs");
            return Err(TrainError::Plan(reason));
        }
        TextRows::Unpaired(examples) => front.with_unpaired(examples, most),
        TextRows::Lists(lists) => front.with_lists(lists),
    };
    let front = front.weighing_tokens(plan.data.token_weights.clone()).copying(plan.train.seed);
    Ok((front.holding_out(report.held_out), report))
}

/// The rows as the recipe prefers them.
fn preferred<R: Rows>(plan: &Plan, rows: R) -> R {
    match plan.data.prefer {
        Prefer::Chosen => rows,
        Prefer::Rejected => rows.turned(),
    }
}

fn tokenize<M: TextModel>(
    front: &TextFrontEnd<M>,
    source: &TextSource,
    policy: RowPolicy,
) -> Result<(TextRows, DataReport)> {
    Ok(match source.read()?.screened(policy.faulty_rows, &ImageLimits::default())? {
        TextRecords::Pairs(records) => {
            let (pairs, report) = front.tokenizer().tokenize_pairs(&records, policy)?;
            (TextRows::Pairs(pairs), report)
        }
        TextRecords::Unpaired(records) => {
            let (examples, report) = front.tokenizer().tokenize_unpaired(&records, policy)?;
            (TextRows::Unpaired(examples), report)
        }
    })
}

/// The completions that an objective reads which reads desirable ones only; the others are counted.
fn desirable(rows: TextRows, mut report: DataReport) -> Result<(TextRows, DataReport)> {
    let examples = match rows {
        TextRows::Pairs(pairs) => pairs.into_iter().flat_map(TokenizedPair::unpair).collect(),
        TextRows::Unpaired(examples) => examples,
        TextRows::Lists(lists) => lists.into_iter().flat_map(|list| list.completions).collect(),
    };
    let (kept, others): (Vec<_>, Vec<_>) = examples.into_iter().partition(|example| example.label);
    (report.rows_kept, report.completions_not_read) = (kept.len(), others.len());
    if kept.is_empty() {
        let file = report.file.display();
        return Err(TrainError::Plan(format!(
            "{file}: no completion is labelled desirable, and the objective reads no others"
        )));
    }
    Ok((TextRows::Unpaired(kept), report))
}

fn prepare_image(
    plan: &Plan,
    diffusion: &DiffusionPlan,
    device: &Device,
    progress: impl Fn(usize, usize),
) -> Result<Prepared> {
    let folder = StableDiffusionFolder::open(&plan.model)?;
    let resolution = resolution(&folder, diffusion.resolution)?;
    let images = plan.data.images.as_ref();
    let images = images.ok_or_else(|| TrainError::Plan("data.path: no images are given".to_owned()))?;
    let buckets = buckets(&folder, resolution, images.buckets)?;
    let read = |source: &ImageDataSource| -> Result<(Vec<FramedPair>, DataReport)> {
        let (faulty_rows, limits) = (plan.data.rows.faulty_rows, ImageLimits::default());
        let (pairs, mut report) = screen_image_pairs(source.read()?, faulty_rows, &limits, &progress)?;
        Ok((preferred(plan, frame_pairs(pairs, &buckets, &mut report)), report))
    };
    let Split { train, held_out, mut report } = split(plan.eval.as_ref(), read(&images.source)?, |path| {
        let paths = vec![path.to_owned()];
        read(&ImageDataSource { paths, split: None, ..images.source.clone() })
    })?;
    let held_out_file = report.eval.as_ref().map_or(&report.train.file, |eval| &eval.file);
    let sources = [(&*report.train.file, &*train), (held_out_file, held_out.as_deref().unwrap_or_default())];
    let settings = DenoisingSettings {
        seed: plan.train.seed,
        timesteps: diffusion.timesteps.clone(),
        timestep_sharing: diffusion.timestep_sharing,
        noise: diffusion.noise,
        weight: diffusion.weight,
        caption_dropout: diffusion.caption_dropout,
        beta_convention: diffusion.beta_convention,
        resolution,
        side_by_side: plan.adapter.is_some(),
        images: ImageSettings { augmentation: images.augmentation, cache: images.cache.clone() },
        pipeline: pipeline(plan, diffusion),
    };
    let (front, params) = DenoisingFrontEnd::open(&plan.model, sources, settings, device, &progress)?;
    report.encoded = Some(front.counts());
    Ok(Prepared::Image(Box::new(front), trainable(plan, params)?, report))
}

fn prepare_rollout(
    plan: &Plan,
    (diffusion, rollout): (&DiffusionPlan, &RolloutPlan),
    reward: Arc<dyn ImageReward>,
    device: &Device,
) -> Result<Prepared> {
    let read = |path: &Path| -> Result<(Vec<CaptionRow>, DataReport)> { Ok(read_captions(path)?) };
    let reward = match plan.data.prefer {
        Prefer::Chosen => reward,
        Prefer::Rejected => Arc::new(Reversed(reward)),
    };
    let path = plan.data.paths().first().map_or(Path::new(""), PathBuf::as_path);
    let Split { train, held_out, report } = split(plan.eval.as_ref(), read(path)?, read)?;
    let folder = StableDiffusionFolder::open(&plan.model)?;
    let settings = RolloutSettings {
        seed: plan.train.seed,
        pairs: rollout.pairs,
        steps: rollout.steps,
        eta: rollout.eta,
        cfg: rollout.cfg,
        candidates: rollout.candidates,
        first_step: rollout.first_step,
        min_gap: rollout.min_gap,
        ascent: rollout.ascent,
        enough: rollout.enough,
        resolution: resolution(&folder, diffusion.resolution)?,
        pipeline: pipeline(plan, diffusion),
    };
    let rows = [train, held_out.unwrap_or_default()];
    let (front, params) = RolloutFrontEnd::open(&plan.model, rows, settings, reward, device)?;
    Ok(Prepared::Rollout(Box::new(front), trainable(plan, params)?, report))
}

fn pipeline(plan: &Plan, diffusion: &DiffusionPlan) -> PipelineSettings {
    PipelineSettings { zero_terminal_snr: diffusion.zero_terminal_snr, adapter_format: plan.adapter_format }
}

/// The sizes that images are cut to: a square, or all of about its area whose sides every part of the model can halve.
fn buckets(folder: &StableDiffusionFolder, resolution: u32, keep_shape: bool) -> Result<Buckets> {
    if !keep_shape {
        return Ok(Buckets::one(ImageSize::square(resolution)));
    }
    let halvings = folder.unet_config().levels.len().saturating_sub(1);
    let unit = (folder.vae_config().downscale() << halvings) as u32;
    if resolution < unit {
        let reason = format!(
            "diffusion.resolution: {resolution} pixels a side, but with data.buckets sides are multiples of {unit}"
        );
        return Err(TrainError::Plan(reason));
    }
    Ok(Buckets::of_area(resolution, unit))
}

/// Pixels along a side of the images, the model's own if the recipe gives none.
fn resolution(folder: &StableDiffusionFolder, given: u32) -> Result<u32> {
    let least = folder.vae_config().downscale();
    let own = folder.unet_config().sample_size.map(|(height, _)| height * least);
    let wanted = match given {
        0 => own.unwrap_or(folder.vae_config().sample_size),
        given => given as usize,
    };
    if !(least..=MOST_PIXELS).contains(&wanted) {
        let reason =
            format!("diffusion.resolution: {wanted} pixels a side, expected {least} to {MOST_PIXELS}");
        return Err(TrainError::Plan(reason));
    }
    Ok(wanted as u32)
}

/// The policy as the recipe starts it: with a fresh adapter, or with every weight trainable.
fn trainable(plan: &Plan, params: Params) -> Result<Params> {
    Ok(match &plan.adapter {
        Some(config) => {
            params.with_new_lora(config.clone(), plan.train.seed).map_err(|error| match error {
                ModelError::Adapter(reason) => TrainError::Plan(format!("adapter.lora: {reason}")),
                other => other.into(),
            })?
        }
        None => params.into_trainable()?,
    })
}
