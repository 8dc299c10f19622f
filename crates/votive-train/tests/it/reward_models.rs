//! Reward models as TRL's RewardTrainer trains them (tests/fixtures/reward_models, written by tools/parity/reward_models.py), along
//! the whole path from a recipe and a file of preferences; and what a run of one does and refuses.

use crate::drive::{Trajectory, drive, no_reward};
use crate::fixture;
use crate::torch::{TorchRun, assert_near, largest_distance};
use crate::workshop::{LORA, Workshop};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use votive_model::RewardModelConfig;
use votive_objective::{METHODS, Needs};
use votive_train::run::Means;
use votive_train::{Plan, Prepared, Run, TrainError, prepare};

/// Rewards are up to 10, sums of a few dozen numbers in f32, of networks that are steps away from each other.
const REWARDS: f64 = 1e-4;
/// Relative.
const LOSS: f64 = 1e-5;
const GRAD_NORM: f64 = 2e-5;
/// The metrics that are TRL's numbers, in its order.
const METRICS: [&str; 6] = ["accuracy", "margin", "min_reward", "mean_reward", "max_reward", "num_tokens"];

#[test]
fn full_fine_tuning() {
    ["full", "full_gemma2"].into_iter().for_each(check);
}

#[test]
fn margins_and_centring() {
    ["full_margin", "full_center", "full_margin_center"].into_iter().for_each(check);
}

#[test]
fn adapter_with_a_head_of_its_own() {
    check("lora");
}

/// Trains as TRL did.
fn check(name: &'static str) {
    let torch = TorchRun::read("reward_models", name);
    let prefs = fixture("reward_models/prefs.jsonl");
    let data = format!("data = {{ path = {prefs:?}, order = \"sequential\" }}");
    let workshop = Workshop::new(&format!("{data}\n{}", torch.recipe()));
    lay_model(&workshop.path("model"), &fixture("reward_models").join(torch.model()));
    let plan = workshop.plan(&[&format!("model.path={}", workshop.path("model").display())]);
    let Prepared::Reward(front, start, _) = prepare(&plan, &Device::Cpu, &no_reward, |_, _| {}).unwrap()
    else {
        panic!("a reward model");
    };
    let mut run = Run::new(&plan, &*front, torch.start(start), None, |_, _| {}).unwrap();
    for step in 0..torch.steps() {
        let seen: BTreeMap<String, Tensor> = run.inspect(step, false).unwrap().tensors.into_iter().collect();
        for part in ["input_ids", "attention_mask"] {
            let name = format!("step{step}.{part}");
            assert_eq!(largest_distance(&seen[part], &torch.batches[&name]), 0.0, "{name}");
        }
        let what = format!("{name}, step {step}");
        let distance =
            largest_distance(&seen["policy_rewards"], &torch.outputs[&format!("step{step}.policy_rewards")]);
        assert!(distance <= REWARDS, "{what}: rewards off by {distance:e}");
        let metrics = run.step().unwrap();
        let loss = torch.metric(step, "loss");
        assert_near(metrics.loss, loss, LOSS * loss.max(1.0), &what);
        let grad_norm = torch.metric(step, "grad_norm");
        assert_near(metrics.grad_norm, grad_norm, GRAD_NORM * grad_norm, &what);
        let line = serde_json::to_value(&metrics).unwrap();
        for metric in METRICS {
            let found = line[metric].as_f64().unwrap();
            assert_near(found, torch.metric(step, metric), REWARDS, &format!("{what}, {metric}"));
        }
        let is_kept = ["full", "full_gemma2", "lora"].contains(&name);
        if is_kept && (metrics.step == 1 || metrics.step == torch.steps()) {
            torch.check_weights(run.params(), metrics.step);
        }
    }
}

/// A model with the tokenizer of text/llama, from which TRL's token ids came.
fn lay_model(folder: &Path, model: &Path) {
    fs::create_dir(folder).unwrap();
    let tokenizer = fixture("text/llama");
    for (from, file) in [
        (model, "config.json"),
        (model, "model.safetensors"),
        (&tokenizer, "tokenizer.json"),
        (&tokenizer, "tokenizer_config.json"),
    ] {
        fs::copy(from.join(file), folder.join(file)).unwrap();
    }
}

/// The workshop of texts with a reward model in the place of a policy.
fn workshop() -> Workshop {
    let workshop = Workshop::text();
    workshop.edit("[objective.dpo]", "[objective.bradley_terry]");
    workshop
}

/// Ten steps on all pairs at once, on a fresh head: what is liked gets the greater reward, by a tenth.
#[test]
fn every_method_of_rewards_learns_what_it_is_shown() {
    for spec in METHODS.iter().filter(|spec| spec.needs.contains(Needs::REWARDS)) {
        let workshop = Workshop::text();
        workshop.edit("[objective.dpo]", &format!("[objective.{}]", spec.id));
        let whole = ["train.steps=10", "train.batch_size=20", "train.micro_batch_size=20"];
        let run = Trajectory::of(&workshop.plan(&whole));
        let margins = run.metric("margin");
        assert!(margins[9] > margins[0] + 0.1, "{}: {margins:?}", spec.id);
        assert_eq!(run.metric("accuracy"), run.metric("rewards/accuracies"));
        assert_eq!(margins, run.metric("rewards/margins"));
        assert!(
            run.metric("logps/chosen").iter().all(|x| x.is_nan()),
            "{}: no log-probability is known",
            spec.id
        );
    }
}

#[test]
fn cutting_a_batch_changes_nothing_but_rounding() {
    let workshop = workshop();
    let [parts, whole] = ["train.micro_batch_size=1", "train.micro_batch_size=4"].map(|size| {
        Trajectory::of(&workshop.plan(&["objective.bradley_terry.with.center_rewards.coefficient=0.1", size]))
    });
    for metric in ["loss", "grad_norm", "min_reward", "mean_reward", "max_reward"] {
        for (a, b) in parts.metric(metric).iter().zip(whole.metric(metric)) {
            assert!((a - b).abs() < 2e-5 * b.abs().max(1.0), "{metric}: {a} {b}");
        }
    }
}

/// What the run at the start of a plan would log of its first step, after `steps` steps.
fn first_step(plan: &Plan, steps: u64) -> Means {
    let Prepared::Reward(front, start, _) = prepare(plan, &Device::Cpu, &no_reward, |_, _| {}).unwrap()
    else {
        panic!("a reward model");
    };
    let mut run = Run::new(plan, &*front, start, None, |_, _| {}).unwrap();
    (0..steps).for_each(|_| drop(run.step().unwrap()));
    run.evaluate(0).unwrap().means
}

#[test]
fn what_a_run_leaves_is_a_reward_model_that_the_next_one_goes_on_from() {
    let workshop = workshop();
    let plan = workshop.plan(&["train.steps=2"]);
    let directory = workshop.directory("first", &plan);
    drive(&plan, &directory, None).unwrap();
    let folder = directory.final_folder();
    assert!(RewardModelConfig::is_in(&folder).unwrap() && folder.join("tokenizer.json").exists());
    let card = fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(card.contains("pipeline_tag: text-classification") && card.contains("reward model"), "{card}");
    let model = format!("model.path={}", folder.display());
    assert_eq!(first_step(&workshop.plan(&[&model]), 0), first_step(&plan, 2));
    assert_ne!(first_step(&plan, 0), first_step(&plan, 2));
    let message = refusal(&Workshop::text(), &[&model]);
    assert!(message.contains("is a reward model, and `dpo` reads log-probabilities"), "{message}");
    assert!(message.contains("bradley_terry"), "{message}");
}

/// Why a recipe is refused.
fn refusal(workshop: &Workshop, overrides: &[&str]) -> String {
    let overrides: Vec<String> = overrides.iter().map(|entry| (*entry).to_owned()).collect();
    Plan::read(&workshop.path("recipe.toml"), &overrides).unwrap_err().to_string()
}

#[test]
fn recipes_that_make_no_sense_are_refused_with_the_reason() {
    let workshop = workshop();
    let both = ["objective.dpo.beta=0.1", "objective.bradley_terry.weight=1"];
    for (changes, parts) in [
        (&both[..], ["objective.dpo", "a model has one or the other"]),
        (&["reference.kind=frozen"], ["reference.kind", "compares with no reference"]),
        (&["sample.prompts=[\"x\"]"], ["sample", "writes nothing"]),
        (&["objective.bradley_terry.with.nll.weight=1"], ["with.nll", "a reward model gives none"]),
        (
            &["objective.simpo.with.center_rewards.coefficient=1"],
            ["with.center_rewards", "for reward models"],
        ),
    ] {
        let message = refusal(&workshop, changes);
        assert!(parts.iter().all(|part| message.contains(part)), "{changes:?}: {message}");
    }
    let images = Workshop::image();
    images.edit("[objective.dpo]", "[objective.bradley_terry]");
    let message = refusal(&images, &[]);
    assert!(message.contains("the model is one that draws"), "{message}");
    let unpaired = Workshop::unpaired_text();
    unpaired.edit("[objective.dpo]", "[objective.bradley_terry]");
    let error = prepare(&unpaired.plan(&[]), &Device::Cpu, &no_reward, |_, _| {}).err().unwrap();
    assert!(matches!(&error, TrainError::Plan(reason) if reason.contains("trained on pairs")), "{error}");
}

/// A plan is enough to repeat the run, though the head of an adapter is not the recipe's to leave out.
#[test]
fn an_adapter_has_the_head_whatever_the_recipe_says() {
    let workshop = workshop();
    let plan = workshop.plan(&[LORA, "train.steps=1"]);
    assert_eq!(plan.adapter.as_ref().unwrap().modules_to_save, ["score"]);
    fs::write(workshop.path("plan.toml"), plan.to_toml()).unwrap();
    let again = Plan::read(&workshop.path("plan.toml"), &[]).unwrap();
    assert_eq!(again.to_toml(), plan.to_toml());
    let directory = workshop.directory("adapter", &plan);
    drive(&plan, &directory, None).unwrap();
    let config = fs::read_to_string(directory.final_folder().join("adapter_config.json")).unwrap();
    assert!(config.contains("\"task_type\": \"SEQ_CLS\"") && config.contains("\"score\""), "{config}");
}
