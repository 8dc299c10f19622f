//! Diffusion methods where they must become one another.

use crate::drive::{Trajectory, values, with_prepared};
use crate::workshop::{LORA, Workshop};
use std::collections::BTreeMap;
use votive_train::front_end::FrontEnd;
use votive_train::{Plan, Run};

const ADAPTERS: [&[&str]; 2] = [&[], &[LORA]];

#[track_caller]
fn check_same(workshop: &Workshop, one: &[&str], other: &[&str]) {
    for adapter in ADAPTERS {
        let run = |overrides: &[&str]| Trajectory::of(&workshop.plan(&[adapter, overrides].concat()));
        run(one).assert_same(&run(other));
    }
}

#[test]
fn rethinking_without_updates_and_with_even_times_is_diffusion_dpo() {
    let never = ["reference.kind=hard", "reference.every=1000000", "diffusion.timesteps=\"uniform\""];
    check_same(&Workshop::image(), &never, &[]);
}

#[test]
fn inversion_in_no_steps_is_diffusion_dpo() {
    for by in ["policy", "reference"] {
        let by = format!("diffusion.inversion_by={by}");
        let inpo = ["diffusion.noise=inversion", "diffusion.inversion_steps=0", &by];
        check_same(&Workshop::image(), &inpo, &[]);
    }
}

/// The noise of a step, and the numbers that were drawn.
fn noise(plan: &Plan, step: u64) -> [Vec<f32>; 2] {
    with_prepared!(plan, |front, start| {
        let mut run = Run::new(plan, &front, start, None, |_, _| {}).unwrap();
        for _ in 0..step {
            run.step().unwrap();
        }
        let drawn = front.batch(step, &run.samples(step)).unwrap();
        let networks = front.network(&run.params().untracked().unwrap()).unwrap();
        let logps = front.logps(&networks, &drawn).unwrap();
        let dumped: BTreeMap<_, _> = front.dump(&drawn, &logps, None).unwrap().into_iter().collect();
        let seen: BTreeMap<_, _> = run.inspect(step, false).unwrap().tensors.into_iter().collect();
        [&seen, &dumped].map(|named| named.get("noise").map(values).unwrap_or_default())
    })
}

#[test]
fn inverted_noise_is_the_networks_own_for_each_side_and_follows_whoever_inverts() {
    let workshop = Workshop::image();
    let plan = |by: &str| {
        let by = format!("diffusion.inversion_by={by}");
        workshop.plan(&["diffusion.noise=inversion", "diffusion.inversion_steps=3", &by])
    };
    let [seen, drawn] = noise(&plan("policy"), 0);
    assert_ne!(seen, drawn);
    let (chosen, rejected) = seen.split_at(seen.len() / 2);
    assert_ne!(chosen, rejected, "what was drawn is shared, what is found is not");
    assert_eq!(noise(&plan("reference"), 0)[0], seen, "both are the same network at the start");
    assert_ne!(noise(&plan("reference"), 3)[0], noise(&plan("policy"), 3)[0]);
}

/// Noise, times, captions and inversion are functions of the pair, so how a batch is cut changes nothing but rounding.
#[test]
fn micro_batches_of_every_policy_are_one_batch() {
    let workshop = Workshop::image();
    for policy in [
        &["diffusion.noise=inversion", "diffusion.inversion_steps=2", "diffusion.inversion_refinements=1"][..],
        &["diffusion.noise=independent", "diffusion.timestep_sharing=independent"],
        &["diffusion.timesteps={ bins = 10, gamma = 0.8 }", "diffusion.weight=rethinking"],
        &["diffusion.weight=min_snr", "diffusion.caption_dropout=0.5"],
    ] {
        let run = |size: &str| {
            let size = format!("train.micro_batch_size={size}");
            Trajectory::of(&workshop.plan(&[policy, &[&size, "train.steps=2"]].concat()))
        };
        let (whole, parts) = (run("2"), run("1"));
        assert!((whole.metric("loss")[1] - parts.metric("loss")[1]).abs() < 1e-4, "{policy:?}");
        for (name, whole) in &whole.gradients {
            let largest = whole.iter().fold(1e-3f32, |most, g| most.max(g.abs()));
            let apart =
                whole.iter().zip(&parts.gradients[name]).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(apart < 2e-4 * largest, "{policy:?}: {name}: {apart} of {largest}");
        }
    }
}

#[test]
fn a_policy_that_is_its_reference_has_a_loss_of_ln_2() {
    let workshop = Workshop::image();
    for policy in [
        &["objective.dpo.beta=500"][..],
        &["objective.d3po.beta=10"],
        &["diffusion.noise=inversion", "diffusion.inversion_steps=2"],
        &["diffusion.weight=rethinking", "diffusion.timesteps={ bins = 4, gamma = 0.5 }"],
        &["data.prefer=rejected"],
    ] {
        let loss = Trajectory::of(&workshop.plan(&[policy, &["train.steps=1"]].concat())).metric("loss")[0];
        assert!((loss - std::f64::consts::LN_2).abs() < 1e-12, "{policy:?}: {loss}");
    }
}
