//! Stable Diffusion XL, and zero terminal SNR: a Diffusion-DPO step of torch's, and runs on pictures of other sizes
//! (tests/fixtures/sdxl, written by tools/parity/sdxl.py).

use crate::fixture;
use crate::torch::{assert_near, largest_distance};
use crate::workshop::{LORA, Workshop};
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use votive_diffusion::{Conditioning, LossWeight, NoisePolicy, TimestepPolicy, TimestepSharing};
use votive_model::{LoraFormat, Params, files};
use votive_objective::{Objective, PairInputs, Term};
use votive_train::front_end::{
    BetaConvention, DenoisingBatch, DenoisingFrontEnd, DenoisingSettings, FrontEnd, ImageSettings,
    PipelineSettings,
};
use votive_train::{Prepared, Run, prepare};

/// Of errors, relative; of the loss; of the gradient's norm, relative.
const TOLERANCES: [f64; 3] = [1e-4, 1e-4, 1e-3];

fn open(model: &Path) -> (DenoisingFrontEnd, Params) {
    let settings = DenoisingSettings {
        seed: 0,
        timesteps: TimestepPolicy::Uniform,
        timestep_sharing: TimestepSharing::Pair,
        noise: NoisePolicy::Shared,
        weight: LossWeight::None,
        caption_dropout: 0.0,
        beta_convention: BetaConvention::Paper,
        resolution: 16,
        side_by_side: false,
        images: ImageSettings::default(),
        pipeline: PipelineSettings { zero_terminal_snr: false, adapter_format: LoraFormat::Diffusers },
    };
    let none = (Path::new("no pairs"), &[][..]);
    DenoisingFrontEnd::open(model, [none; 2], settings, &Device::Cpu, |_, _| {}).unwrap()
}

fn given(front: &DenoisingFrontEnd, tensors: &BTreeMap<String, Tensor>) -> DenoisingBatch {
    let get = |name: &str| tensors[name].clone();
    let mut prompts = Conditioning::new(get("prompt_embeds")).unwrap();
    if let (Some(pooled), Some(sizes)) = (tensors.get("text_embeds"), tensors.get("time_ids")) {
        prompts = prompts.with_pooled(pooled.clone()).unwrap().with_time_ids(sizes.clone()).unwrap();
    }
    let timesteps: Vec<usize> =
        get("timesteps").to_vec1::<i64>().unwrap().into_iter().map(|t| t as usize).collect();
    let captions = vec![String::new(); timesteps.len() / 2];
    front.noised((get("latents"), get("noise")), timesteps, prompts, captions).unwrap()
}

fn number(tensor: &Tensor) -> f64 {
    tensor.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

#[track_caller]
fn check_step(model: &Path, expected: &str) {
    let report: Value =
        serde_json::from_slice(&fs::read(fixture(&format!("{expected}/dpo.json"))).unwrap()).unwrap();
    let expected =
        files::read(&fixture(&format!("{expected}/dpo.safetensors")), &Device::Cpu).unwrap().tensors;
    let (front, reference) = open(model);
    let scale = report["policy_scale"].as_f64().unwrap();
    let scaled = |(name, tensor): (&str, &Tensor)| (name.to_owned(), (tensor * scale).unwrap());
    let policy = Params::new("policy", reference.iter().map(scaled).collect(), &Device::Cpu);
    let policy = policy.into_trainable().unwrap();
    let batch = given(&front, &expected);
    let logps = |params: &Params, error: &str| {
        let network = front.network(params).unwrap();
        let logps = front.likelihood(&network, &batch, None).unwrap().logps;
        let ratio = ((&logps * -2.0).unwrap() / expected[error].to_dtype(logps.dtype()).unwrap()).unwrap();
        let off = largest_distance(&ratio, &ratio.ones_like().unwrap());
        assert!(off <= TOLERANCES[0], "{error}: off by {off:e} of 1");
        let pairs = logps.dim(0).unwrap() / 2;
        [0, pairs].map(|start| logps.narrow(0, start, pairs).unwrap())
    };
    let [chosen, rejected] = logps(&policy, "policy_error");
    let reference = logps(&reference, "reference_error").map(|logps| logps.detach());
    let recipe = format!(
        "model.path = {model:?}\ndata.path = \"none.jsonl\"\n[objective.dpo]\nbeta = {:?}\n[train]\nsteps = 1\n",
        report["beta"].as_f64().unwrap()
    );
    let plan = Workshop::new(&recipe).plan(&[]);
    let [Term { objective: Objective::Pair(objective), .. }] = plan.objective.terms() else {
        panic!("one objective on pairs")
    };
    let [reference_chosen, reference_rejected] = reference;
    let inputs = PairInputs::new(chosen, rejected).with_reference(reference_chosen, reference_rejected);
    let loss = objective.evaluate(&inputs).unwrap().per_pair.mean_all().unwrap();
    assert_near(number(&loss), report["loss"].as_f64().unwrap(), TOLERANCES[1], "loss");
    let grads = loss.backward().unwrap();
    let square = |(name, tensor): (String, Tensor)| {
        let grad = grads.get_id(tensor.id()).unwrap_or_else(|| panic!("{name} has no gradient"));
        number(&grad.sqr().unwrap().sum_all().unwrap())
    };
    let norm = policy.trainable().into_iter().map(square).sum::<f64>().sqrt();
    let expected = report["grad_norm"].as_f64().unwrap();
    assert_near(norm, expected, TOLERANCES[2] * expected, "norm of the gradient");
}

#[test]
fn a_step_of_sdxl_is_torch_s() {
    check_step(&fixture("sdxl/pipeline"), "sdxl/pipeline/expected");
}

#[test]
fn a_step_with_zero_terminal_snr_is_torch_s() {
    let workshop = Workshop::new("");
    copy(&fixture("diffusion/sd2"), &workshop.path("model"));
    let scheduler = workshop.path("model/scheduler/scheduler_config.json");
    fs::copy(fixture("sdxl/zero_snr/scheduler_config.json"), scheduler).unwrap();
    check_step(&workshop.path("model"), "sdxl/zero_snr");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Chosen pictures 40 wide and 20 high, rejected ones 32 by 32.
fn workshop() -> Workshop {
    let workshop = Workshop::image();
    workshop.edit(&format!("{:?}", fixture("diffusion/sd1")), &format!("{:?}", fixture("sdxl/pipeline")));
    for row in 0..5 {
        let shade = |x: u32, y: u32| image::Rgb([(x * 6) as u8, (y * 12) as u8, row * 40]);
        image::RgbImage::from_fn(40, 20, shade).save(workshop.path(format!("chosen{row}.png"))).unwrap();
    }
    workshop
}

#[test]
fn sdxl_is_told_the_sizes_of_each_picture_and_every_parameter_learns() {
    let workshop = workshop();
    for overrides in [&[][..], &[LORA]] {
        let plan = workshop.plan(overrides);
        let Prepared::Image(front, start, _) =
            prepare(&plan, &Device::Cpu, &crate::drive::no_reward, |_, _| {}).unwrap()
        else {
            panic!("a model of images")
        };
        assert_eq!(front.resolution(), 16);
        let mut run = Run::new(&plan, front.as_ref(), start, None, |_, _| {}).unwrap();
        let seen: BTreeMap<String, Tensor> = run.inspect(0, false).unwrap().tensors.into_iter().collect();
        // 40×20 pixels become 32×16, and the middle 16 of those 32 are kept.
        let (wide, square) = ([20.0, 40.0, 0.0, 8.0, 16.0, 16.0], [32.0, 32.0, 0.0, 0.0, 16.0, 16.0]);
        let found = seen["time_ids"].to_vec2::<f32>().unwrap();
        assert_eq!(found, [wide, wide, square, square]);
        assert_eq!(seen["pooled_prompt_embeds"].dims(), [4, 20]);
        // The gate of a step refuses a parameter that no gradient reaches.
        for _ in 0..2 {
            assert!(run.step().unwrap().loss.is_finite());
        }
        assert!(run.params().trainable().len() > 10);
    }
}
