//! Held-out rows: the same numbers as in training, at the right steps, and of rows that are not trained on.

use crate::drive::{Trajectory, drive, with_prepared};
use crate::fixture;
use crate::workshop::Workshop;
use serde_json::Value;
use std::fs;
use votive_train::front_end::FrontEnd;
use votive_train::run_directory::{BEST_FILE, EVALUATIONS_FILE, METRICS_FILE};
use votive_train::{Plan, Run, RunDirectory};

/// Sums in another order.
const ROUNDING: f64 = 1e-6;

fn read(directory: &RunDirectory, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(directory.path().join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn evaluations(directory: &RunDirectory) -> Vec<Value> {
    read(directory, EVALUATIONS_FILE)
}

/// One batch of all rows, so that a step's numbers are those of the whole data set before its update.
fn whole_batches(workshop: &Workshop, more: &[&str]) -> Vec<Value> {
    let data = workshop.plan(&[]).data.source.paths.remove(0);
    let eval = format!("eval.path={}", data.display());
    let own =
        ["train.batch_size=20", "train.micro_batch_size=20", "data.order=sequential", "eval.every=1", &eval];
    let plan = workshop.plan(&[&own, more].concat());
    let directory = workshop.directory("run", &plan);
    drive(&plan, &directory, None).unwrap();
    [read(&directory, METRICS_FILE), evaluations(&directory)].concat()
}

#[track_caller]
fn check_against_training(lines: &[Value]) {
    let training =
        |step: u64| lines.iter().find(|line| line["step"] == step && line["eval_loss"].is_null()).unwrap();
    let held_out = lines.iter().filter(|line| !line["eval_loss"].is_null());
    let mut compared = 0;
    for line in held_out.filter(|line| line["step"] != 6) {
        let next = training(line["step"].as_u64().unwrap() + 1);
        for (key, value) in line.as_object().unwrap().iter().filter(|(key, _)| *key != "step") {
            let (found, expected) = (value.as_f64().unwrap(), next[&key["eval_".len()..]].as_f64().unwrap());
            assert!(
                (found - expected).abs() <= ROUNDING * expected.abs().max(1.0),
                "{key}: {found}, {expected}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 5 * 6, "{compared}");
}

#[test]
fn evaluating_the_training_rows_gives_the_next_steps_numbers() {
    check_against_training(&whole_batches(&Workshop::text(), &[]));
    check_against_training(&whole_batches(&Workshop::text(), &["reference.kind=cached"]));
    let kto = ["objective.kto.undesirable_weight=0.1"];
    let lines = whole_batches(&Workshop::unpaired_text(), &kto);
    assert!(lines.iter().any(|line| line["eval_kl"].as_f64().is_some_and(|kl| kl > 0.0)), "{lines:?}");
    check_against_training(&lines);
}

#[test]
fn an_image_is_evaluated_at_the_same_time_and_noise_each_time() {
    let workshop = Workshop::image();
    let share =
        ["data.eval_fraction=0.5", "eval.every=2", "optimizer.lr=0.0", "diffusion.caption_dropout=0.5"];
    let plan = workshop.plan(&share);
    let directory = workshop.directory("run", &plan);
    drive(&plan, &directory, None).unwrap();
    let found = evaluations(&directory);
    let steps: Vec<u64> = found.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [2, 4, 6]);
    assert!(found.iter().all(|line| line["eval_logps/chosen"] == found[0]["eval_logps/chosen"]));
}

/// The best step is the lowest of those that were saved, and its folder is there.
#[test]
fn the_best_saved_step_is_noted() {
    let workshop = Workshop::text();
    let plan = workshop.plan(&["data.eval_fraction=0.3", "eval.every=1", "optimizer.lr=0.01"]);
    let directory = workshop.directory("run", &plan);
    drive(&plan, &directory, None).unwrap();
    let losses: Vec<f64> =
        evaluations(&directory).iter().map(|line| line["eval_loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 6);
    let best: Value =
        serde_json::from_str(&fs::read_to_string(directory.path().join(BEST_FILE)).unwrap()).unwrap();
    let (step, folder) = if losses[2] < losses[5] { (3, "checkpoints/step-000003") } else { (6, "final") };
    assert_eq!((best["step"].as_u64(), best["folder"].as_str()), (Some(step), Some(folder)));
    assert_eq!(best["eval_loss"].as_f64().unwrap(), losses[step as usize - 1]);
    assert!(directory.path().join(folder).join("manifest.json").exists());
}

fn rows(plan: &Plan) -> (usize, usize) {
    with_prepared!(plan, |front, _start| (front.rows(), front.held_out()))
}

#[test]
fn a_share_of_the_rows_is_not_trained_on() {
    let workshop = Workshop::text();
    let (train, held_out) = rows(&workshop.plan(&["data.eval_fraction=0.3"]));
    assert_eq!(train + held_out, 20);
    assert!((1..=12).contains(&held_out), "{held_out}");
    let other = format!("eval.path={}", fixture("text/prefs.jsonl").display());
    let (train, held_out) = rows(&workshop.plan(&[&other]));
    assert!(train == 20 && held_out > 0, "{train} {held_out}");
}

#[test]
fn the_metrics_of_training_do_not_depend_on_evaluation() {
    let workshop = Workshop::text();
    let other = format!("eval.path={}", fixture("text/prefs.jsonl").display());
    Trajectory::of(&workshop.plan(&[])).assert_same(&Trajectory::of(&workshop.plan(&[&other])));
    let plan = workshop.plan(&[]);
    with_prepared!(&plan, |front, start| {
        assert!(Run::new(&plan, &front, start, None, |_, _| {}).unwrap().held_out().unwrap().is_none());
    });
}

#[test]
fn rows_that_cannot_be_held_out_are_refused() {
    let refusal = |workshop: &Workshop, overrides: &[&str]| {
        let plan = workshop.plan(overrides);
        votive_train::prepare(&plan, &candle_core::Device::Cpu, &crate::drive::no_reward, |_, _| {})
            .err()
            .unwrap()
            .to_string()
    };
    let none = refusal(&Workshop::text(), &["data.eval_fraction=0.0000001"]);
    assert!(none.contains("data.eval_fraction") && none.contains("holds out 0 of 20 rows"), "{none}");
    let unpaired = Workshop::unpaired_text();
    let pairs = format!("eval.path={}", fixture("text/prefs.jsonl").display());
    let mixed = refusal(&unpaired, &["objective.kto.beta=0.1", &pairs]);
    assert!(mixed.contains("eval.path and data.path differ"), "{mixed}");
}
