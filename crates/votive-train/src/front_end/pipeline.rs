//! A Stable Diffusion folder whose U-Net is trained: what all front ends of diffusion models share.

use super::{PromptEncoder, SaveDtype};
use crate::error::{Result, TrainError};
use candle_core::Device;
use std::path::Path;
use std::sync::Arc;
use votive_diffusion::{NoiseSchedule, SchedulerConfig};
use votive_model::stable_diffusion::{Component, StableDiffusionFolder, UNet2DConditionModel};
use votive_model::{Adaptable, Denoiser, Lora, LoraFormat, Params, PipelineLora, files};

/// How a pipeline is trained and saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipelineSettings {
    /// Whether the schedule is rescaled so that nothing of the latents is left at its last time.
    pub zero_terminal_snr: bool,
    /// What an adapter is written as.
    pub adapter_format: LoraFormat,
}

/// The folder with the schedule that its U-Net is trained with.
pub struct TrainedPipeline {
    folder: StableDiffusionFolder,
    scheduler: SchedulerConfig,
    schedule: NoiseSchedule,
    settings: PipelineSettings,
}

impl TrainedPipeline {
    /// Reads the configurations of a folder.
    ///
    /// # Errors
    /// If a file is missing or a part is not supported.
    pub(super) fn open(folder: &Path, settings: PipelineSettings) -> Result<Self> {
        let folder = StableDiffusionFolder::open(folder)?;
        let scheduler = scheduler(&folder, settings);
        let schedule = NoiseSchedule::new(&scheduler)?;
        Ok(Self { folder, scheduler, schedule, settings })
    }

    /// The folder of the model.
    #[must_use]
    pub fn folder(&self) -> &StableDiffusionFolder {
        &self.folder
    }

    /// The schedule that the model is trained with, as it is to be sampled from.
    #[must_use]
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// Whether the schedule was rescaled so that nothing of the latents is left at its last time.
    #[must_use]
    pub fn has_zero_terminal_snr(&self) -> bool {
        self.settings.zero_terminal_snr
    }

    pub(super) fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// The weights that are trained.
    pub(super) fn unet(&self, device: &Device) -> Result<Params> {
        Ok(self.folder.params(Component::UNet, device)?)
    }

    /// The frozen text encoders with their tokenizers.
    pub(super) fn prompts(&self, device: &Device) -> Result<PromptEncoder> {
        PromptEncoder::open(&self.folder, &PipelineLora::default(), device)
    }

    pub(super) fn network(&self, params: &Params) -> Result<Arc<dyn Denoiser>> {
        Ok(Arc::new(params.build(|scope| UNet2DConditionModel::new(scope, self.folder.unet_config()))?))
    }

    /// The U-Net of another folder, if it can be compared with this one.
    pub(super) fn other_network(&self, folder: &Path, device: &Device) -> Result<Arc<dyn Denoiser>> {
        let other = StableDiffusionFolder::open(folder)?;
        let refuse = |reason| TrainError::Plan(format!("reference.path = {}: {reason}", folder.display()));
        if NoiseSchedule::new(&scheduler(&other, self.settings))? != self.schedule {
            return Err(refuse("its noise schedule is not the model's, so the errors could not be compared"));
        }
        let (own, others) = (self.folder.unet_config(), other.unet_config());
        if own.inputs() != others.inputs() {
            return Err(refuse("its U-Net reads other latents or prompt embeddings than the model's"));
        }
        let params = other.params(Component::UNet, device)?;
        Ok(Arc::new(params.build(|scope| UNet2DConditionModel::new(scope, others))?))
    }

    pub(super) fn identity(&self) -> Vec<u8> {
        format!("{:?} {:?}", self.folder.unet_config(), self.schedule).into_bytes()
    }

    /// Writes the whole pipeline with the trained U-Net, or the U-Net's adapter.
    pub(super) fn save(&self, params: &Params, folder: &Path, dtype: SaveDtype) -> Result<()> {
        if params.lora().is_some() {
            let networks = [(Adaptable::UNet, params)];
            PipelineLora::save(folder, self.settings.adapter_format, &networks, self.folder.root())?;
            return Ok(());
        }
        let dtype = dtype.of(&self.folder.root().join("unet"), "diffusion_pytorch_model")?;
        self.folder.save_with_unet(folder, params, dtype)?;
        if self.settings.zero_terminal_snr {
            let file = folder.join("scheduler").join("scheduler_config.json");
            files::write_bytes(&file, self.scheduler.to_json().as_bytes())?;
        }
        Ok(())
    }

    pub(super) fn restore(&self, start: &Params, folder: &Path) -> Result<Params> {
        if start.lora().is_some() {
            return Ok(start.with_lora_values(Lora::load(folder, start.device())?)?);
        }
        let saved = StableDiffusionFolder::open(folder)?;
        Ok(saved.params(Component::UNet, start.device())?.into_trainable()?)
    }

    /// The part of the schedule that a time lies in, of four: a name for metrics.
    pub(super) fn part(&self, timestep: usize) -> String {
        const PARTS: usize = 4;
        let count = self.schedule.num_train_timesteps();
        let part = timestep * PARTS / count;
        format!("t{}-{}", (part * count).div_ceil(PARTS), ((part + 1) * count).div_ceil(PARTS) - 1)
    }
}

/// The schedule of a folder, rescaled if the settings say so.
fn scheduler(folder: &StableDiffusionFolder, settings: PipelineSettings) -> SchedulerConfig {
    let config = folder.scheduler().clone();
    if settings.zero_terminal_snr { config.with_zero_terminal_snr() } else { config }
}
