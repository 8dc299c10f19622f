//! Numbers that go wrong stop a run, and the message says where.

use crate::drive::no_reward;
use crate::drive::{Trajectory, values};
use crate::workshop::{LORA, Workshop};
use candle_core::{Device, Tensor, Var};
use std::collections::BTreeSet;
use votive_model::Params;
use votive_train::front_end::{FrontEnd, Sample, TextFrontEnd};
use votive_train::{Plan, Prepared, Run, TrainError, prepare};

/// Trains a language model whose parameters were changed before the run began.
fn run_changed(plan: &Plan, change: impl Fn(&Params)) -> TrainError {
    let Prepared::Text(front, start, _) = prepare(plan, &Device::Cpu, &no_reward, |_, _| {}).unwrap() else {
        panic!("a language model");
    };
    change(&start);
    let mut run = Run::new(plan, &*front, start, None, |_, _| {}).unwrap();
    (0..plan.train.steps).find_map(|_| run.step().err()).unwrap()
}

/// Width of the tiny language model.
const WIDTH: usize = 32;

/// Changes one parameter in place.
fn set(params: &Params, name: &str, change: impl Fn(usize, f32) -> f32) {
    let tensor = params.get(name).unwrap();
    let changed: Vec<f32> =
        values(tensor).into_iter().enumerate().map(|(i, value)| change(i, value)).collect();
    let changed = Tensor::from_vec(changed, tensor.shape(), &Device::Cpu).unwrap();
    Var::from_tensor(tensor).unwrap().set(&changed).unwrap();
}

/// A token that occurs in one row alone, from the fifth row on.
fn token_of_one_row(front: &TextFrontEnd) -> (usize, u32) {
    let ids = |row| -> BTreeSet<u32> {
        let batch = front.batch(0, &[Sample { row, position: 0 }]).unwrap();
        batch.tokens().input_ids.iter().copied().collect()
    };
    let rows: Vec<BTreeSet<u32>> = (0..front.rows()).map(ids).collect();
    let is_alone =
        |row: usize, id: &u32| rows.iter().enumerate().all(|(other, ids)| other == row || !ids.contains(id));
    (4..rows.len()).find_map(|row| Some((row, *rows[row].iter().find(|id| is_alone(row, id))?))).unwrap()
}

#[test]
fn a_log_probability_that_is_not_finite_is_traced_to_its_row() {
    let workshop = Workshop::text();
    let plan = workshop.plan(&["data.order=sequential"]);
    let Prepared::Text(front, ..) = prepare(&plan, &Device::Cpu, &no_reward, |_, _| {}).unwrap() else {
        panic!("text")
    };
    let (row, id) = token_of_one_row(&front);
    let poison = |at, value| if at / WIDTH == id as usize { f32::NAN } else { value };
    let error = run_changed(&plan, |params| set(params, "model.embed_tokens.weight", poison));
    let step = row / plan.train.batch_size;
    assert_eq!(
        error.to_string(),
        format!("step {step}: the log-probability is not finite for data row {}", row + 1)
    );
}

/// A learning rate that no weight survives: some row's numbers overflow in the step after the first update.
#[test]
fn a_run_that_explodes_is_stopped() {
    for workshop in [Workshop::text(), Workshop::image()] {
        for adapter in [&[][..], &[LORA]] {
            let plan = workshop.plan(&[adapter, &["optimizer.lr=1e20"]].concat());
            let message = Trajectory::attempt(&plan).unwrap_err().to_string();
            let expected = "step 2: the log-probability is not finite for data row ";
            assert!(message.starts_with(expected), "{message}");
        }
    }
}

#[test]
fn parameters_without_a_gradient_are_counted_and_named() {
    let workshop = Workshop::text();
    // Nothing comes out of this attention, so nothing goes back into its queries, keys, values and their norm.
    let attention = "model.layers.0.self_attn.o_proj.weight";
    let error = run_changed(&workshop.plan(&[]), |params| set(params, attention, |_, _| 0.0));
    assert_eq!(
        error.to_string(),
        "step 0: no gradient reaches 4 of 21 trainable parameters, first model.layers.0.input_layernorm.weight"
    );
}

/// A loss that nothing can change: the gate does not wait for the second step.
#[test]
fn a_loss_without_a_gradient_is_refused() {
    let workshop = Workshop::unpaired_text();
    let weights = ["objective.kto.desirable_weight=0", "objective.kto.undesirable_weight=0"];
    let message = Trajectory::attempt(&workshop.plan(&weights)).unwrap_err().to_string();
    assert!(message.contains("no gradient reaches 21 of 21"), "{message}");
}

#[test]
fn a_policy_that_is_not_its_reference_is_noticed() {
    let workshop = Workshop::text();
    let plan = workshop.plan(&["data.order=sequential"]);
    let Prepared::Text(front, start, _) = prepare(&plan, &Device::Cpu, &no_reward, |_, _| {}).unwrap() else {
        panic!("a language model");
    };
    let mut run = Run::new(&plan, &*front, start.clone(), None, |_, _| {}).unwrap();
    // The policy's own variables, after the reference was copied from them.
    set(&start, "model.norm.weight", |_, value| value * 1.01);
    let error = run.step().unwrap_err();
    assert!(matches!(error, TrainError::StartMargin { row: 1, .. }), "{error}");
}
