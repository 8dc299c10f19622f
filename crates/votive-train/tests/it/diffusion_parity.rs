//! Five Diffusion-DPO steps of plain PyTorch on tiny U-Nets (tests/fixtures/diffusion_dpo, written by
//! tools/parity/diffusion_dpo.py): full fine-tuning and LoRA on a model that predicts ε, LoRA on one that predicts v.

use crate::fixture;
use crate::torch::{TorchRun, assert_near, largest_distance};
use crate::workshop::Workshop;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use votive_diffusion::{Conditioning, LossWeight, NoisePolicy, TimestepPolicy, TimestepSharing};
use votive_model::{Denoiser, Params};
use votive_objective::{CompletionFacts, Objective, PairInputs, Term};
use votive_tensor::Recorder;
use votive_train::front_end::{
    DenoisingBatch, DenoisingFrontEnd, DenoisingSettings, FrontEnd, ImageSettings, Likelihood,
    PipelineSettings, Sample, SaveDtype,
};
use votive_train::{Plan, Result, Run};

/// Relative; errors are near 1.
const ERRORS: f64 = 1e-4;
/// A margin is a difference of errors near 1, in f32, and β = 1000 multiplies it.
const LOSS: f64 = 1e-4;
/// Relative.
const GRAD_NORM: f64 = 1e-4;

/// The denoising front end on the latents, noise, timesteps and embeddings that torch was given.
struct GivenBatches<'a> {
    front: DenoisingFrontEnd,
    torch: &'a TorchRun,
}

impl<'a> GivenBatches<'a> {
    fn open(torch: &'a TorchRun, plan: &Plan) -> (Self, Params) {
        let settings = DenoisingSettings {
            seed: 0,
            timesteps: TimestepPolicy::Uniform,
            timestep_sharing: TimestepSharing::Pair,
            noise: NoisePolicy::Shared,
            weight: LossWeight::None,
            caption_dropout: 0.0,
            beta_convention: plan.diffusion.as_ref().unwrap().beta_convention,
            resolution: 32,
            side_by_side: plan.adapter.is_some(),
            images: ImageSettings::default(),
            pipeline: PipelineSettings { zero_terminal_snr: false, adapter_format: plan.adapter_format },
        };
        let none = (Path::new("no pairs"), &[][..]);
        let (front, params) =
            DenoisingFrontEnd::open(&plan.model, [none; 2], settings, &Device::Cpu, |_, _| {}).unwrap();
        let params = match &plan.adapter {
            Some(config) => params.with_new_lora(config.clone(), 0).unwrap(),
            None => params.into_trainable().unwrap(),
        };
        (Self { front, torch }, torch.start(params))
    }
}

impl FrontEnd for GivenBatches<'_> {
    type Network = Arc<dyn Denoiser>;
    type Batch = DenoisingBatch;

    fn rows(&self) -> usize {
        self.torch.pairs() * self.torch.steps() as usize
    }

    fn source_row(&self, row: usize) -> usize {
        row + 1
    }

    /// Row r is pair `r % B` of torch's step `r / B`.
    fn batch(&self, _: u64, samples: &[Sample]) -> Result<DenoisingBatch> {
        let pairs = self.torch.pairs();
        let pick = |part: &str| {
            let side = |offset: usize| {
                samples.iter().map(move |sample| {
                    let name = format!("step{}.{part}", sample.row / pairs);
                    self.torch.batches[&name].get(sample.row % pairs + offset).unwrap()
                })
            };
            Tensor::stack(&side(0).chain(side(pairs)).collect::<Vec<_>>(), 0).unwrap()
        };
        let timesteps = pick("timesteps").to_vec1::<i64>()?.into_iter().map(|t| t as usize).collect();
        let captions = vec![String::new(); samples.len()];
        let prompts = Conditioning::new(pick("prompt_embeds"))?;
        self.front.noised((pick("latents"), pick("noise")), timesteps, prompts, captions)
    }

    fn network(&self, params: &Params) -> Result<Self::Network> {
        self.front.network(params)
    }

    fn other_network(&self, folder: &Path, device: &Device) -> Result<Self::Network> {
        self.front.other_network(folder, device)
    }

    fn network_identity(&self) -> Vec<u8> {
        self.front.network_identity()
    }

    fn sequence_identities(&self, batch: &DenoisingBatch) -> Vec<Vec<u8>> {
        self.front.sequence_identities(batch)
    }

    fn is_fixed(&self) -> bool {
        self.front.is_fixed()
    }

    fn divergence_batch(&self, step: u64, samples: &[Sample]) -> Result<DenoisingBatch> {
        self.batch(step, samples)
    }

    fn completions(&self, row: usize) -> Vec<CompletionFacts> {
        self.front.completions(row)
    }

    fn tokens(&self, batch: &DenoisingBatch) -> usize {
        self.front.tokens(batch)
    }

    fn likelihood(
        &self,
        network: &Self::Network,
        batch: &DenoisingBatch,
        recorder: Option<&Recorder>,
    ) -> Result<Likelihood> {
        self.front.likelihood(network, batch, recorder)
    }

    fn dump(
        &self,
        batch: &DenoisingBatch,
        policy: &Tensor,
        reference: Option<&Tensor>,
    ) -> Result<Vec<(String, Tensor)>> {
        self.front.dump(batch, policy, reference)
    }

    fn show(&self, batch: &DenoisingBatch, colour: bool) -> Result<Vec<String>> {
        self.front.show(batch, colour)
    }

    fn save(&self, params: &Params, folder: &Path, dtype: SaveDtype) -> Result<()> {
        self.front.save(params, folder, dtype)
    }

    fn restore(&self, start: &Params, folder: &Path) -> Result<Params> {
        self.front.restore(start, folder)
    }
}

fn workshop(torch: &TorchRun) -> Workshop {
    let model = fixture(torch.model());
    Workshop::new(&format!(
        "model.path = {model:?}\ndata = {{ path = \"none.jsonl\", order = \"sequential\" }}\n{}",
        torch.recipe()
    ))
}

#[test]
fn full_fine_tuning() {
    check("full");
}

#[test]
fn adapter() {
    check("lora");
}

#[test]
fn adapter_on_a_model_that_predicts_velocity() {
    check("lora_v");
}

fn check(name: &'static str) {
    let torch = TorchRun::read("diffusion_dpo", name);
    let workshop = workshop(&torch);
    let (plan, probe_plan) = (workshop.plan(&[]), workshop.plan(&["diffusion.beta_convention=diffusers"]));
    let (front, start) = GivenBatches::open(&torch, &plan);
    let (probe, _) = GivenBatches::open(&torch, &probe_plan);
    let reference = probe.network(&start.frozen_copy().unwrap()).unwrap();
    let mut run = Run::new(&plan, &front, start, None, |_, _| {}).unwrap();
    for step in 0..torch.steps() {
        let what = format!("{name}, step {step}");
        let seen: BTreeMap<String, Tensor> = run.inspect(step, false).unwrap().tensors.into_iter().collect();
        check_batch(&torch, step, &seen);
        let loss = mean_loss(&probe, &probe_plan, (run.policy(), &reference), &run.samples(step));
        assert_near(loss, torch.metric(step, "loss_diffusers"), LOSS, &format!("{what}, diffusers' β"));
        let metrics = run.step().unwrap();
        assert_near(metrics.loss, torch.metric(step, "loss"), LOSS, &what);
        let grad_norm = torch.metric(step, "grad_norm");
        assert_near(metrics.grad_norm, grad_norm, GRAD_NORM * grad_norm, &what);
        if metrics.step == 1 || metrics.step == torch.steps() {
            torch.check_weights(run.params(), metrics.step);
        }
    }
}

fn check_batch(torch: &TorchRun, step: u64, seen: &BTreeMap<String, Tensor>) {
    for part in ["latents", "noise", "timesteps", "prompt_embeds"] {
        let name = format!("step{step}.{part}");
        assert_eq!(largest_distance(&seen[part], &torch.batches[&name]), 0.0, "{name}");
    }
    for part in ["policy_error", "reference_error"] {
        let name = format!("step{step}.{part}");
        let ratio = (&seen[part] / &torch.outputs[&name]).unwrap();
        let distance = largest_distance(&ratio, &ratio.ones_like().unwrap());
        assert!(distance <= ERRORS, "{name}: off by {distance:e} of 1");
    }
}

/// The mean loss of two networks on some rows, under the plan's objective and the front end's convention.
fn mean_loss(
    front: &GivenBatches,
    plan: &Plan,
    (policy, reference): (&Arc<dyn Denoiser>, &Arc<dyn Denoiser>),
    samples: &[Sample],
) -> f64 {
    let [Term { objective: Objective::Pair(objective), .. }] = plan.objective.terms() else {
        panic!("one objective on pairs")
    };
    let batch = front.batch(0, samples).unwrap();
    let halves = |network| {
        let logps = front.logps(network, &batch).unwrap().detach();
        [0, samples.len()].map(|start| logps.narrow(0, start, samples.len()).unwrap())
    };
    let ([chosen, rejected], [reference_chosen, reference_rejected]) = (halves(policy), halves(reference));
    let inputs = PairInputs::new(chosen, rejected).with_reference(reference_chosen, reference_rejected);
    let loss = objective.evaluate(&inputs).unwrap().per_pair.mean_all().unwrap();
    loss.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// diffusers' β is half of the paper's for the same loss: with it, the same weights, bit for bit.
#[test]
fn half_the_beta_under_diffusers_convention_is_the_same_run() {
    let torch = TorchRun::read("diffusion_dpo", "full");
    let workshop = workshop(&torch);
    let weights = |overrides: &[&str]| {
        let plan = workshop.plan(overrides);
        let (front, start) = GivenBatches::open(&torch, &plan);
        let mut run = Run::new(&plan, &front, start, None, |_, _| {}).unwrap();
        for _ in 0..2 {
            run.step().unwrap();
        }
        let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        run.params().trainable().into_iter().map(|(_, tensor)| values(tensor)).collect::<Vec<_>>()
    };
    let diffusers = weights(&["diffusion.beta_convention=diffusers", "objective.dpo.beta=500"]);
    assert_eq!(weights(&[]), diffusers);
}
