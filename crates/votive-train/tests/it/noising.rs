//! What the settings of noise and times do to a batch, an error and a saved model.

use crate::fixture;
use candle_core::{DType, Device, Tensor};
use std::path::Path;
use votive_diffusion::{
    Conditioning, LossWeight, NoisePolicy, NoiseSchedule, SchedulerConfig, TimestepPolicy, TimestepSharing,
};
use votive_model::{LoraFormat, Params};
use votive_train::front_end::{
    BetaConvention, DenoisingBatch, DenoisingFrontEnd, DenoisingSettings, FrontEnd, ImageSettings,
    PipelineSettings, SaveDtype,
};

fn open(weight: LossWeight, zero_terminal_snr: bool) -> (DenoisingFrontEnd, Params) {
    let settings = DenoisingSettings {
        seed: 0,
        timesteps: TimestepPolicy::Uniform,
        timestep_sharing: TimestepSharing::Pair,
        noise: NoisePolicy::Shared,
        weight,
        side_by_side: false,
        images: ImageSettings::default(),
        pipeline: PipelineSettings { zero_terminal_snr, adapter_format: LoraFormat::Diffusers },
        caption_dropout: 0.0,
        beta_convention: BetaConvention::Paper,
        resolution: 32,
    };
    let none = (Path::new("no pairs"), &[][..]);
    let model = fixture("diffusion/sd1");
    DenoisingFrontEnd::open(&model, [none; 2], settings, &Device::Cpu, |_, _| {}).unwrap()
}

const TIMESTEPS: [usize; 4] = [3, 500, 900, 999];

fn batch(front: &DenoisingFrontEnd) -> DenoisingBatch {
    let values = |n: usize, shape: &[usize]| {
        let values = (0..shape.iter().product()).map(|i| ((i * n) as f32).sin()).collect::<Vec<f32>>();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let width = front.pipeline().folder().unet_config().cross_attention_dim;
    let (latents, noise) = (values(3, &[4, 4, 16, 16]), values(7, &[4, 4, 16, 16]));
    let captions = vec![String::new(); 2];
    front
        .noised(
            (latents, noise),
            TIMESTEPS.to_vec(),
            Conditioning::new(values(5, &[4, 77, width])).unwrap(),
            captions,
        )
        .unwrap()
}

fn errors(weight: LossWeight) -> (Vec<f64>, Vec<f64>) {
    let (front, params) = open(weight, false);
    let network = front.network(&params).unwrap();
    let logps = front.likelihood(&network, &batch(&front), None).unwrap().logps;
    let config = SchedulerConfig::from_model_folder(&fixture("diffusion/sd1")).unwrap();
    let factors = weight.factors(&NoiseSchedule::new(&config).unwrap()).unwrap();
    let logps = logps.to_dtype(DType::F64).unwrap().to_vec1().unwrap();
    (logps, TIMESTEPS.map(|t| factors[t]).into())
}

#[test]
fn an_error_counts_what_its_time_does() {
    let (plain, ones) = errors(LossWeight::None);
    assert_eq!(ones, [1.0; 4]);
    for weight in [LossWeight::MinSnr { gamma: 5.0 }, LossWeight::Debiased, LossWeight::Rethinking] {
        let (weighted, factors) = errors(weight);
        assert!(factors.iter().any(|factor| (factor - 1.0).abs() > 0.1), "{weight:?}");
        for ((weighted, plain), factor) in weighted.iter().zip(&plain).zip(factors) {
            assert!((weighted - plain * factor).abs() < 1e-5 * plain.abs(), "{weight:?}: {weighted}");
        }
    }
}

#[test]
fn a_schedule_that_was_rescaled_is_saved_with_the_model() {
    let folder = tempfile::tempdir().unwrap();
    for is_rescaled in [false, true] {
        let (front, params) = open(LossWeight::None, is_rescaled);
        let target = folder.path().join(is_rescaled.to_string());
        front.save(&params, &target, SaveDtype::Checkpoint).unwrap();
        let saved = NoiseSchedule::new(&SchedulerConfig::from_model_folder(&target).unwrap()).unwrap();
        assert_eq!(saved.alpha_bar(999).unwrap() == 0.0, is_rescaled);
        assert_eq!(saved, NoiseSchedule::new(front.pipeline().scheduler()).unwrap());
    }
}
