//! Objectives with heads of their own, which are trained beside the policy and kept with it.

use crate::drive::{Trajectory, drive, with_prepared};
use crate::equality::check_cut;
use crate::workshop::{LORA, Workshop};
use candle_core::Device;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use votive_train::Run;
use votive_train::front_end::{FrontEnd, Sample, Wanted};

const SPO: [&str; 1] = ["objective.spo-self-supervised.gamma=0.5"];
const SVPO: [&str; 1] = ["objective.svpo.value_weight=1"];

fn tensors(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let file = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    file.into_iter().map(|(name, tensor)| (name, tensor.flatten_all().unwrap().to_vec1().unwrap())).collect()
}

#[test]
fn one_batch_of_eight_is_eight_of_one_with_heads() {
    for adapter in [&[][..], &[LORA]] {
        let run = check_cut(&Workshop::text(), &[&SPO, adapter].concat());
        // Of four degrees none is likelier than another at the start, about.
        assert!(
            (run.metric("heads/degree_logps")[0] + 4f64.ln()).abs() < 0.2,
            "{:?}",
            run.metric("heads/degree_logps")
        );
        let run = check_cut(&Workshop::judged(), &[&SVPO, adapter].concat());
        assert!(run.metric("heads/values")[0].abs() < 0.2, "{:?}", run.metric("heads/values"));
    }
}

/// A copy is the chosen completion exactly if nothing was taken out of it; what is taken is a function of step and place.
#[test]
fn copies_have_the_degrees_that_they_say() {
    let workshop = Workshop::text();
    let plan = workshop.plan(&SPO);
    with_prepared!(&plan, |front, _start| {
        let samples: Vec<Sample> = (0..front.rows()).map(|row| Sample { row, position: row }).collect();
        let rows = samples.len();
        let drawn = |step: u64| {
            let all =
                front.extended(step, &samples, Wanted { gold: false, degrees: Some(4) }).unwrap().unwrap();
            (front.sequence_identities(&all.batch), all.degrees.unwrap())
        };
        let (sequences, degrees) = drawn(3);
        assert_eq!((sequences.len(), degrees.len()), (3 * rows, rows));
        for (i, degree) in degrees.iter().enumerate() {
            assert_eq!(*degree == 0, sequences[2 * rows + i] == sequences[i], "row {i}, degree {degree}");
            assert!(sequences[2 * rows + i].len() <= sequences[i].len());
        }
        let all: BTreeSet<u32> = (0..30).flat_map(|step| drawn(step).1).collect();
        assert_eq!(all, (0..4).collect());
        assert!(drawn(3) == (sequences, degrees.clone()) && drawn(4).1 != degrees);
    });
}

/// The degree is learned, and a value head learns what the sides were given.
#[test]
fn heads_learn_what_they_are_told() {
    let all = ["train.steps=80", "train.batch_size=20", "train.micro_batch_size=20", "optimizer.lr=1e-2"];
    let degrees = Trajectory::of(
        &Workshop::text().plan(&[&SPO[..], &all, &["objective.spo-self-supervised.gamma=5"]].concat()),
    );
    let mean = |run: &Trajectory, name: &str| run.metric(name)[70..].iter().sum::<f64>() / 10.0;
    assert!(mean(&degrees, "heads/degree_logps") > -0.9, "{:?}", degrees.metric("heads/degree_logps"));
    let values = Trajectory::of(&Workshop::judged().plan(&[&SVPO[..], &all].concat()));
    // Half of the sides were given 0.5, the others −0.15 in the mean.
    assert!((mean(&values, "heads/values") - 0.175).abs() < 0.1, "{:?}", values.metric("heads/values"));
    assert!(values.metric("loss")[79] < 0.5 * values.metric("loss")[0]);
}

/// The task reaches the policy's weights and is left out of them where it counts nothing.
#[test]
fn the_degree_is_learned_by_the_policy_too() {
    let first = |gamma: &str| {
        let gamma = format!("objective.spo-self-supervised.gamma={gamma}");
        Trajectory::of(&Workshop::text().plan(&[&gamma, "train.steps=1"])).gradients
    };
    let (with, without) = (first("10"), first("0"));
    let dpo = Trajectory::of(&Workshop::text().plan(&["train.steps=1"])).gradients;
    assert_eq!(without, dpo, "without the task it is DPO");
    // Every weight below the states, that is: the vocabulary's head is above them.
    let is_felt = |(name, values): (&String, &Vec<f32>)| without[name] != *values || name == "lm_head.weight";
    assert!(with.iter().all(is_felt), "every weight feels it");
}

#[test]
fn heads_are_saved_and_a_resumed_run_is_the_run() {
    for (workshop, objective, names) in [
        (Workshop::text(), &SPO, ["degree_head.bias", "degree_head.weight"]),
        (Workshop::judged(), &SVPO, ["value_head.bias", "value_head.weight"]),
    ] {
        let plan = workshop.plan(objective);
        let (whole, parts) = (workshop.directory("whole", &plan), workshop.directory("parts", &plan));
        drive(&plan, &whole, None).unwrap();
        drive(&plan, &parts, Some(4)).unwrap_err();
        drive(&plan, &parts, None).unwrap();
        let heads = |directory: &votive_train::RunDirectory| {
            tensors(&directory.final_folder().join("heads.safetensors"))
        };
        assert_eq!(heads(&whole).keys().collect::<Vec<_>>(), names);
        assert_eq!(heads(&whole), heads(&parts));
        let weights = |directory: &votive_train::RunDirectory| {
            tensors(&directory.final_folder().join("model.safetensors"))
        };
        assert_eq!(weights(&whole), weights(&parts));
        // They are not where they began, and no run without such an objective has any.
        let start = with_prepared!(&plan, |front, start| Run::new(&plan, &front, start, None, |_, _| {})
            .unwrap()
            .heads()
            .len());
        assert_eq!(start, 2);
        assert!(heads(&whole).values().flatten().any(|x| x.abs() > 1e-3));
    }
    let workshop = Workshop::text();
    let plan = workshop.plan(&[]);
    let plain = workshop.directory("plain", &plan);
    drive(&plan, &plain, None).unwrap();
    assert!(!plain.final_folder().join("heads.safetensors").exists());
}
