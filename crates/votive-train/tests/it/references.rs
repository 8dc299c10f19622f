//! The reference is the policy as it starts, whatever holds it, and nothing that trains can reach it.

use crate::drive::{Trajectory, values, with_prepared};
use crate::workshop::{LORA, WHOLE, Workshop, has_what_is_read};
use candle_core::Tensor;
use std::collections::BTreeMap;
use votive_model::Params;
use votive_objective::{METHODS, Needs};
use votive_train::front_end::FrontEnd;
use votive_train::{Plan, Run};

/// Every kind of reference that goes with a kind of fine-tuning of a language model.
const OF_TEXT: [&[&str]; 7] = [
    &["reference.kind=frozen"],
    &["reference.kind=cached"],
    &[LORA, "reference.kind=frozen"],
    &[LORA, "reference.kind=cached"],
    &[LORA, "reference.kind=adapter_off"],
    &["reference.kind=bema", "reference.every=100"],
    &[LORA, "reference.kind=soft", "reference.every=100"],
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
        assert_eq!(run.metric("loss")[0] as f32, std::f32::consts::LN_2);
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
    for spec in METHODS.iter().filter(|spec| has_what_is_read(spec)) {
        let is_of_images = spec.needs.contains(Needs::ERRORS);
        let workshop = if is_of_images { Workshop::image() } else { Workshop::text() };
        workshop.edit("[objective.dpo]", &format!("[objective.{}]", spec.id));
        let without =
            Plan::read(&workshop.path("recipe.toml"), &["reference.kind=none".to_owned(), WHOLE.to_owned()]);
        if spec.needs.contains(Needs::REFERENCE) {
            let message = without.unwrap_err().to_string();
            assert!(message.contains("needs a reference"), "{}: {message}", spec.id);
        } else {
            Trajectory::of(&without.unwrap()).assert_same(&Trajectory::of(&workshop.plan(&[WHOLE])));
        }
    }
}

/// The margins of every step.
fn margins(plan: &Plan) -> Vec<f64> {
    Trajectory::of(plan).metric("rewards/margins")
}

#[test]
fn a_reference_that_always_follows_is_the_policy() {
    for workshop in [Workshop::text(), Workshop::image()] {
        for adapter in [&[][..], &[LORA]] {
            let follow = ["reference.kind=hard", "reference.every=1"];
            let plan = workshop.plan(&[adapter, &follow].concat());
            assert!(margins(&plan).iter().all(|margin| *margin == 0.0), "{:?}", margins(&plan));
        }
    }
}

#[test]
fn a_reference_that_follows_now_and_then_is_frozen_in_between() {
    for adapter in [&[][..], &[LORA]] {
        let workshop = Workshop::text();
        let with = |reference: &[&str]| margins(&workshop.plan(&[adapter, reference].concat()));
        let (frozen, hard) = (with(&[]), with(&["reference.kind=hard", "reference.every=3"]));
        let soft = with(&["reference.kind=soft", "reference.every=3", "reference.alpha=0.5"]);
        let bema = with(&["reference.kind=bema", "reference.every=3"]);
        for followed in [&hard, &soft, &bema] {
            assert_eq!(followed[..3], frozen[..3]);
            assert_ne!(followed[3], frozen[3]);
        }
        // The update just made is the policy itself.
        assert_eq!(hard[3], 0.0);
        assert!(soft[3] != 0.0 && bema[3] != 0.0);
    }
}

#[test]
fn the_models_own_folder_is_a_frozen_copy() {
    for (workshop, folder) in [(Workshop::text(), "text/llama"), (Workshop::image(), "diffusion/sd1")] {
        let path = format!("reference.path={}", crate::fixture(folder).display());
        let run = |overrides: &[&str]| Trajectory::of(&workshop.plan(overrides));
        run(&["reference.kind=model", &path]).assert_same(&run(&[]));
    }
}

#[test]
fn another_adapter_can_be_the_reference() {
    let workshop = Workshop::text();
    let trained = workshop.plan(&[LORA]);
    let directory = workshop.directory("first", &trained);
    crate::drive::drive(&trained, &directory, None).unwrap();
    let path = format!("reference.path={}", directory.final_folder().display());
    let against = |reference: &[&str]| margins(&workshop.plan(&[&[LORA], reference].concat()));
    let (own, other) = (against(&[]), against(&["reference.kind=adapter", &path]));
    // Another model from the first step on, which is no mistake here.
    assert!(own[0] == 0.0 && other[0] != 0.0);
}

#[test]
fn a_file_of_log_probabilities_serves_the_next_run_and_no_other_model() {
    let workshop = Workshop::text();
    let file = workshop.path("reference.safetensors");
    let kept = format!("reference.file={}", file.display());
    let plan = |extra: &[&str]| workshop.plan(&[&["reference.kind=cached", &kept], extra].concat());
    let live = Trajectory::of(&workshop.plan(&[]));
    let from_file = |plan: &Plan| {
        with_prepared!(plan, |front, start| {
            let run = Run::new(plan, &front, start, None, |_, _| {}).unwrap();
            (run.reference().rows_from_file(), front.rows())
        })
    };
    let (found, rows) = from_file(&plan(&[]));
    assert_eq!(found, 0);
    let written = std::fs::read(&file).unwrap();
    assert_eq!(from_file(&plan(&[])), (rows, rows));
    Trajectory::of(&plan(&[])).assert_same(&live);
    assert_eq!(std::fs::read(&file).unwrap(), written, "nothing was missing, so nothing is written");
    // An adapter, even one that does nothing yet, is another model; so its rows join the others.
    assert_eq!(from_file(&plan(&[LORA])).0, 0);
    assert_eq!(from_file(&plan(&[LORA])).0, rows);
    assert_eq!(from_file(&plan(&[])).0, rows);
}

#[test]
fn a_damaged_file_of_log_probabilities_is_refused_with_the_row() {
    let workshop = Workshop::text();
    let file = workshop.path("reference.safetensors");
    let kept = format!("reference.file={}", file.display());
    let plan = workshop.plan(&["reference.kind=cached", &kept]);
    Trajectory::of(&plan);
    let mut bytes = std::fs::read(&file).unwrap();
    // Behind the header, whose length comes first, stand the numbers: those of all 20 pairs become 0.
    let data = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes[data..data + 2 * 20 * 4].fill(0);
    std::fs::write(&file, &bytes).unwrap();
    let message = refusal(&plan);
    assert!(message.contains("reference.safetensors") && message.contains("data row 1"), "{message}");
    std::fs::write(&file, &bytes[..40]).unwrap();
    assert!(refusal(&plan).contains("reference.safetensors"));
}

#[test]
fn a_reference_that_has_gone_as_far_as_it_may_stays_there() {
    for workshop in [Workshop::text(), Workshop::image()] {
        let follow = ["reference.kind=hard", "reference.every=2"];
        let with = |limit: &[&str]| Trajectory::of(&workshop.plan(&[&follow, limit].concat()));
        let (free, frozen) = (with(&[]), Trajectory::of(&workshop.plan(&[])));
        // Every step leads some way from the start, if only downwards, so a limit that is far away is no limit.
        with(&["reference.max_divergence=1e6"]).assert_same_but(&free, "reference/divergence");
        // The first update would already pass this one if the chosen completions got worse at all.
        let held = with(&["reference.max_divergence=1e-12"]);
        let found = held.metric("reference/divergence");
        assert!(found[1].is_finite() && found[0].is_nan(), "{found:?}");
        if found[1] > 1e-12 {
            held.assert_same_but(&frozen, "reference/divergence");
            assert!(found[2..].iter().all(|later| later.is_nan()), "frozen for good: {found:?}");
        }
    }
}

#[test]
fn preferring_the_rejected_is_preferring_the_other_side() {
    use std::fs;
    for (workshop, from, to) in [
        (Workshop::text(), ["\"chosen\":", "\"rejected\":"], "pairs.jsonl"),
        (Workshop::image(), ["\"chosen\":", "\"rejected\":"], "pairs.jsonl"),
    ] {
        let turned = Trajectory::of(&workshop.plan(&["data.prefer=rejected"]));
        let rows = fs::read_to_string(workshop.path(to)).unwrap();
        let swapped = rows.replace(from[0], "\"?\":").replace(from[1], from[0]).replace("\"?\":", from[1]);
        assert_ne!(rows, swapped);
        fs::write(workshop.path(to), swapped).unwrap();
        Trajectory::of(&workshop.plan(&[])).assert_same(&turned);
    }
}
