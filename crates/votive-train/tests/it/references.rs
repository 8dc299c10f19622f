//! The reference is the policy as it starts, whatever holds it, and nothing that trains can reach it.

use crate::drive::{Trajectory, values, with_prepared};
use crate::workshop::{LORA, Workshop};
use candle_core::Tensor;
use std::collections::BTreeMap;
use votive_model::Params;
use votive_objective::{METHODS, Needs};
use votive_train::front_end::FrontEnd;
use votive_train::{Plan, Run};

/// Every kind of reference that goes with a kind of fine-tuning of a language model.
const OF_TEXT: [&[&str]; 5] = [
    &["reference.kind=frozen"],
    &["reference.kind=cached"],
    &[LORA, "reference.kind=frozen"],
    &[LORA, "reference.kind=cached"],
    &[LORA, "reference.kind=adapter_off"],
];

/// The same for a diffusion model, whose rows are never the same twice, so that nothing can be cached.
const OF_IMAGES: [&[&str]; 3] =
    [&["reference.kind=frozen"], &[LORA, "reference.kind=frozen"], &[LORA, "reference.kind=adapter_off"]];

fn for_each_kind(check: impl Fn(&Plan)) {
    let (text, image) = (Workshop::text(), Workshop::image());
    OF_TEXT.iter().for_each(|kind| check(&text.plan(kind)));
    OF_IMAGES.iter().for_each(|kind| check(&image.plan(kind)));
}

#[test]
fn the_first_margin_is_exactly_zero() {
    for_each_kind(|plan| {
        let run = Trajectory::of(plan);
        for name in ["rewards/margins", "rewards/chosen", "rewards/rejected", "rewards/accuracies"] {
            assert_eq!(run.metric(name)[0], 0.0, "{name}");
        }
        assert_eq!(run.metric("loss")[0], f64::from(std::f32::consts::LN_2));
        // The warm-up's first step has a learning rate of 0, so that the second sees the same policy.
        assert_eq!(run.metric("rewards/margins")[1], 0.0);
        assert_ne!(run.metric("rewards/margins")[2], 0.0);
    });
}

#[test]
fn no_update_reaches_the_reference() {
    for_each_kind(|plan| with_prepared!(plan, |front, start| check_reference_stays(plan, &front, start)));
}

fn check_reference_stays<F: FrontEnd>(plan: &Plan, front: &F, start: Params) {
    let below: Vec<(String, Vec<f32>)> =
        start.iter().map(|(name, tensor)| (name.to_owned(), values(tensor))).collect();
    let is_adapter = start.lora().is_some();
    let mut run = Run::new(plan, front, start, None, |_, _| {}).unwrap();
    let seen = |run: &Run<F>| -> [Vec<f32>; 2] {
        let named: BTreeMap<String, Tensor> = run.inspect(0, false).unwrap().tensors.into_iter().collect();
        let pick = |wanted: &[&str]| values(wanted.iter().find_map(|name| named.get(*name)).unwrap());
        [pick(&["policy_logps", "policy_error"]), pick(&["reference_logps", "reference_error"])]
    };
    let [policy, reference] = seen(&run);
    assert_eq!(policy, reference);
    for _ in 0..3 {
        run.step().unwrap();
    }
    let [moved, kept] = seen(&run);
    assert_eq!(kept, reference);
    assert_ne!(moved, policy);
    // Under an adapter the network itself stays; without one all of it moves.
    for ((name, before), (_, after)) in below.iter().zip(run.params().iter()) {
        assert_eq!(*before == values(after), is_adapter, "{name}");
    }
}

fn refusal(plan: &Plan) -> String {
    Trajectory::attempt(plan).unwrap_err().to_string()
}

#[test]
fn a_reference_that_does_not_fit_is_refused() {
    let (text, image) = (Workshop::text(), Workshop::image());
    let cached = refusal(&image.plan(&["reference.kind=cached"]));
    assert!(cached.contains("rows that look the same at every step"), "{cached}");
    for workshop in [&text, &image] {
        let adapter = refusal(&workshop.plan(&["reference.kind=adapter_off"]));
        assert!(adapter.contains("needs an [adapter.lora]"), "{adapter}");
    }
    let divergence = refusal(&text.plan(&["objective.kto.beta=0.1", "reference.kind=cached"]));
    assert!(divergence.contains("has not seen"), "{divergence}");
}

#[test]
fn what_reads_no_reference_trains_without_one() {
    for spec in METHODS {
        let workshop = Workshop::text();
        workshop.edit("[objective.dpo]", &format!("[objective.{}]", spec.id));
        let without = Plan::read(&workshop.path("recipe.toml"), &["reference.kind=none".to_owned()]);
        if spec.needs.contains(Needs::REFERENCE) {
            let message = without.unwrap_err().to_string();
            assert!(message.contains("needs a reference"), "{}: {message}", spec.id);
        } else {
            Trajectory::of(&without.unwrap()).assert_same(&Trajectory::of(&workshop.plan(&[])));
        }
    }
}
