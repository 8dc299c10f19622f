//! From a plan to a run: the model, the data, the front end and the policy.

use crate::error::Result;
use crate::front_end::{DenoisingFrontEnd, DenoisingSettings, TextFrontEnd};
use crate::plan::{Modality, Plan};
use candle_core::Device;
use votive_data::{DataReport, TextRecords, read_image_pairs, read_text, screen_image_pairs};
use votive_model::Params;
use votive_model::stable_diffusion::StableDiffusionFolder;

/// A front end of either modality with the policy as the recipe starts it, and what happened to the rows.
pub enum Prepared {
    /// A language model.
    Text(TextFrontEnd, Params, DataReport),
    /// A diffusion model.
    Image(DenoisingFrontEnd, Params, DataReport),
}

/// Reads model and data as the plan says.
///
/// # Errors
/// If a file is missing or malformed, or a row is faulty and the plan does not allow that.
pub fn prepare(plan: &Plan, device: &Device, progress: impl Fn(usize, usize)) -> Result<Prepared> {
    match plan.modality {
        Modality::Text => prepare_text(plan, device),
        Modality::Image => prepare_image(plan, device, progress),
    }
}

fn prepare_text(plan: &Plan, device: &Device) -> Result<Prepared> {
    let (front, params) = TextFrontEnd::open(&plan.model, device)?;
    let mut policy = plan.data.rows.clone();
    let most = policy.max_length.unwrap_or(usize::MAX).min(front.max_positions());
    policy.max_length = Some(most);
    let (front, report) = match read_text(&plan.data.path)? {
        TextRecords::Pairs(records) => {
            let (pairs, report) = front.tokenizer().tokenize_pairs(&records, policy)?;
            (front.with_pairs(pairs), report)
        }
        TextRecords::Unpaired(records) => {
            let (examples, report) = front.tokenizer().tokenize_unpaired(&records, policy)?;
            (front.with_unpaired(examples, most), report)
        }
    };
    Ok(Prepared::Text(front, trainable(plan, params)?, report))
}

fn prepare_image(plan: &Plan, device: &Device, progress: impl Fn(usize, usize)) -> Result<Prepared> {
    let records = read_image_pairs(&plan.data.path)?;
    let file = records.file.clone();
    let (pairs, report) = screen_image_pairs(records, plan.data.rows.faulty_rows)?;
    let diffusion = plan.diffusion.as_ref();
    let own = StableDiffusionFolder::open(&plan.model)?.vae_config().downscale() as u32;
    let own = own * StableDiffusionFolder::open(&plan.model)?.unet_config().sample_size.map_or(64, |(h, _)| h as u32);
    let settings = DenoisingSettings {
        seed: plan.train.seed,
        timesteps: diffusion.map_or(votive_diffusion::TimestepPolicy::Uniform, |d| d.timesteps.clone()),
        noise: diffusion.map_or(votive_diffusion::NoisePolicy::Shared, |d| d.noise),
        caption_dropout: diffusion.map_or(0.0, |d| d.caption_dropout),
        beta_convention: diffusion.map_or(crate::front_end::BetaConvention::Paper, |d| d.beta_convention),
        resolution: diffusion.map(|d| d.resolution).filter(|side| *side > 0).unwrap_or(own),
    };
    let (front, params) = DenoisingFrontEnd::open(&plan.model, (&file, &pairs), settings, device, progress)?;
    Ok(Prepared::Image(front, trainable(plan, params)?, report))
}

/// The policy as the recipe starts it: with a fresh adapter, or with every weight trainable.
fn trainable(plan: &Plan, params: Params) -> Result<Params> {
    Ok(match &plan.adapter {
        Some(config) => params.with_new_lora(config.clone(), plan.train.seed)?,
        None => params.into_trainable()?,
    })
}
